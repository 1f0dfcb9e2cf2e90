//! The transaction that the worker puts around a call.
//!
//! It is begun twice, so that a COMMIT of the procedure's for which it had no BEGIN commits nothing, and what the
//! procedure does after a ROLLBACK of its own begins a transaction again instead of committing by itself. SQL Server
//! reports either as error 266, and all of it is rolled back.
//!
//! A procedure can switch the latter off for itself (`SET IMPLICIT_TRANSACTIONS`), and nothing of that can be seen
//! afterwards. So nothing is taken for rolled back without a proof:
//! - SQL Server reports each transaction that begins or ends. It reported none, and one is still open: it is the worker's.
//!   Or it reported one roll-back, and that was the last that happened: an error ended the procedure.
//! - A savepoint ends with its transaction. A dry run always has one. A call that is to be committed has one only on a
//!   server that reports nothing, because SQL Server makes no distributed transaction of one with a savepoint.

use tiberius::ColumnData;
use tiberius::error::Error;

use super::answer::Reported;
use super::connect::Client;
use super::errors;
use super::pool::Session;
use super::run::Failure;
use crate::procedures::Transaction;

const BEGIN: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; SET IMPLICIT_TRANSACTIONS ON";
const BEGIN_WITH_SAVEPOINT: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; \
    SAVE TRANSACTION fjord_call; SET IMPLICIT_TRANSACTIONS ON";
/// Says 2 when the transaction was still the worker's, and 0 when it is gone.
const COMMIT: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 2 BEGIN \
    COMMIT TRANSACTION; COMMIT TRANSACTION; SELECT 2 END \
    ELSE BEGIN IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 0 END";
/// Says `@@TRANCOUNT` when the savepoint, which is there only in the worker's own transaction, was there; else 0.
const ROLLBACK_TO_SAVEPOINT: &str = "SET IMPLICIT_TRANSACTIONS OFF; DECLARE @own int = @@TRANCOUNT; \
    BEGIN TRY IF @own > 0 ROLLBACK TRANSACTION fjord_call END TRY \
    BEGIN CATCH SET @own = 0 END CATCH; IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT @own";
/// Says what `@@TRANCOUNT` was.
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; DECLARE @own int = @@TRANCOUNT; \
    IF @own > 0 ROLLBACK TRANSACTION; SELECT @own";

/// Begins it, on a server that reports transactions or not. Not safe to drop: the connection is of no more use then.
pub(super) async fn begin(
    client: &mut Client,
    transaction: Transaction,
    reports: bool,
) -> Result<(), Error> {
    let has_savepoint = transaction == Transaction::RolledBack || !reports;
    let sql = if has_savepoint { BEGIN_WITH_SAVEPOINT } else { BEGIN };
    client.simple_query(sql).await?.into_results().await.map(drop)
}

/// Undoes what a call did before its error, and says whether that is proved to be all that it did. `reported` is what
/// the call's answer reported, on a server that reports. Not safe to drop: the connection is of no more use then.
pub(super) async fn undoes_all(
    session: &mut Session,
    transaction: Transaction,
    reported: Option<Reported>,
) -> bool {
    let sql = match (transaction, reported) {
        (Transaction::None, _) | (_, Some(Reported::Other)) => return false,
        (_, Some(Reported::RolledBack)) => return true,
        (Transaction::Committed, Some(Reported::Nothing)) => ROLLBACK,
        (Transaction::RolledBack, Some(Reported::Nothing)) | (_, None) => ROLLBACK_TO_SAVEPOINT,
    };
    matches!(said(&mut session.client, sql).await, Ok(Some(count)) if count > 0)
}

/// Ends the transaction of a call that succeeded. Not safe to drop: the connection is of no more use then.
pub(super) async fn end(client: &mut Client, transaction: Transaction) -> Result<(), Failure> {
    let sql = match transaction {
        Transaction::None => return Ok(()),
        Transaction::Committed => COMMIT,
        Transaction::RolledBack => ROLLBACK_TO_SAVEPOINT,
    };
    match said(client, sql).await? {
        Some(2) => Ok(()),
        _ => Err(errors::transaction_ended().into()),
    }
}

/// The number that a batch of ours answers with.
async fn said(client: &mut Client, sql: &str) -> Result<Option<i32>, Error> {
    let answer = client.simple_query(sql).await?.into_row().await?;
    let said = answer.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
    Ok(match said {
        Some(ColumnData::I32(count)) => *count,
        _ => None,
    })
}
