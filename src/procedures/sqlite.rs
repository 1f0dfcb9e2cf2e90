//! The `SQLite` backend for development, demos and tests. Its procedures are SQL files (see
//! docs/SQLITE.md).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{Manager, PoolError, TimeoutType, Timeouts};
use deadpool::managed::{
    Metrics, Object, Pool, PoolConfig, QueueMode, RecycleError, RecycleResult,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::catalogue::ProcedureName;
use crate::config::procedures::{DatabaseConfig, SqliteConfig};
use crate::file_version::FileVersion;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::telemetry::{self, names};

use super::{
    Backend, BackendError, BackendErrorKind, Call, CallError, ExpectedProcedure,
    ProcedureDescription, ProcedureResult, ResultDescription, RowSink, SentErrorKind,
    VerifyCallback,
};

mod collation;
mod column_length;
mod connection;
mod connection_gauges;
mod copy;
mod decimal;
mod declaration;
mod describe;
mod describe_result;
mod error_codes;
mod execute;
mod lexer;
mod procedure;
mod script;
mod supervisor;
#[cfg(test)]
mod tests;
mod transaction;
mod types;

pub use copy::copy;

use connection::{DatabaseFile, SqliteConnection};
use connection_gauges::ConnectionGauges;
use procedure::SqliteProcedure;
use supervisor::{JobSupervisor, RowFeed};

/// The time limit for reading all procedures to verify or describe, including creating the schema.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// The time for which a procedure's file is assumed to be unchanged after a check.
const FILE_TRUSTED: Duration = Duration::from_secs(1);

/// A database in a `SQLite` file.
#[derive(Debug)]
struct Sqlite {
    database: String,
    directory: PathBuf,
    pool: Pool<ConnectionManager>,
    procedure_cache: Mutex<HashMap<ProcedureName, CachedProcedure>>,
    /// The permit that calls take before they write, in order of arrival. It is needed because
    /// `SQLite`'s own lock is unfair.
    write_permit: Arc<Semaphore>,
    connections: ConnectionGauges,
    closing: Cancel,
}

/// A procedure, with its file's version and the time of the last check.
#[derive(Clone, Debug)]
struct CachedProcedure {
    procedure: Arc<SqliteProcedure>,
    version: Option<FileVersion>,
    checked: Instant,
}

/// Creates the backend. The database file is opened on first use, and created if it does not exist.
///
/// # Errors
/// Returns `BackendError` if the directory of procedures cannot be read.
pub fn connect(config: &SqliteConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let unavailable = |error| BackendError::caused_by(BackendErrorKind::Unavailable, error);
    std::fs::read_dir(&config.procedures).map_err(unavailable)?;
    let manager = ConnectionManager {
        file: DatabaseFile { path: config.file.clone(), schema: config.schema.clone() },
        database: name.to_owned(),
    };
    let pool = Pool::builder(manager)
        .config(PoolConfig {
            max_size: config.connections_max.max(1),
            timeouts: Timeouts::default(),
            queue_mode: QueueMode::Lifo,
        })
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    Ok(Arc::new(Sqlite {
        database: name.to_owned(),
        directory: config.procedures.clone(),
        pool,
        procedure_cache: Mutex::new(HashMap::new()),
        write_permit: Arc::new(Semaphore::new(1)),
        connections: ConnectionGauges::default(),
        closing: Cancel::new(),
    }))
}

/// Opens and checks the connections of the pool.
#[derive(Debug)]
struct ConnectionManager {
    file: DatabaseFile,
    database: String,
}

impl Manager for ConnectionManager {
    type Type = SqliteConnection;
    type Error = BackendError;

    async fn create(&self) -> Result<SqliteConnection, BackendError> {
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || connection::open(&file))
            .await
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?
    }

    /// Rejects a broken connection, or a connection on which a panic left a transaction open.
    async fn recycle(
        &self,
        connection: &mut SqliteConnection,
        _: &Metrics,
    ) -> RecycleResult<BackendError> {
        let (reason, message) = if connection.is_broken {
            ("broken", "the connection is broken")
        } else if !connection.handle.is_autocommit() {
            ("unclean", "a transaction is open")
        } else {
            return Ok(());
        };
        self.count_discarded(reason);
        Err(RecycleError::message(message))
    }
}

impl ConnectionManager {
    fn count_discarded(&self, reason: &str) {
        let labels = [(names::DATABASE, self.database.clone()), (names::REASON, reason.to_owned())];
        telemetry::counter(&names::BACKEND_DISCARDED, &labels).increment(1);
    }
}

impl Sqlite {
    /// Takes a connection from the pool before the deadline.
    async fn connection(
        &self,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Object<ConnectionManager>, BackendError> {
        let started = Instant::now();
        let taken = tokio::select! {
            taken = tokio::time::timeout_at(deadline, self.pool.get()) => taken,
            () = cancel.cancelled() => return Err(BackendErrorKind::Cancelled.into()),
        };
        let database = [(names::DATABASE, self.database.clone())];
        telemetry::histogram(&names::BACKEND_WAIT, &database)
            .record(started.elapsed().as_secs_f64());
        self.record_connections();
        match taken {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(BackendErrorKind::PoolTimedOut.into()),
            Ok(Err(error)) => {
                Err(BackendError::caused_by(BackendErrorKind::Unavailable, error.to_string()))
            }
        }
    }

    fn record_connections(&self) {
        let status = self.pool.status();
        let used = status.size.saturating_sub(status.available);
        self.connections.record(&self.database, status.available, used);
    }

    fn cached(&self, name: &ProcedureName) -> Option<CachedProcedure> {
        self.procedure_cache.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn cache(&self, name: &ProcedureName, loaded: CachedProcedure) {
        self.procedure_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), loaded);
    }

    /// Returns a procedure. A change to its file is noticed within `FILE_TRUSTED`.
    async fn procedure(
        &self,
        name: &ProcedureName,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Arc<SqliteProcedure>, BackendError> {
        let cached = self.cached(name);
        if let Some(loaded) = &cached
            && loaded.checked.elapsed() < FILE_TRUSTED
        {
            return Ok(Arc::clone(&loaded.procedure));
        }
        let path = self.directory.join(procedure::file_of(name.as_str()));
        let version = tokio::fs::metadata(&path).await.ok();
        let version = version.as_ref().map(FileVersion::from_metadata);
        let checked = Instant::now();
        if let Some(loaded) = cached
            && loaded.version == version
        {
            let procedure = Arc::clone(&loaded.procedure);
            self.cache(name, CachedProcedure { checked, ..loaded });
            return Ok(procedure);
        }
        let connection = self.connection(deadline, cancel).await?;
        let (directory, full) = (self.directory.clone(), name.to_string());
        let load = move |connection: &mut SqliteConnection| {
            Ok(Arc::new(procedure::load(&connection.handle, &directory, &full)?))
        };
        let supervisor = JobSupervisor { deadline, cancel, closing: &self.closing };
        let procedure = supervisor.run(connection, None, load).await.map_err(before_sending)?;
        self.cache(name, CachedProcedure { procedure: Arc::clone(&procedure), version, checked });
        Ok(procedure)
    }

    async fn run(
        &self,
        call: Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<ProcedureResult, CallError> {
        let deadline = call.deadline;
        let name = call.procedure;
        let procedure = self.procedure(name, deadline, cancel).await?;
        procedure.check_arguments(name.as_str(), call.arguments)?;
        let started = Instant::now();
        let acquired = self.acquire(procedure.writes, deadline, cancel).await;
        rows.add_connection_wait(started.elapsed());
        let (permit, connection) = acquired?;
        let arguments = procedure.bind(call.arguments);
        let (events, received) = tokio::sync::mpsc::channel(supervisor::EVENTS_MAX);
        let (name, transaction) = (name.to_string(), call.transaction);
        let task = execute::CallTask { name, procedure, arguments, events, transaction };
        let job = move |connection: &mut SqliteConnection| {
            // The permit is held until the job ends, even if the job's result is no longer awaited.
            let _permit = permit;
            execute::execute(connection, task)
        };
        JobSupervisor { deadline, cancel, closing: &self.closing }
            .run(connection, Some(RowFeed { events: received, rows }), job)
            .await
    }

    /// Takes the write permit if the call writes, and then a connection.
    async fn acquire(
        &self,
        writes: bool,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<(Option<tokio::sync::OwnedSemaphorePermit>, Object<ConnectionManager>), BackendError>
    {
        let permit = if writes { Some(self.write_permit(deadline, cancel).await?) } else { None };
        Ok((permit, self.connection(deadline, cancel).await?))
    }

    async fn write_permit(
        &self,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, BackendError> {
        let permit = Arc::clone(&self.write_permit).acquire_owned();
        tokio::select! {
            permit = tokio::time::timeout_at(deadline, permit) => match permit {
                Ok(Ok(permit)) => Ok(permit),
                Ok(Err(error)) => {
                    Err(BackendError::caused_by(BackendErrorKind::Unavailable, error))
                }
                Err(_) => Err(BackendErrorKind::PoolTimedOut.into()),
            },
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
        }
    }
}

/// Converts an error from loading a procedure. No part of the call was executed.
fn before_sending(error: CallError) -> BackendError {
    match error {
        CallError::NotSent(error) => error,
        CallError::Sent(error) => {
            let kind = match error.kind {
                SentErrorKind::TimedOut => BackendErrorKind::TimedOut,
                SentErrorKind::Cancelled => BackendErrorKind::Cancelled,
                _ => BackendErrorKind::Unavailable,
            };
            BackendError { kind, source: error.source }
        }
    }
}

impl Backend for Sqlite {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    fn call<'a>(
        &'a self,
        call: Call<'a>,
        rows: &'a mut dyn RowSink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<ProcedureResult, CallError>> {
        Box::pin(self.run(call, rows, cancel))
    }

    fn verify<'a>(
        &'a self,
        expected: &'a [ExpectedProcedure],
        report: &'a mut VerifyCallback<'_>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let deadline = Instant::now() + START_TIMEOUT;
            for (index, one) in expected.iter().enumerate() {
                let procedure = self.procedure(&one.procedure, deadline, &self.closing).await;
                report(index, procedure.and_then(|procedure| procedure.compare(one)));
            }
        })
    }

    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ProcedureDescription>, BackendError>> {
        Box::pin(self.describe_all(pattern, Instant::now() + START_TIMEOUT))
    }

    fn describe_result<'a>(
        &'a self,
        procedure: &'a ProcedureName,
    ) -> BoxFuture<'a, Result<ResultDescription, BackendError>> {
        Box::pin(self.describe_answer(procedure, Instant::now() + START_TIMEOUT))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async {
            // If every connection is in use, the file is known to be open, so the ping need not
            // wait for a connection.
            let free = Timeouts { wait: Some(Duration::ZERO), ..Timeouts::default() };
            match self.pool.timeout_get(&free).await {
                Ok(_) | Err(PoolError::Timeout(TimeoutType::Wait)) => Ok(()),
                Err(PoolError::Backend(error)) => Err(error),
                Err(error) => {
                    let cause = error.to_string();
                    Err(BackendError::caused_by(BackendErrorKind::Unavailable, cause))
                }
            }
        })
    }

    fn reconfigure(&self, _: &DatabaseConfig) {
        // The files of the procedures may have changed a moment ago.
        self.procedure_cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn retire(&self) {
        self.connections.retire();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closing.cancel();
            let pool = self.pool.clone();
            // Closing the last connection blocks, because it writes the write-ahead log back to the
            // file.
            let closed = tokio::task::spawn_blocking(move || pool.close()).await;
            debug_assert!(closed.is_ok(), "closing a pool does not panic");
        })
    }
}
