//! One connection: how it is opened, what `fjord` adds to it, and how a call on it is stopped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, InterruptHandle};

use crate::procedures::{BackendError, BackendErrorKind};

use super::errors;

/// Smallest error number of a procedure's own, as for SQL Server's THROW.
const USER_NUMBER_MIN: i64 = 50_000;
/// Statements that a connection keeps prepared.
const PREPARED_MAX: usize = 256;
/// Longest wait for another process that opens the same file.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a lock that another process holds is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// One connection.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) signal: Arc<Signal>,
    pub(super) interrupt: Arc<InterruptHandle>,
    /// Set when the connection may not be used again.
    pub(super) is_broken: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

/// What passes between a call's thread and those who watch it.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    thrown: Option<(u32, String)>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes ready for the next call.
    pub(super) fn reset(&self) {
        *self.lock() = State::default();
    }

    /// Asks the call to stop.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Whether the call was asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// The error that the procedure raised, once.
    pub(super) fn take_thrown(&self) -> Option<(u32, String)> {
        self.lock().thrown.take()
    }

    /// Waits so long, or until the call is asked to stop; says whether it was.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.is_stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Where the database is and what it starts with.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) schema: Option<PathBuf>,
}

/// Opens a connection. Blocks: for a file that another process prepares, up to 30 s.
pub(super) fn open(place: &Place) -> Result<Session, BackendError> {
    if let Some(directory) = place.file.parent().filter(|path| !path.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    }
    let mut connection = Connection::open(&place.file).map_err(errors::of_starting)?;
    let signal = Arc::new(Signal::default());
    connection.busy_timeout(OPEN_TIMEOUT).map_err(errors::of_starting)?;
    switch_to_wal(&connection, &signal)?;
    connection
        .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
        .map_err(errors::of_starting)?;
    if let Some(schema) = &place.schema {
        fill(&connection, schema)?;
    }
    let waiter = Arc::clone(&signal);
    connection
        .busy_handler(Some(move |_tries| !waiter.wait(LOCK_RETRY)))
        .and_then(|()| add_functions(&connection, &signal))
        .map_err(errors::of_starting)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
    let interrupt = Arc::new(connection.get_interrupt_handle());
    Ok(Session { connection, signal, interrupt, is_broken: false })
}

/// With a write-ahead log readers and the writer do not wait for each other.
///
/// The switch does not use the busy timeout when another process switches at the same time.
fn switch_to_wal(connection: &Connection, signal: &Signal) -> Result<(), BackendError> {
    let until = Instant::now() + OPEN_TIMEOUT;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < until => {
                signal.wait(LOCK_RETRY);
            }
            ended => return ended.map_err(errors::of_starting),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Runs the schema file on a database without any table, in one transaction: of two processes one does it.
fn fill(connection: &Connection, schema: &Path) -> Result<(), BackendError> {
    let is_new = || {
        connection
            .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| {
                row.get::<_, bool>(0)
            })
            .map_err(errors::of_starting)
    };
    if !is_new()? {
        return Ok(());
    }
    let text = std::fs::read_to_string(schema)
        .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(errors::of_starting)?;
    let filled = match is_new() {
        Ok(true) => connection.execute_batch(&text).map_err(errors::of_starting),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let end = if filled.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).map_err(errors::of_starting);
    filled.and(ended)
}

/// What T-SQL has and `SQLite` lacks: see docs/SQLITE.md.
fn add_functions(connection: &Connection, signal: &Arc<Signal>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8;
    let thrower = Arc::clone(signal);
    connection
        .create_scalar_function("throw", 2, flags, move |context| raise(&thrower, context))?;
    let sleeper = Arc::clone(signal);
    connection.create_scalar_function("sleep_ms", 1, flags, move |context| {
        let time: i64 = context.get(0)?;
        if sleeper.wait(Duration::from_millis(u64::try_from(time).unwrap_or_default())) {
            return Err(rusqlite::Error::UserFunctionError("stopped".into()));
        }
        Ok(time)
    })?;
    connection.create_scalar_function("newid", 0, flags, |_| Ok(uuid::Uuid::new_v4().to_string()))
}

fn raise(signal: &Signal, context: &Context<'_>) -> rusqlite::Result<i64> {
    let number: i64 = context.get(0)?;
    let message: String = context.get(1)?;
    match u32::try_from(number) {
        Ok(small) if number >= USER_NUMBER_MIN => {
            let text = format!("error {small}: {message}");
            signal.lock().thrown = Some((small, message));
            Err(rusqlite::Error::UserFunctionError(text.into()))
        }
        _ => Err(rusqlite::Error::UserFunctionError("throw needs a number from 50000".into())),
    }
}
