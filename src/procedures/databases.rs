//! Monitors whether a worker's databases answer, and whether their procedures match the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::catalogue::QueueName;
use crate::config::procedures::{DatabaseConfig, MssqlConfig};
use crate::config::worker::QueueConfig;
use crate::config::{ProceduresConfig, WorkerConfig};
use crate::jitter::jittered;
use crate::lifecycle::{Cancel, Tasks};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{chain, gauge, names};

use super::{Backend, BackendError, BackendErrorKind, ExpectedProcedure, mssql, sqlite};

mod verifier;

pub use verifier::{NOT_QUERIED, Verification};
use verifier::{VerifiedQueues, Verifier};

/// The pause between pings of a database that answers.
const PING_PAUSE_UP: Duration = Duration::from_secs(1);
/// The pause between pings of a database that does not answer.
const PING_PAUSE_DOWN: Duration = Duration::from_millis(500);
/// The time limit for a ping, in case a backend exceeds its own connect timeout.
const PING_TIMEOUT: Duration = Duration::from_mins(1);
/// How much pauses vary, so that workers do not query at the same time.
const JITTER: RangeInclusive<f64> = 0.5..=1.5;

/// Calls are refused because their database cannot be reached.
const UNREACHABLE: Condition =
    Condition { name: "no connection to the database", has_reported_end: true };
/// Calls are refused because no connection becomes free in time.
const BUSY: Condition = Condition::new("no connection was free in time");

/// The suffix of a database's name for its read-only connections, in metrics and logs.
const READ_ONLY_SUFFIX: &str = ":read-only";

/// A database.
#[derive(Clone, Debug)]
pub struct Database {
    /// The name in metrics and logs.
    pub name: Arc<str>,
    /// The backend that calls its procedures.
    pub backend: Arc<dyn Backend>,
    queues: Arc<VerifiedQueues>,
}

/// The databases of a worker.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    databases: BTreeMap<DatabaseKey, Database>,
    closing: Cancel,
}

/// A database and the access mode of its connections. Read-only connections can lead to another
/// server (a replica), so they have their own pools and their own availability.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseKey {
    /// The database's name in the configuration.
    pub database: String,
    /// Whether the connections are read-only.
    pub reads_only: bool,
}

impl DatabaseKey {
    /// Returns the key for the calls from a queue.
    #[must_use]
    pub fn from_queue(queue: &QueueConfig) -> Self {
        Self { database: queue.database().to_owned(), reads_only: queue.reads_only }
    }
}

impl fmt::Display for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.reads_only { READ_ONLY_SUFFIX } else { "" };
        write!(f, "{}{suffix}", self.database)
    }
}

/// Returns the configuration of each database, and a second one with `read_only` set for each SQL
/// Server database with a `reads_only` queue.
#[must_use]
pub fn configs(
    procedures: &ProceduresConfig,
    worker: &WorkerConfig,
) -> BTreeMap<DatabaseKey, DatabaseConfig> {
    let mut configs = BTreeMap::new();
    for (name, config) in &procedures.databases {
        configs.insert(DatabaseKey { database: name.clone(), reads_only: false }, config.clone());
    }
    for queue in worker.queues.values().filter(|queue| queue.reads_only) {
        if let Some(DatabaseConfig::Mssql(config)) = procedures.databases.get(queue.database()) {
            let config = MssqlConfig { read_only: true, ..(**config).clone() };
            configs.insert(DatabaseKey::from_queue(queue), DatabaseConfig::Mssql(Box::new(config)));
        }
    }
    configs
}

/// Creates the backend of a database. Connections are opened on demand.
///
/// # Errors
/// Returns `BackendError` if the configuration cannot be used.
pub fn connect(config: &DatabaseConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    match config {
        DatabaseConfig::Sqlite(config) => sqlite::connect(config, name),
        DatabaseConfig::Mssql(config) => mssql::connect(config, name),
    }
}

impl Databases {
    /// Creates all backends, without connecting to any database.
    ///
    /// # Errors
    /// Returns each database whose configuration cannot be used, with the reason.
    pub fn open(
        configs: &BTreeMap<DatabaseKey, DatabaseConfig>,
    ) -> Result<Self, Vec<(DatabaseKey, BackendError)>> {
        let mut opened = Self::default();
        let mut errors = Vec::new();
        for (key, config) in configs {
            let name = key.to_string();
            match connect(config, &name) {
                Ok(backend) => {
                    opened.databases.insert(key.clone(), Database::new(&name, backend));
                }
                Err(error) => errors.push((key.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// Starts monitoring and verifying each database.
    pub fn monitor(&self, tasks: &Tasks) {
        for database in self.databases.values() {
            database.monitor(tasks, self.closing.clone());
        }
    }

    /// Returns the database of a queue.
    #[must_use]
    pub fn get(&self, queue: &QueueConfig) -> Option<&Database> {
        self.databases.get(&DatabaseKey::from_queue(queue))
    }

    /// Returns all databases.
    pub fn iter(&self) -> impl Iterator<Item = &Database> {
        self.databases.values()
    }

    /// Applies the connection limits and the passwords of a reloaded configuration.
    pub fn reconfigure(&self, configs: &BTreeMap<DatabaseKey, DatabaseConfig>) {
        for (key, database) in &self.databases {
            if let Some(config) = configs.get(key) {
                database.backend.reconfigure(config);
            }
        }
    }

    /// Stops monitoring, and closes all connections.
    pub async fn close(&self) {
        self.closing.cancel();
        for database in self.databases.values() {
            database.backend.close().await;
        }
    }
}

impl Database {
    /// Creates a database that is not monitored yet.
    #[must_use]
    pub fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        Self { name: name.into(), backend, queues: Arc::default() }
    }

    /// Starts the tasks that ping the database and that verify procedures while it answers.
    fn monitor(&self, tasks: &Tasks, closing: Cancel) {
        let (report, is_up) = watch::channel(None);
        let (database, backend) = (self.name.to_string(), Arc::clone(&self.backend));
        let queues = Arc::clone(&self.queues);
        let verifier = Verifier { database, backend, is_up, queues, logged: BTreeSet::new() };
        let _detached = tasks.spawn_background(verifier.run());
        let monitor = AvailabilityMonitor { database: self.clone(), is_up: report };
        let _detached = tasks.spawn_background(async move {
            tokio::select! {
                () = monitor.run() => {}
                () = closing.cancelled() => {}
            }
        });
    }

    /// Starts verifying the procedures of a queue. The receiver holds the latest result, which is
    /// updated until the receiver is dropped.
    #[must_use]
    pub fn verification(
        &self,
        queue: &QueueName,
        expected: Vec<ExpectedProcedure>,
    ) -> watch::Receiver<Verification> {
        self.queues.add(queue.clone(), expected)
    }

    /// Records a failed call. If the database cannot be reached or no connection is free, the first
    /// failure is logged and later ones are counted.
    pub fn record_failure(&self, error: &BackendError) {
        let condition = match error.kind {
            BackendErrorKind::Unavailable => &UNREACHABLE,
            BackendErrorKind::PoolTimedOut => &BUSY,
            _ => return,
        };
        if conditions::raise(condition, &self.name) {
            let (database, cause) = (&*self.name, chain(error));
            tracing::warn!(database, cause, "calls are refused without being executed");
        }
    }
}

/// The task that pings a database periodically.
struct AvailabilityMonitor {
    database: Database,
    /// Whether the database answers; `None` before the first ping.
    is_up: watch::Sender<Option<bool>>,
}

impl AvailabilityMonitor {
    async fn run(self) {
        let name = &*self.database.name;
        let metric = gauge(&names::BACKEND_UP, &[(names::DATABASE, name.to_owned())]);
        let mut since = Instant::now();
        loop {
            let answer = timeout(PING_TIMEOUT, self.database.backend.ping()).await;
            let answer = answer.map_err(|_| "no answer in time".to_owned());
            let answer = answer.and_then(|answer| answer.map_err(|error| chain(&error)));
            let is_up = answer.is_ok();
            metric.set(if is_up { 1.0 } else { 0.0 });
            let was_up = *self.is_up.borrow();
            if was_up != Some(is_up) {
                self.log(was_up, answer, since.elapsed());
                since = Instant::now();
                self.is_up.send_replace(Some(is_up));
            } else if is_up {
                conditions::resolve_if_quiet(&UNREACHABLE, name);
            }
            sleep(jittered(if is_up { PING_PAUSE_UP } else { PING_PAUSE_DOWN }, JITTER)).await;
        }
    }

    /// Logs that the database has stopped answering or answers again, with the length of the outage
    /// and the number of refused calls.
    fn log(&self, was_up: Option<bool>, answer: Result<(), String>, lasted: Duration) {
        let (database, queues) = (&*self.database.name, self.database.queues.count());
        match answer {
            Err(cause) => {
                tracing::error!(database, queues, cause, "the database does not answer");
            }
            Ok(()) if was_up.is_none() => tracing::debug!(database, "the database answers"),
            Ok(()) => {
                let calls_refused = conditions::resolve(&UNREACHABLE, database);
                let seconds = lasted.as_secs_f64();
                tracing::info!(database, queues, seconds, calls_refused, "the database answers");
            }
        }
    }
}
