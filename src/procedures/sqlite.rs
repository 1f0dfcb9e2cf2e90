//! Procedures in `SQLite`: SQL files stand for them. For development, demo and tests; docs/SQLITE.md.

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
use crate::config::procedures::{APPLICATION_NAME, SqliteConfig};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::telemetry::{self, names};

use super::{
    Backend, BackendError, BackendErrorKind, Call, CallError, Described, Found, Need, Outcome,
    RowSink, SentErrorKind,
};

mod describe;
mod errors;
mod procedure;
mod run;
mod script;
mod session;
#[cfg(test)]
mod tests;
mod types;
mod watch;

use procedure::Procedure;
use session::{Place, Session};

/// Longest wait for a new database to be filled, when a queue starts.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a procedure's file is taken for unchanged.
const FILE_TRUSTED: Duration = Duration::from_secs(1);

/// The backend.
#[derive(Debug)]
struct Sqlite {
    database: String,
    procedures: PathBuf,
    pool: Pool<Sessions>,
    loaded: Mutex<HashMap<ProcedureName, Loaded>>,
    /// Calls that write wait here in order: `SQLite`'s own lock is not fair.
    writer: Arc<Semaphore>,
    closing: Cancel,
}

/// A procedure as it was read.
#[derive(Clone, Debug)]
struct Loaded {
    procedure: Arc<Procedure>,
    changed: Option<std::time::SystemTime>,
    checked: Instant,
}

/// Makes the backend. The file is opened, and made if it is new, at the first use: `ping` or `verify`.
///
/// # Errors
/// `BackendError` when the directory of procedures cannot be read.
pub fn connect(config: &SqliteConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let unavailable = |error| BackendError::caused_by(BackendErrorKind::Unavailable, error);
    std::fs::read_dir(&config.procedures).map_err(unavailable)?;
    let sessions = Sessions {
        place: Place { file: config.file.clone(), schema: config.schema.clone() },
        database: name.to_owned(),
    };
    let pool = Pool::builder(sessions)
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
        procedures: config.procedures.clone(),
        pool,
        loaded: Mutex::new(HashMap::new()),
        writer: Arc::new(Semaphore::new(1)),
        closing: Cancel::new(),
    }))
}

/// Opens and checks the pool's connections.
#[derive(Debug)]
struct Sessions {
    place: Place,
    database: String,
}

impl Manager for Sessions {
    type Type = Session;
    type Error = BackendError;

    async fn create(&self) -> Result<Session, BackendError> {
        let place = self.place.clone();
        tokio::task::spawn_blocking(move || session::open(&place))
            .await
            .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?
    }

    /// A call that panicked leaves its transaction open.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<BackendError> {
        if session.is_broken || !session.connection.is_autocommit() {
            self.count_discarded("unclean");
            return Err(RecycleError::message("a transaction is open"));
        }
        Ok(())
    }
}

impl Sessions {
    fn count_discarded(&self, reason: &str) {
        let labels = [(names::DATABASE, self.database.clone()), (names::REASON, reason.to_owned())];
        telemetry::counter(&names::BACKEND_DISCARDED, &labels).increment(1);
    }
}

impl Sqlite {
    /// A connection within the deadline.
    async fn session(
        &self,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Object<Sessions>, BackendError> {
        let started = Instant::now();
        let lent = tokio::select! {
            lent = tokio::time::timeout_at(deadline, self.pool.get()) => lent,
            () = cancel.cancelled() => return Err(BackendErrorKind::Cancelled.into()),
        };
        let database = [(names::DATABASE, self.database.clone())];
        telemetry::histogram(&names::BACKEND_WAIT, &database)
            .record(started.elapsed().as_secs_f64());
        self.count_connections();
        match lent {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(BackendErrorKind::PoolTimedOut.into()),
            Ok(Err(error)) => {
                Err(BackendError::caused_by(BackendErrorKind::Unavailable, error.to_string()))
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of a few connections")]
    fn count_connections(&self) {
        let status = self.pool.status();
        for (state, count) in
            [("idle", status.available), ("used", status.size.saturating_sub(status.available))]
        {
            let labels = [
                (names::DATABASE, self.database.clone()),
                (names::APPLICATION, APPLICATION_NAME.to_owned()),
                (names::STATE, state.into()),
            ];
            telemetry::gauge(&names::BACKEND_CONNECTIONS, &labels).set(count as f64);
        }
    }

    fn known(&self, name: &ProcedureName) -> Option<Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn keep(&self, name: &ProcedureName, loaded: Loaded) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), loaded);
    }

    /// The procedure as its file has it now. A change is seen within a second.
    async fn procedure(
        &self,
        name: &ProcedureName,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Arc<Procedure>, BackendError> {
        let known = self.known(name);
        if let Some(loaded) = &known
            && loaded.checked.elapsed() < FILE_TRUSTED
        {
            return Ok(Arc::clone(&loaded.procedure));
        }
        let path = self.procedures.join(format!("{name}.sql"));
        let changed = tokio::fs::metadata(&path).await.ok().and_then(|file| file.modified().ok());
        let checked = Instant::now();
        if let Some(loaded) = known
            && loaded.changed == changed
        {
            let procedure = Arc::clone(&loaded.procedure);
            self.keep(name, Loaded { checked, ..loaded });
            return Ok(procedure);
        }
        let session = self.session(deadline, cancel).await?;
        let (directory, full) = (self.procedures.clone(), name.to_string());
        let load = move |session: &mut Session| {
            Ok(Arc::new(procedure::load(&session.connection, &directory, &full)?))
        };
        let loading = watch::Watch { deadline, cancel, closing: &self.closing };
        let procedure = loading.run(session, None, load).await.map_err(before_sending)?;
        self.keep(name, Loaded { procedure: Arc::clone(&procedure), changed, checked });
        Ok(procedure)
    }

    async fn run(
        &self,
        call: Call<'_>,
        rows: &mut dyn RowSink,
        cancel: &Cancel,
    ) -> Result<Outcome, CallError> {
        let deadline = call.deadline;
        let name = call.procedure;
        let procedure = self.procedure(name, deadline, cancel).await?;
        procedure.accept(name.as_str(), call.arguments)?;
        let asked = Instant::now();
        let lent = self.lend(procedure.writes, deadline, cancel).await;
        rows.waited(asked.elapsed());
        let (turn, session) = lent?;
        let arguments = call
            .arguments
            .iter()
            .map(|argument| (argument.name.to_string(), types::bound(argument)))
            .collect();
        let (events, received) = tokio::sync::mpsc::channel(watch::EVENTS_MAX);
        let (name, transaction) = (name.to_string(), call.transaction);
        let work = run::Work { name, procedure, arguments, events, transaction };
        let job = move |session: &mut Session| {
            // The turn ends with the job, even when nobody waits for it any more.
            let _turn = turn;
            run::run(session, work)
        };
        watch::Watch { deadline, cancel, closing: &self.closing }
            .run(session, Some(watch::Feed { events: received, rows }), job)
            .await
    }

    /// A connection, after the turn to write when it is needed.
    async fn lend(
        &self,
        writes: bool,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<(Option<tokio::sync::OwnedSemaphorePermit>, Object<Sessions>), BackendError> {
        let turn = if writes { Some(self.turn(deadline, cancel).await?) } else { None };
        Ok((turn, self.session(deadline, cancel).await?))
    }

    /// The turn to write.
    async fn turn(
        &self,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, BackendError> {
        let turn = Arc::clone(&self.writer).acquire_owned();
        tokio::select! {
            turn = tokio::time::timeout_at(deadline, turn) => match turn {
                Ok(Ok(turn)) => Ok(turn),
                Ok(Err(error)) => {
                    Err(BackendError::caused_by(BackendErrorKind::Unavailable, error))
                }
                Err(_) => Err(BackendErrorKind::PoolTimedOut.into()),
            },
            () = cancel.cancelled() => Err(BackendErrorKind::Cancelled.into()),
        }
    }
}

/// The error of a procedure's file that was not loaded: nothing of the call ran, however the loading ended.
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
    ) -> BoxFuture<'a, Result<Outcome, CallError>> {
        Box::pin(self.run(call, rows, cancel))
    }

    fn verify<'a>(&'a self, needs: &'a [Need], found: &'a mut Found<'_>) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let deadline = Instant::now() + START_TIMEOUT;
            for (place, need) in needs.iter().enumerate() {
                let procedure = self.procedure(&need.procedure, deadline, &self.closing).await;
                found(place, procedure.and_then(|procedure| procedure.fits(need)));
            }
        })
    }

    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Described>, BackendError>> {
        Box::pin(self.describe_all(pattern, Instant::now() + START_TIMEOUT))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async {
            // Where calls hold every connection none of them is waited for: the file is open, so it is there.
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

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closing.cancel();
            let pool = self.pool.clone();
            // Closing the last connection writes the log back into the file: not on a runtime thread.
            let closed = tokio::task::spawn_blocking(move || pool.close()).await;
            debug_assert!(closed.is_ok(), "closing a pool does not panic");
        })
    }
}
