//! Executes the statements of a procedure on a blocking thread.

use std::sync::Arc;

use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{CachedStatement, Connection, Rows};
use tokio::sync::mpsc::Sender;

use crate::procedures::{
    CallError, OwnedCell, ProcedureResult, SentError, SentErrorKind, Transaction,
};

use super::connection::{CallControl, SqliteConnection};
use super::error_codes;
use super::procedure::{self, ProcedureStep, SqliteProcedure, SqliteStatement};
use super::script::TransactionStatement;
use super::transaction::CallTransactions;
use super::types::{self, ColumnHint};

/// The maximum number of rows per batch.
const BATCH_ROWS: usize = 128;
/// The number of bytes of text and binary data at which a batch is sent.
const BATCH_BYTES: usize = 64 << 10;

/// An event that a call's thread sends to its supervisor.
#[derive(Debug)]
pub(super) enum RowEvent {
    /// The start of a result set, with its columns.
    Set(Vec<String>),
    /// Rows of the result set.
    Rows {
        /// The cells of all rows, row by row.
        cells: Vec<OwnedCell>,
        /// The number of cells in a row.
        width: usize,
    },
}

/// The input of a call's thread.
#[derive(Debug)]
pub(super) struct CallTask {
    pub(super) name: String,
    pub(super) procedure: Arc<SqliteProcedure>,
    pub(super) arguments: Vec<(String, SqlValue)>,
    pub(super) events: Sender<RowEvent>,
    /// The transaction in which the call runs. Without one, each statement is committed separately.
    pub(super) transaction: Transaction,
}

/// Executes the procedure. If it fails, rolls back its uncommitted changes. Blocks the thread.
pub(super) fn execute(
    connection: &mut SqliteConnection,
    task: CallTask,
) -> Result<ProcedureResult, CallError> {
    let is_whole = task.transaction != Transaction::None;
    let result = transact(&connection.handle, &connection.control, task);
    let is_rolled_back =
        connection.handle.is_autocommit() || connection.handle.execute_batch("ROLLBACK").is_ok();
    connection.is_broken |= !is_rolled_back;
    result.map_err(|error| match error {
        CallError::NotSent(error) => error.into(),
        CallError::Sent(error) => {
            let is_lost = error.kind == SentErrorKind::Lost;
            connection.is_broken |= is_lost;
            let kind = match connection.control.take_thrown() {
                Some((number, message)) => SentErrorKind::User { number, message },
                None if connection.control.is_truncated() => error_codes::truncated(),
                None => error.kind,
            };
            let is_rolled_back = is_whole && is_rolled_back && !is_lost;
            SentError { kind, is_rolled_back, ..error }.into()
        }
    })
}

fn transact(
    connection: &Connection,
    control: &CallControl,
    task: CallTask,
) -> Result<ProcedureResult, CallError> {
    let mut prepared = Vec::with_capacity(task.procedure.steps.len());
    for step in &task.procedure.steps {
        prepared.push(match step {
            ProcedureStep::Statement(statement) => {
                let ready = connection
                    .prepare_cached(&statement.sql)
                    .map_err(|error| error_codes::while_preparing(&task.name, error))?;
                PreparedStep::Statement(statement, ready)
            }
            ProcedureStep::Transaction(statement) => PreparedStep::Transaction(*statement),
        });
    }
    let mut transactions =
        CallTransactions::begin(connection, task.transaction, task.procedure.writes)?;
    let mut call = RunningCall {
        control,
        events: task.events,
        variables: task.arguments,
        result: ProcedureResult::default(),
    };
    for step in &mut prepared {
        call.check_stopped()?;
        match step {
            PreparedStep::Transaction(statement) => transactions.execute(*statement)?,
            PreparedStep::Statement(statement, ready) => {
                transactions.begin_statement(statement.writes)?;
                let ends = call.execute(statement, ready)?;
                transactions.end_statement(statement.writes)?;
                if ends {
                    break;
                }
            }
        }
    }
    drop(prepared);
    if task.transaction != Transaction::None {
        call.check_stopped()?;
    }
    call.complete_outputs(&task.procedure)?;
    transactions.finish()?;
    Ok(call.result)
}

/// A step with its prepared statement.
enum PreparedStep<'a, 'c> {
    Statement(&'a SqliteStatement, CachedStatement<'c>),
    Transaction(TransactionStatement),
}

struct RunningCall<'a> {
    control: &'a CallControl,
    events: Sender<RowEvent>,
    variables: Vec<(String, SqlValue)>,
    result: ProcedureResult,
}

impl RunningCall<'_> {
    /// Fails if the call was stopped. `SQLite` itself ignores an interrupt between statements.
    fn check_stopped(&self) -> Result<(), SentError> {
        if self.control.is_stopped() {
            return Err(SentError::new(SentErrorKind::Cancelled));
        }
        Ok(())
    }

    /// Executes a statement. Returns `true` if it ends the procedure.
    fn execute(
        &mut self,
        statement: &SqliteStatement,
        ready: &mut CachedStatement<'_>,
    ) -> Result<bool, SentError> {
        for (index, name) in (1..).zip(&statement.parameters) {
            let value = self.variables.iter().find(|(variable, _)| variable == name);
            ready
                .raw_bind_parameter(index, value.map(|(_, value)| value))
                .map_err(error_codes::while_running)?;
        }
        let columns: Vec<(String, ColumnHint)> = ready
            .columns()
            .map(|column| types::column(column.name(), column.decl_type()))
            .collect();
        if columns.is_empty() {
            ready.raw_execute().map_err(error_codes::while_running)?;
            return Ok(false);
        }
        let rows = ready.raw_query();
        if statement.assigns {
            return self.assign(&columns, rows);
        }
        self.send_rows(&columns, rows)?;
        Ok(false)
    }

    /// Sets variables from the rows. The last row wins. Returns whether the RETURN status was set.
    fn assign(
        &mut self,
        columns: &[(String, ColumnHint)],
        mut rows: Rows<'_>,
    ) -> Result<bool, SentError> {
        let mut returns = false;
        while let Some(row) = rows.next().map_err(error_codes::while_running)? {
            for (index, (column, hint)) in columns.iter().enumerate() {
                let Some(name) = procedure::variable(column) else { continue };
                let value = row.get_ref(index).map_err(error_codes::while_running)?;
                let cell =
                    types::cell(value, *hint).map_err(|error| undecodable(column, &error))?;
                if name == procedure::RETURN {
                    self.result.return_status = return_status(&cell)?;
                    returns = true;
                    continue;
                }
                set(&mut self.variables, name, types::owned(value));
                set(&mut self.result.outputs, name, cell);
            }
        }
        Ok(returns)
    }

    /// Adds the declared OUTPUT parameters that no statement has set. Their values are those of the
    /// arguments, or NULL if there is no argument.
    fn complete_outputs(&mut self, procedure: &SqliteProcedure) -> Result<(), SentError> {
        for name in procedure.declared_outputs() {
            if self.result.outputs.iter().any(|(known, _)| known == name) {
                continue;
            }
            let value = self.variables.iter().find(|(known, _)| known == name);
            let value = value.map_or(ValueRef::Null, |(_, value)| value.into());
            let cell = types::cell(value, ColumnHint::Stored);
            let cell = cell.map_err(|error| undecodable(name, &error))?;
            self.result.outputs.push((name.to_owned(), cell));
        }
        Ok(())
    }

    /// Sends the rows in batches. Blocks while the channel is full.
    fn send_rows(
        &mut self,
        columns: &[(String, ColumnHint)],
        mut rows: Rows<'_>,
    ) -> Result<(), SentError> {
        let names = columns.iter().map(|(name, _)| name.clone()).collect();
        self.send(RowEvent::Set(names))?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(error_codes::while_running)? {
            for (index, (column, hint)) in columns.iter().enumerate() {
                let value = row.get_ref(index).map_err(error_codes::while_running)?;
                let cell =
                    types::cell(value, *hint).map_err(|error| undecodable(column, &error))?;
                bytes += size(&cell);
                batch.push(cell);
            }
            if batch.len() >= BATCH_ROWS * columns.len() || bytes >= BATCH_BYTES {
                bytes = 0;
                let cells = std::mem::take(&mut batch);
                self.send(RowEvent::Rows { cells, width: columns.len() })?;
                self.check_stopped()?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.send(RowEvent::Rows { cells: batch, width: columns.len() })
    }

    fn send(&self, event: RowEvent) -> Result<(), SentError> {
        // Sending fails if the receiver was dropped because the call was abandoned.
        self.events.blocking_send(event).map_err(|_| SentError::new(SentErrorKind::Cancelled))
    }
}

fn undecodable(column: &str, error: &str) -> SentError {
    SentError::new(SentErrorKind::Undecodable(format!("column {column}: {error}")))
}

fn return_status(cell: &OwnedCell) -> Result<i32, SentError> {
    match cell {
        OwnedCell::Int(number) => i32::try_from(*number)
            .map_err(|_| undecodable("@return", "a RETURN status must have 32 bits")),
        _ => Err(undecodable("@return", "a RETURN status must be an integer")),
    }
}

fn set<T>(entries: &mut Vec<(String, T)>, name: &str, value: T) {
    match entries.iter_mut().find(|(known, _)| known == name) {
        Some(entry) => entry.1 = value,
        None => entries.push((name.to_owned(), value)),
    }
}

fn size(cell: &OwnedCell) -> usize {
    match cell {
        OwnedCell::Number(text) | OwnedCell::Json(text) | OwnedCell::Text(text) => text.len(),
        OwnedCell::Binary(bytes) => bytes.len(),
        OwnedCell::Null | OwnedCell::Bool(_) | OwnedCell::Int(_) | OwnedCell::Float(_) => 0,
    }
}
