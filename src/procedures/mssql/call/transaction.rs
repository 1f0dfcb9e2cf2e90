//! The transaction in which the worker runs a call.
//!
//! The transaction is begun twice, so that an unmatched COMMIT in the procedure commits nothing.
//! `IMPLICIT_TRANSACTIONS` is on, so that statements after a ROLLBACK begin a new transaction
//! instead of committing one by one. SQL Server reports both cases as error 266, and everything is
//! rolled back.
//!
//! A procedure can switch `IMPLICIT_TRANSACTIONS` off for itself. This cannot be detected later.
//! Therefore, a call counts as rolled back only if the rollback is confirmed:
//! - SQL Server reports each transaction that begins or ends. If it has reported none and a
//!   transaction is open, that transaction is the worker's. If it has reported one rollback and has
//!   executed nothing since, an error ended the procedure.
//! - A savepoint ends with its transaction. A dry run always sets one. Other calls set one only on
//!   a server that reports nothing, because a transaction with a savepoint cannot become
//!   distributed.

use tiberius::ColumnData;
use tiberius::error::Error;

use super::execute::ExecutionError;
use crate::procedures::Transaction;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::pools::TdsConnection;
use crate::procedures::mssql::tds::{TdsClient, TransactionReport};

const BEGIN: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; SET IMPLICIT_TRANSACTIONS ON";
const BEGIN_WITH_SAVEPOINT: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; \
    SAVE TRANSACTION fjord_call; SET IMPLICIT_TRANSACTIONS ON";
/// Commits and selects 2 if the worker's transaction was still open. Otherwise selects 0.
const COMMIT: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 2 BEGIN \
    COMMIT TRANSACTION; COMMIT TRANSACTION; SELECT 2 END \
    ELSE BEGIN IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 0 END";
/// Rolls back. Selects the previous `@@TRANCOUNT` if the savepoint existed, and 0 otherwise. The
/// savepoint can exist only in the worker's own transaction.
const ROLLBACK_TO_SAVEPOINT: &str = "SET IMPLICIT_TRANSACTIONS OFF; DECLARE @own int = @@TRANCOUNT; \
    BEGIN TRY IF @own > 0 ROLLBACK TRANSACTION fjord_call END TRY \
    BEGIN CATCH SET @own = 0 END CATCH; IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT @own";
/// Rolls back, and selects the previous `@@TRANCOUNT`.
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; DECLARE @own int = @@TRANCOUNT; \
    IF @own > 0 ROLLBACK TRANSACTION; SELECT @own";

/// Begins the transaction. `reports` is set if the server reports transactions. If this future is
/// dropped, the connection must be discarded.
pub(super) async fn begin(
    client: &mut TdsClient,
    transaction: Transaction,
    reports: bool,
) -> Result<(), Error> {
    let has_savepoint = transaction == Transaction::RolledBack || !reports;
    let sql = if has_savepoint { BEGIN_WITH_SAVEPOINT } else { BEGIN };
    client.simple_query(sql).await?.into_results().await.map(drop)
}

/// Rolls back a failed call. Returns whether all of its changes have provably been rolled back.
/// `report` comes from the call's answer, on a server that reports transactions. If this future is
/// dropped, the connection must be discarded.
pub(super) async fn undo(
    connection: &mut TdsConnection,
    transaction: Transaction,
    report: Option<TransactionReport>,
) -> bool {
    let sql = match (transaction, report) {
        (Transaction::None, _) | (_, Some(TransactionReport::Other)) => return false,
        (_, Some(TransactionReport::RolledBack)) => return true,
        (Transaction::Committed, Some(TransactionReport::Nothing)) => ROLLBACK,
        (Transaction::RolledBack, Some(TransactionReport::Nothing)) | (_, None) => {
            ROLLBACK_TO_SAVEPOINT
        }
    };
    matches!(query_number(&mut connection.client, sql).await, Ok(Some(count)) if count > 0)
}

/// Ends the transaction of a call that succeeded. If this future is dropped, the connection must be
/// discarded.
pub(super) async fn end(
    client: &mut TdsClient,
    transaction: Transaction,
) -> Result<(), ExecutionError> {
    let sql = match transaction {
        Transaction::None => return Ok(()),
        Transaction::Committed => COMMIT,
        Transaction::RolledBack => ROLLBACK_TO_SAVEPOINT,
    };
    match Box::pin(query_number(client, sql)).await? {
        Some(2) => Ok(()),
        _ => Err(error_numbers::transaction_ended().into()),
    }
}

/// Executes a batch and returns the number that it selects.
async fn query_number(client: &mut TdsClient, sql: &str) -> Result<Option<i32>, Error> {
    let answer = client.simple_query(sql).await?.into_row().await?;
    let value = answer.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
    Ok(match value {
        Some(ColumnData::I32(count)) => *count,
        _ => None,
    })
}
