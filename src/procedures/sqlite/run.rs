//! A call on its own thread: the statements of a procedure in one transaction.

use std::sync::Arc;

use rusqlite::types::Value as SqlValue;
use rusqlite::{CachedStatement, Connection, Rows};
use tokio::sync::mpsc::Sender;

use crate::procedures::{
    BackendError, CallError, Outcome, OwnedCell, SentError, SentErrorKind, Transaction,
};

use super::errors;
use super::procedure::{self, Procedure, Statement};
use super::session::{Session, Signal};
use super::types::{self, Hint};

/// Rows that travel together to the answer.
const BATCH_ROWS: usize = 128;
/// Text and bytes that travel together.
const BATCH_BYTES: usize = 64 << 10;

/// What a call's thread hands to the answer.
#[derive(Debug)]
pub(super) enum Event {
    /// A result set starts.
    Set(Vec<String>),
    /// Rows of it, cell after cell.
    Rows {
        /// The cells.
        cells: Vec<OwnedCell>,
        /// Cells of a row.
        width: usize,
    },
}

/// What a call's thread needs.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) name: String,
    pub(super) procedure: Arc<Procedure>,
    pub(super) arguments: Vec<(String, SqlValue)>,
    pub(super) events: Sender<Event>,
    /// Every call is one transaction: all that this says is whether it is rolled back at its end.
    pub(super) transaction: Transaction,
}

/// Runs the procedure and commits, or leaves no trace. Blocks.
pub(super) fn run(session: &mut Session, work: Work) -> Result<Outcome, CallError> {
    let ended = transact(&session.connection, &session.signal, work);
    let is_rolled_back =
        session.connection.is_autocommit() || session.connection.execute_batch("ROLLBACK").is_ok();
    session.is_broken |= !is_rolled_back;
    ended.map_err(|error| match error {
        CallError::NotSent(error) => error.into(),
        CallError::Sent(error) => {
            let is_lost = error.kind == SentErrorKind::Lost;
            session.is_broken |= is_lost;
            let kind = match session.signal.take_thrown() {
                Some((number, message)) => SentErrorKind::User { number, message },
                None => error.kind,
            };
            let is_rolled_back = is_rolled_back && !is_lost;
            SentError { kind, is_rolled_back, ..error }.into()
        }
    })
}

fn transact(connection: &Connection, signal: &Signal, work: Work) -> Result<Outcome, CallError> {
    let mut prepared = Vec::with_capacity(work.procedure.statements.len());
    for statement in &work.procedure.statements {
        let ready = connection
            .prepare_cached(&statement.sql)
            .map_err(|error| errors::of_preparing(&work.name, error))?;
        prepared.push((statement, ready));
    }
    // A lone read is a transaction by itself.
    let is_lone_read = prepared.len() == 1 && !work.procedure.writes;
    if !is_lone_read {
        begin(connection, work.procedure.writes)?;
    }
    let mut call = Running {
        signal,
        events: work.events,
        variables: work.arguments,
        outcome: Outcome::default(),
    };
    for (statement, ready) in &mut prepared {
        call.stop_when_asked()?;
        if call.step(statement, ready)? {
            break;
        }
    }
    drop(prepared);
    call.stop_when_asked()?;
    if !is_lone_read {
        let end = if work.transaction == Transaction::RolledBack { "ROLLBACK" } else { "COMMIT" };
        connection.execute_batch(end).map_err(errors::of_running)?;
    }
    Ok(call.outcome)
}

/// A transaction that will write takes the lock first: to take it later could fail halfway.
fn begin(connection: &Connection, writes: bool) -> Result<(), BackendError> {
    let sql = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.raw_execute())
        .map(drop)
        .map_err(errors::of_starting)
}

struct Running<'a> {
    signal: &'a Signal,
    events: Sender<Event>,
    variables: Vec<(String, SqlValue)>,
    outcome: Outcome,
}

impl Running<'_> {
    /// An interrupt between two statements is forgotten by `SQLite`: the signal is not.
    fn stop_when_asked(&self) -> Result<(), SentError> {
        if self.signal.is_stopped() {
            return Err(SentError::new(SentErrorKind::Cancelled));
        }
        Ok(())
    }

    /// Runs one statement; `true` when it ends the procedure.
    fn step(
        &mut self,
        statement: &Statement,
        ready: &mut CachedStatement<'_>,
    ) -> Result<bool, SentError> {
        for (index, name) in (1..).zip(&statement.parameters) {
            let value = self.variables.iter().find(|(variable, _)| variable == name);
            ready
                .raw_bind_parameter(index, value.map(|(_, value)| value))
                .map_err(errors::of_running)?;
        }
        let columns: Vec<(String, Hint)> = ready
            .columns()
            .map(|column| types::column(column.name(), column.decl_type()))
            .collect();
        if columns.is_empty() {
            ready.raw_execute().map_err(errors::of_running)?;
            return Ok(false);
        }
        let rows = ready.raw_query();
        if statement.assigns {
            return self.assign(&columns, rows);
        }
        self.send(&columns, rows)?;
        Ok(false)
    }

    /// Sets variables from the rows; the last one holds. `true` when the RETURN status is set.
    fn assign(
        &mut self,
        columns: &[(String, Hint)],
        mut rows: Rows<'_>,
    ) -> Result<bool, SentError> {
        let mut returns = false;
        while let Some(row) = rows.next().map_err(errors::of_running)? {
            for (index, (column, hint)) in columns.iter().enumerate() {
                let Some(name) = procedure::variable(column) else { continue };
                let value = row.get_ref(index).map_err(errors::of_running)?;
                let cell =
                    types::cell(value, *hint).map_err(|error| undecodable(column, &error))?;
                if name == procedure::RETURN {
                    self.outcome.return_status = status(&cell)?;
                    returns = true;
                    continue;
                }
                set(&mut self.variables, name, types::owned(value));
                set(&mut self.outcome.outputs, name, cell);
            }
        }
        Ok(returns)
    }

    /// Sends the rows off as they come, a batch at a time; waits while the answer is not ready for more.
    fn send(&mut self, columns: &[(String, Hint)], mut rows: Rows<'_>) -> Result<(), SentError> {
        let names = columns.iter().map(|(name, _)| name.clone()).collect();
        self.give(Event::Set(names))?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(errors::of_running)? {
            for (index, (column, hint)) in columns.iter().enumerate() {
                let value = row.get_ref(index).map_err(errors::of_running)?;
                let cell =
                    types::cell(value, *hint).map_err(|error| undecodable(column, &error))?;
                bytes += size(&cell);
                batch.push(cell);
            }
            if batch.len() >= BATCH_ROWS * columns.len() || bytes >= BATCH_BYTES {
                bytes = 0;
                let cells = std::mem::take(&mut batch);
                self.give(Event::Rows { cells, width: columns.len() })?;
                self.stop_when_asked()?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.give(Event::Rows { cells: batch, width: columns.len() })
    }

    fn give(&self, event: Event) -> Result<(), SentError> {
        // Nobody listens any more: the call was given up.
        self.events.blocking_send(event).map_err(|_| SentError::new(SentErrorKind::Cancelled))
    }
}

fn undecodable(column: &str, error: &str) -> SentError {
    SentError::new(SentErrorKind::Undecodable(format!("column {column}: {error}")))
}

fn status(cell: &OwnedCell) -> Result<i32, SentError> {
    match cell {
        OwnedCell::Int(number) => i32::try_from(*number)
            .map_err(|_| undecodable("@return", "a RETURN status has 32 bits")),
        _ => Err(undecodable("@return", "a RETURN status is an integer")),
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
        OwnedCell::Number(text) | OwnedCell::Text(text) => text.len(),
        OwnedCell::Binary(bytes) => bytes.len(),
        OwnedCell::Null | OwnedCell::Bool(_) | OwnedCell::Int(_) | OwnedCell::Float(_) => 0,
    }
}
