//! The databases of a worker by name, and whether each of them answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::procedures::{DatabaseConfig, MssqlConfig};
use crate::config::worker::QueueConfig;
use crate::config::{ProceduresConfig, WorkerConfig};
use crate::lifecycle::Tasks;
use crate::telemetry::{gauge, names};

use super::{Backend, BackendError, mssql, sqlite};

/// How often a database that answers is asked again.
const ASK_UP: Duration = Duration::from_secs(1);
/// How often one that does not; jittered, so that a fleet does not come back in step.
const ASK_DOWN: Duration = Duration::from_millis(500);
/// Longest wait for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the name of a database gets in metrics and logs where it is only read from.
const READ_ONLY_SUFFIX: &str = ":read-only";

/// One database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Where its procedures run.
    pub backend: Arc<dyn Backend>,
    /// Whether it answers.
    pub up: watch::Receiver<bool>,
}

/// Every database of a worker by its place.
#[derive(Clone, Debug, Default)]
pub struct Databases(BTreeMap<Place, Database>);

/// Where a queue's procedures run: a database, and whether they may run on a replica that is only read. The two kinds
/// of sessions may end at different servers, so each has connections of its own, and its own word on whether it is up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The database's name in the configuration.
    pub database: String,
    /// Whether the sessions only read.
    pub reads_only: bool,
}

impl Place {
    /// Where the procedures of a queue run.
    #[must_use]
    pub fn of(queue: &QueueConfig) -> Self {
        Self { database: queue.database().to_owned(), reads_only: queue.reads_only }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.reads_only { READ_ONLY_SUFFIX } else { "" };
        write!(f, "{}{suffix}", self.database)
    }
}

/// Every place that there is: each database, and again for the queues that only read from it.
#[must_use]
pub fn places(
    procedures: &ProceduresConfig,
    worker: &WorkerConfig,
) -> BTreeMap<Place, DatabaseConfig> {
    let mut places = BTreeMap::new();
    for (name, config) in &procedures.databases {
        places.insert(Place { database: name.clone(), reads_only: false }, config.clone());
    }
    for queue in worker.queues.values().filter(|queue| queue.reads_only) {
        if let Some(DatabaseConfig::Mssql(config)) = procedures.databases.get(queue.database()) {
            let config = MssqlConfig { read_only: true, ..config.clone() };
            places.insert(Place::of(queue), DatabaseConfig::Mssql(config));
        }
    }
    places
}

/// Opens the backend of a place. No connection is made before it is needed.
///
/// # Errors
/// Why the configuration cannot be used.
pub fn connect(config: &DatabaseConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    match config {
        DatabaseConfig::Sqlite(config) => sqlite::connect(config, name),
        DatabaseConfig::Mssql(config) => mssql::connect(config, name),
    }
}

impl Databases {
    /// Makes every backend and starts to watch it. Nothing is connected before it is needed.
    ///
    /// # Errors
    /// The place, and why its configuration cannot be used.
    pub fn open(
        places: &BTreeMap<Place, DatabaseConfig>,
        tasks: &Tasks,
    ) -> Result<Self, Vec<(Place, BackendError)>> {
        let mut databases = BTreeMap::new();
        let mut errors = Vec::new();
        for (place, config) in places {
            let name = place.to_string();
            match connect(config, &name) {
                Ok(backend) => {
                    let up = watch_over(&name, Arc::clone(&backend), tasks);
                    databases.insert(place.clone(), Database { backend, up });
                }
                Err(error) => errors.push((place.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(Self(databases)) } else { Err(errors) }
    }

    /// The database that a queue's procedures run on.
    #[must_use]
    pub fn get(&self, queue: &QueueConfig) -> Option<&Database> {
        self.0.get(&Place::of(queue))
    }

    /// Closes all of them.
    pub async fn close(&self) {
        for database in self.0.values() {
            database.backend.close().await;
        }
    }
}

fn watch_over(name: &str, backend: Arc<dyn Backend>, tasks: &Tasks) -> watch::Receiver<bool> {
    let (report, up) = watch::channel(true);
    let figure = gauge(&names::BACKEND_UP, &[(names::DATABASE, name.to_owned())]);
    let name = name.to_owned();
    let _detached = tasks.spawn_background(async move {
        loop {
            let answer = timeout(ASK_TIMEOUT, backend.ping()).await;
            let is_up = matches!(answer, Ok(Ok(())));
            figure.set(if is_up { 1.0 } else { 0.0 });
            let changed = report.send_if_modified(|up| std::mem::replace(up, is_up) != is_up);
            match (changed, answer) {
                (true, Ok(Ok(()))) => tracing::info!(database = name, "the database answers"),
                (true, Ok(Err(error))) => {
                    let cause = error.source.as_ref().map(tracing::field::display);
                    tracing::error!(database = name, %error, cause, "the database does not answer");
                }
                (true, Err(_)) => {
                    tracing::error!(database = name, "the database does not answer in time");
                }
                (false, _) => {}
            }
            if report.is_closed() {
                return;
            }
            let pause = if is_up { ASK_UP } else { ASK_DOWN };
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.5));
            sleep(jittered).await;
        }
    });
    up
}
