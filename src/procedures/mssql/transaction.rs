//! The transaction that the worker puts around a call.
//!
//! It is begun twice, so that a COMMIT of the procedure's for which it had no BEGIN commits nothing, and what the
//! procedure does after a ROLLBACK of its own begins a transaction again instead of committing by itself. SQL Server
//! reports either as error 266, and all of it is rolled back.
//!
//! That of a dry run has a savepoint as well: it ends with its transaction, so a procedure that commits and begins another
//! one is found out, also on a server that tells of no commit.

use tiberius::ColumnData;
use tiberius::error::Error;

use super::connect::Client;
use super::errors;
use super::pool::Session;
use super::run::Failure;
use crate::procedures::Transaction;

const BEGIN: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; SET IMPLICIT_TRANSACTIONS ON";
const BEGIN_DRY_RUN: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; \
    SAVE TRANSACTION fjord_dry_run; SET IMPLICIT_TRANSACTIONS ON";
/// Says 1 when the transaction was still the worker's, and 0 when it is gone.
const COMMIT: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 2 BEGIN \
    COMMIT TRANSACTION; COMMIT TRANSACTION; SELECT 1 END \
    ELSE BEGIN IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 0 END";
/// The same of a dry run. The savepoint is there only in the worker's own transaction.
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; DECLARE @own int = 0; \
    BEGIN TRY IF @@TRANCOUNT = 2 BEGIN ROLLBACK TRANSACTION fjord_dry_run; SET @own = 1 END END TRY \
    BEGIN CATCH SET @own = 0 END CATCH; IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT @own";

/// Begins it. Not safe to drop: the connection is of no more use then.
pub(super) async fn begin(client: &mut Client, transaction: Transaction) -> Result<(), Error> {
    let sql = if transaction == Transaction::RolledBack { BEGIN_DRY_RUN } else { BEGIN };
    client.simple_query(sql).await?.into_results().await.map(drop)
}

/// Whether nothing that a call did before its error can have been committed. Not safe to drop: the connection is of no
/// more use then.
pub(super) async fn is_whole(
    session: &mut Session,
    transaction: Transaction,
    tells_of_commits: bool,
) -> bool {
    if transaction == Transaction::None || session.marks.has_committed() {
        return false;
    }
    // A dry run promises that nothing stays: without the server's word only the savepoint proves it.
    tells_of_commits
        || transaction != Transaction::RolledBack
        || end(&mut session.client, transaction).await.is_ok()
}

/// Ends the transaction of a call that succeeded. Not safe to drop: the connection is of no more use then.
pub(super) async fn end(client: &mut Client, transaction: Transaction) -> Result<(), Failure> {
    let sql = match transaction {
        Transaction::None => return Ok(()),
        Transaction::Committed => COMMIT,
        Transaction::RolledBack => ROLLBACK,
    };
    let answer = client.simple_query(sql).await?.into_row().await?;
    let said = answer.as_ref().and_then(|row| row.cells().next().map(|(_, value)| value));
    match said {
        Some(ColumnData::I32(Some(1))) => Ok(()),
        _ => Err(errors::transaction_ended().into()),
    }
}
