//! Monitors whether a worker's databases answer, and whether their procedures match the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::catalogue::QueueName;
use crate::config::procedures::{DatabaseConfig, MssqlConfig};
use crate::config::worker::QueueConfig;
use crate::config::{ProceduresConfig, WorkerConfig};
use crate::lifecycle::{Cancel, Tasks};
use crate::telemetry::conditions::{self, ConditionKind};
use crate::telemetry::{self, chain, names};

use super::{Backend, BackendError, BackendErrorKind, ExpectedProcedure, mssql, sqlite};

mod availability;
mod verifier;

use availability::AvailabilityMonitor;
pub use verifier::{NOT_QUERIED, Verification};
use verifier::{VerifiedQueues, Verifier};

/// The range of the factor by which pauses vary, so that workers do not query at the same time.
const JITTER: RangeInclusive<f64> = 0.5..=1.5;

/// The condition in which calls are refused because their database cannot be reached.
const UNREACHABLE: ConditionKind =
    ConditionKind { name: "no connection to the database", is_ended_by_caller: true };
/// The condition in which calls are refused because no connection becomes free in time.
const BUSY: ConditionKind = ConditionKind::new("no connection was free in time");

/// The suffix of a database's name for its read-only connections, in metrics and logs.
const READ_ONLY_SUFFIX: &str = ":read-only";

/// A database. Its connections are closed when the last clone is dropped, so calls that have started can still use a
/// database that a reload has replaced.
#[derive(Clone, Debug)]
pub struct Database {
    /// The name in metrics and logs.
    pub name: Arc<str>,
    /// The backend that calls its procedures.
    pub backend: Arc<dyn Backend>,
    queues: Arc<VerifiedQueues>,
    lifetime: Arc<DatabaseLifetime>,
}

/// Signals that a database has been replaced, or that no call can use it any more.
#[derive(Debug, Default)]
struct DatabaseLifetime {
    /// Set when a reload has replaced or removed the database.
    is_replaced: Cancel,
    /// Set when no call can use the database any more.
    is_unused: Cancel,
}

impl Drop for DatabaseLifetime {
    fn drop(&mut self) {
        self.is_unused.cancel();
    }
}

/// The databases of a worker.
#[derive(Debug, Default)]
pub struct Databases {
    databases: BTreeMap<DatabaseKey, (DatabaseConfig, Database)>,
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
    /// Returns the key of the database for a queue's calls.
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

/// Returns the configuration of each database. For each SQL Server database with a `reads_only` queue, also returns a
/// second configuration with `read_only` set.
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
        Self::default().reopen(configs)
    }

    /// Creates the databases of a reloaded configuration, without connecting to any of them. A database whose
    /// connections would not change is shared with `self`. `self` itself is not changed.
    ///
    /// # Errors
    /// Returns each database whose configuration cannot be used, with the reason.
    pub fn reopen(
        &self,
        configs: &BTreeMap<DatabaseKey, DatabaseConfig>,
    ) -> Result<Self, Vec<(DatabaseKey, BackendError)>> {
        let mut opened = Self { closing: self.closing.clone(), ..Self::default() };
        let mut errors = Vec::new();
        for (key, config) in configs {
            let name = key.to_string();
            let kept = self.databases.get(key).filter(|(old, _)| !old.differs(config));
            let database = match kept {
                Some((_, database)) => Ok(database.clone()),
                None => connect(config, &name).map(|backend| Database::new(&name, backend)),
            };
            match database {
                Ok(database) => {
                    opened.databases.insert(key.clone(), (config.clone(), database));
                }
                Err(error) => errors.push((key.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// Starts monitoring and verifying each database.
    pub fn monitor(&self, tasks: &Tasks) {
        for (_, database) in self.databases.values() {
            database.monitor(tasks, self.closing.clone());
        }
    }

    /// Switches to `new`, the databases of a reloaded configuration that `reopen` has created. Starts monitoring the
    /// databases that are new, and applies the new connection limits and passwords to the others. A replaced database
    /// is closed when its last call has ended.
    pub fn replace(&mut self, new: Self, tasks: &Tasks) {
        for (key, (config, database)) in &new.databases {
            match self.databases.get(key) {
                Some((_, old)) if old.is_same(database) => database.backend.reconfigure(config),
                old => {
                    if let Some((_, old)) = old {
                        let database = &*old.name;
                        tracing::info!(
                            database,
                            "the settings of the database have changed: new calls use new connections"
                        );
                    }
                    database.monitor(tasks, self.closing.clone());
                }
            }
        }
        for (key, (_, old)) in &self.databases {
            match new.databases.get(key) {
                Some((_, database)) if old.is_same(database) => {}
                Some(_) => old.retire(),
                None => {
                    old.retire();
                    let label = (names::DATABASE, old.name.to_string());
                    telemetry::remove(&[names::BACKEND_UP, names::BACKEND_CONNECTIONS], &label);
                }
            }
        }
        self.databases = new.databases;
    }

    /// Compares the expected procedures with those in the databases once. Returns each difference with the name of its
    /// queue, or the reason why the queue's procedures could not be compared by the deadline. The databases need not be
    /// monitored.
    pub async fn verify_once(
        &self,
        expected: &BTreeMap<DatabaseKey, Vec<ExpectedProcedure>>,
        deadline: Instant,
    ) -> BTreeSet<(String, String)> {
        let checks = expected.iter().map(|(key, one)| self.verify_one(key, one, deadline));
        let results = join_all(checks).await;
        let all = expected.values().flatten().zip(results.into_iter().flatten());
        let problem = |(procedure, result): (&ExpectedProcedure, Result<(), String>)| {
            Some((procedure.queue.to_string(), result.err()?))
        };
        all.filter_map(problem).collect()
    }

    async fn verify_one(
        &self,
        key: &DatabaseKey,
        expected: &[ExpectedProcedure],
        deadline: Instant,
    ) -> Vec<Result<(), String>> {
        let late = Err("its procedures could not be checked in time".to_owned());
        let mut results = vec![late; expected.len()];
        let mut report = |index: usize, result: Result<(), BackendError>| {
            if let Some(entry) = results.get_mut(index) {
                *entry = result.map_err(|error| chain(&error));
            }
        };
        if let Some((_, database)) = self.databases.get(key) {
            let verification = database.backend.verify(expected, &mut report);
            let _in_time = timeout_at(deadline, verification).await;
        }
        results
    }

    /// Returns all databases.
    pub fn iter(&self) -> impl Iterator<Item = &Database> {
        self.databases.values().map(|(_, database)| database)
    }

    /// Returns the database of a queue.
    #[must_use]
    pub fn get(&self, queue: &QueueConfig) -> Option<&Database> {
        self.databases.get(&DatabaseKey::from_queue(queue)).map(|(_, database)| database)
    }

    /// Stops monitoring, and closes all connections.
    pub async fn close(&self) {
        self.closing.cancel();
        for (_, database) in self.databases.values() {
            database.backend.close().await;
        }
    }
}

impl Database {
    /// Creates a database that is not monitored yet.
    #[must_use]
    pub fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        let (queues, lifetime) = (Arc::default(), Arc::default());
        Self { name: name.into(), backend, queues, lifetime }
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lifetime, &other.lifetime)
    }

    /// Stops recording gauges, because the series now belong to the database's replacement.
    fn retire(&self) {
        self.lifetime.is_replaced.cancel();
        self.backend.retire();
    }

    /// Starts the tasks that ping the database, and that verify procedures while the database answers.
    fn monitor(&self, tasks: &Tasks, closing: Cancel) {
        let (report, is_up) = watch::channel(None);
        let (database, backend) = (self.name.to_string(), Arc::clone(&self.backend));
        let queues = Arc::clone(&self.queues);
        let verifier = Verifier { database, backend, is_up, queues, logged: BTreeSet::new() };
        let _detached = tasks.spawn_background(verifier.run());
        // The monitor must not keep the database in use, so it has no clone of `self`.
        let monitor = AvailabilityMonitor {
            name: Arc::clone(&self.name),
            backend: Arc::clone(&self.backend),
            queues: Arc::clone(&self.queues),
            is_replaced: self.lifetime.is_replaced.clone(),
            is_up: report,
        };
        let is_unused = self.lifetime.is_unused.clone();
        let backend = Arc::clone(&self.backend);
        let _detached = tasks.spawn_background(async move {
            tokio::select! {
                () = monitor.run() => {}
                () = closing.cancelled() => {}
                () = is_unused.cancelled() => backend.close().await,
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

    /// Records a failed call. If the database cannot be reached or no connection is free, the first failure is logged
    /// and later failures are counted.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::ProcedureName;
    use crate::config::procedures::{APPLICATION_NAME, SqliteConfig};
    use crate::telemetry::gauge;
    use crate::telemetry::snapshot;

    #[tokio::test]
    async fn a_replaced_or_removed_database_no_longer_records_its_connections() {
        let directory = tempfile::tempdir().unwrap();
        let config = |file: &str| {
            DatabaseConfig::Sqlite(SqliteConfig {
                file: directory.path().join(file),
                schema: None,
                procedures: directory.path().to_owned(),
                connections_max: 1,
            })
        };
        let key = |name: &str| DatabaseKey { database: name.to_owned(), reads_only: false };
        let names = ["gauge-replaced", "gauge-removed"];
        let both = names.map(|name| (key(name), config("first")));
        let tasks = Tasks::new();
        let mut databases = Databases::open(&BTreeMap::from(both)).unwrap();
        let old: Vec<Database> = databases.iter().cloned().collect();
        let procedure = ProcedureName::new("main.p").unwrap();
        let use_old = async || {
            for database in &old {
                // This call takes a connection, although there is no such procedure.
                database.backend.describe_result(&procedure).await.unwrap();
            }
        };
        let recorded = || {
            let sums = snapshot::sums(&names::BACKEND_CONNECTIONS, names::DATABASE);
            names.map(|name| sums.get(name).copied())
        };
        use_old().await;
        assert_eq!(recorded(), [Some(1.0), Some(1.0)]);
        let replacement = BTreeMap::from([(key(names[0]), config("second"))]);
        let replacement = databases.reopen(&replacement).unwrap();
        databases.closing.cancel();
        databases.replace(replacement, &tasks);
        // The replacement records to the same series. If these values changed, the old database would have changed
        // them.
        let state = |state: &str| {
            let application = (names::APPLICATION, APPLICATION_NAME.to_owned());
            let database = (names::DATABASE, names[0].to_owned());
            let labels = [database, application, (names::STATE, state.to_owned())];
            gauge(&names::BACKEND_CONNECTIONS, &labels)
        };
        state("idle").set(40.0);
        state("used").set(2.0);
        use_old().await;
        assert_eq!(recorded(), [Some(42.0), None], "and the removed series does not come back");
    }
}
