//! Opens connections, adds T-SQL functions that `SQLite` lacks, and stops calls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, InterruptHandle};

use crate::procedures::{BackendError, BackendErrorKind};

use super::{collation, column_length, error_codes};

/// The lowest error number that a procedure may raise, as for SQL Server's THROW.
const USER_NUMBER_MIN: i64 = 50_000;
/// The number of prepared statements that a connection caches.
const PREPARED_MAX: usize = 256;
/// The maximum wait for a lock that another process holds while a connection is opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between attempts to take a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(5);

pub(super) struct SqliteConnection {
    pub(super) handle: Connection,
    pub(super) control: Arc<CallControl>,
    pub(super) interrupt: Arc<InterruptHandle>,
    /// Whether the connection is unusable and must be closed.
    pub(super) is_broken: bool,
}

impl fmt::Debug for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConnection")
            .field("is_broken", &self.is_broken)
            .finish_non_exhaustive()
    }
}

/// The state that the thread of a call shares with its supervisor.
#[derive(Debug, Default)]
pub(super) struct CallControl {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    thrown: Option<(u32, String)>,
    is_truncated: bool,
}

impl CallControl {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the state for the next call.
    pub(super) fn reset(&self) {
        *self.lock() = State::default();
    }

    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Returns the error that the procedure raised, and removes it.
    pub(super) fn take_thrown(&self) -> Option<(u32, String)> {
        self.lock().thrown.take()
    }

    /// Records that text does not fit its column.
    fn note_truncation(&self) {
        self.lock().is_truncated = true;
    }

    /// Returns whether the call failed because text does not fit its column.
    pub(super) fn is_truncated(&self) -> bool {
        self.lock().is_truncated
    }

    /// Blocks until `time` has passed or the call is stopped. Returns whether it was stopped.
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

/// The file of a database, and the schema for a new database.
#[derive(Clone, Debug)]
pub(super) struct DatabaseFile {
    pub(super) path: PathBuf,
    pub(super) schema: Option<PathBuf>,
}

/// Opens a connection. Blocks the thread for up to 30 s for each lock that another process holds.
pub(super) fn open(file: &DatabaseFile) -> Result<SqliteConnection, BackendError> {
    if let Some(directory) = file.path.parent().filter(|path| !path.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    }
    let mut connection = Connection::open(&file.path).map_err(error_codes::before_running)?;
    let control = Arc::new(CallControl::default());
    connection.busy_timeout(OPEN_TIMEOUT).map_err(error_codes::before_running)?;
    switch_to_wal(&connection, &control)?;
    connection
        .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
        .map_err(error_codes::before_running)?;
    // The schema can use the collation.
    collation::add(&connection).map_err(error_codes::before_running)?;
    if let Some(schema) = &file.schema {
        create_schema(&connection, schema)?;
    }
    let (waiter, checked) = (Arc::clone(&control), Arc::clone(&control));
    connection
        .busy_handler(Some(move |_tries| !waiter.wait(LOCK_RETRY)))
        .and_then(|()| add_functions(&connection, &control))
        .and_then(|()| column_length::check(&connection, move || checked.note_truncation()))
        .map_err(error_codes::before_running)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
    let interrupt = Arc::new(connection.get_interrupt_handle());
    Ok(SqliteConnection { handle: connection, control, interrupt, is_broken: false })
}

/// Switches to a write-ahead log, so that readers and the writer do not wait for each other.
///
/// Retries on its own, because `SQLite` ignores the busy timeout if two processes switch concurrently.
fn switch_to_wal(connection: &Connection, control: &CallControl) -> Result<(), BackendError> {
    let until = Instant::now() + OPEN_TIMEOUT;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < until => {
                control.wait(LOCK_RETRY);
            }
            result => return result.map_err(error_codes::before_running),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Executes the schema file in one transaction if the database is empty. If several processes do
/// this at the same time, only one executes the file.
fn create_schema(connection: &Connection, schema: &Path) -> Result<(), BackendError> {
    let is_new = || {
        connection
            .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| {
                row.get::<_, bool>(0)
            })
            .map_err(error_codes::before_running)
    };
    if !is_new()? {
        return Ok(());
    }
    let text = std::fs::read_to_string(schema)
        .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(error_codes::before_running)?;
    let created = match is_new() {
        Ok(true) => connection.execute_batch(&text).map_err(error_codes::before_running),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let end = if created.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).map_err(error_codes::before_running);
    created.and(ended)
}

/// Adds T-SQL functions that `SQLite` lacks (see docs/SQLITE.md).
fn add_functions(connection: &Connection, control: &Arc<CallControl>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8;
    let thrower = Arc::clone(control);
    connection
        .create_scalar_function("throw", 2, flags, move |context| raise(&thrower, context))?;
    let sleeper = Arc::clone(control);
    connection.create_scalar_function("sleep_ms", 1, flags, move |context| {
        let time: i64 = context.get(0)?;
        if sleeper.wait(Duration::from_millis(u64::try_from(time).unwrap_or_default())) {
            return Err(rusqlite::Error::UserFunctionError("stopped".into()));
        }
        Ok(time)
    })?;
    connection.create_scalar_function("newid", 0, flags, |_| Ok(uuid::Uuid::new_v4().to_string()))
}

fn raise(control: &CallControl, context: &Context<'_>) -> rusqlite::Result<i64> {
    let number: i64 = context.get(0)?;
    let message: String = context.get(1)?;
    match u32::try_from(number) {
        Ok(small) if number >= USER_NUMBER_MIN => {
            let text = format!("error {small}: {message}");
            control.lock().thrown = Some((small, message));
            Err(rusqlite::Error::UserFunctionError(text.into()))
        }
        _ => Err(rusqlite::Error::UserFunctionError(
            "the error number of throw must be at least 50000".into(),
        )),
    }
}
