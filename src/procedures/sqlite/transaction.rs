//! The transactions of a call, as on SQL Server. Without a transaction, each statement is committed
//! separately.

use rusqlite::Connection;

use crate::procedures::{BackendError, CallError, Transaction};

use super::error_codes::{self, TransactionCountError};
use super::script::TransactionStatement;

/// The transactions of a running call.
pub(super) struct CallTransactions<'a> {
    connection: &'a Connection,
    /// The transaction in which the worker runs the call.
    outer: Transaction,
    /// Whether the procedure writes. If so, its transactions take the write lock at their start,
    /// because taking it later can fail after other statements have run.
    writes: bool,
    /// The number of transactions that the procedure has begun and not ended.
    count: u32,
    /// Whether a statement was executed. If so, the call may have had an effect.
    has_run: bool,
}

impl<'a> CallTransactions<'a> {
    /// Begins the worker's transaction, if there is one.
    pub(super) fn begin(
        connection: &'a Connection,
        outer: Transaction,
        writes: bool,
    ) -> Result<Self, BackendError> {
        let transactions = Self { connection, outer, writes, count: 0, has_run: false };
        if outer != Transaction::None {
            transactions.execute_begin(writes).map_err(error_codes::before_running)?;
        }
        Ok(transactions)
    }

    /// Returns whether each statement is committed separately.
    fn is_autocommit(&self) -> bool {
        self.outer == Transaction::None && self.count == 0
    }

    /// Executes a statement that begins or ends a transaction.
    pub(super) fn execute(&mut self, statement: TransactionStatement) -> Result<(), CallError> {
        let fail = |error| Err(error_codes::transaction_count(error).into());
        match (statement, self.count) {
            (TransactionStatement::Begin, count) => {
                if self.is_autocommit() {
                    self.begin_now(self.writes)?;
                }
                self.count = count.saturating_add(1);
                Ok(())
            }
            (TransactionStatement::Commit, 0) if self.is_autocommit() => {
                fail(TransactionCountError::NothingToCommit)
            }
            (TransactionStatement::Rollback, 0) if self.is_autocommit() => {
                fail(TransactionCountError::NothingToRollBack)
            }
            // The worker's transaction must not end before the procedure does.
            (TransactionStatement::Commit, 0) => fail(TransactionCountError::Changed),
            (TransactionStatement::Rollback, _) if self.outer != Transaction::None => {
                fail(TransactionCountError::Changed)
            }
            (TransactionStatement::Commit, count) => {
                self.count = count - 1;
                if self.is_autocommit() { self.end("COMMIT") } else { Ok(()) }
            }
            (TransactionStatement::Rollback, _) => {
                self.count = 0;
                self.end("ROLLBACK")
            }
        }
    }

    /// Begins a statement. A statement that writes outside a transaction gets its own transaction.
    pub(super) fn begin_statement(&mut self, writes: bool) -> Result<(), CallError> {
        if writes && self.is_autocommit() {
            self.begin_now(true)?;
        }
        self.has_run = true;
        Ok(())
    }

    /// Ends a statement that succeeded.
    pub(super) fn end_statement(&mut self, writes: bool) -> Result<(), CallError> {
        if writes && self.is_autocommit() { self.end("COMMIT") } else { Ok(()) }
    }

    /// Ends the call.
    pub(super) fn finish(self) -> Result<(), CallError> {
        if self.count > 0 {
            return Err(error_codes::transaction_count(TransactionCountError::Changed).into());
        }
        match self.outer {
            Transaction::None => Ok(()),
            Transaction::Committed => self.end("COMMIT"),
            Transaction::RolledBack => self.end("ROLLBACK"),
        }
    }

    /// Begins a transaction. If no statement has been executed yet, a failure means that the call
    /// has had no effect.
    fn begin_now(&self, writes: bool) -> Result<(), CallError> {
        self.execute_begin(writes).map_err(|error| {
            if self.has_run {
                error_codes::while_beginning(error).into()
            } else {
                error_codes::before_running(error).into()
            }
        })
    }

    fn execute_begin(&self, writes: bool) -> rusqlite::Result<()> {
        let sql = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.connection.prepare_cached(sql)?.raw_execute().map(drop)
    }

    fn end(&self, sql: &str) -> Result<(), CallError> {
        let ended = self.connection.prepare_cached(sql).and_then(|mut end| end.raw_execute());
        ended.map(drop).map_err(|error| error_codes::while_running(error).into())
    }
}
