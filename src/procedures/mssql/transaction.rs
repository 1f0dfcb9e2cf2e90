//! The transaction that the worker puts around a call.
//!
//! It is begun twice, so that a COMMIT of the procedure's for which it had no BEGIN commits nothing, and what the
//! procedure does after a ROLLBACK of its own begins a transaction again instead of committing by itself. SQL Server
//! reports either as error 266, and all of it is rolled back.

use tiberius::ColumnData;
use tiberius::error::Error;

use super::connect::Client;
use super::errors;
use super::run::Failure;
use crate::procedures::Transaction;

const BEGIN: &str = "BEGIN TRANSACTION; BEGIN TRANSACTION; SET IMPLICIT_TRANSACTIONS ON";
/// Says 1 when the transaction was still the worker's, and 0 when it is gone.
const COMMIT: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 2 BEGIN \
    COMMIT TRANSACTION; COMMIT TRANSACTION; SELECT 1 END \
    ELSE BEGIN IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 0 END";
const ROLLBACK: &str = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 2 BEGIN \
    ROLLBACK TRANSACTION; SELECT 1 END \
    ELSE BEGIN IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 0 END";

/// Begins it. Not safe to drop: the connection is of no more use then.
pub(super) async fn begin(client: &mut Client) -> Result<(), Error> {
    client.simple_query(BEGIN).await?.into_results().await.map(drop)
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
