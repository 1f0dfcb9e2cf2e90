//! The databases of a worker by name: whether each of them answers, and has what its queues need.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::catalogue::QueueName;
use crate::config::procedures::{DatabaseConfig, MssqlConfig};
use crate::config::worker::QueueConfig;
use crate::config::{ProceduresConfig, WorkerConfig};
use crate::lifecycle::{Cancel, Tasks};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{chain, gauge, names};

use super::{Backend, BackendError, BackendErrorKind, Need, mssql, sqlite};

mod verifier;

pub use verifier::Fitness;
use verifier::{Queues, Verifier};

/// How often a database that answers is asked again.
const ASK_UP: Duration = Duration::from_secs(1);
/// How often one that does not; jittered, so that a fleet does not come back in step.
const ASK_DOWN: Duration = Duration::from_millis(500);
/// Longest wait for its answer, should a backend not keep its own deadline.
const ASK_TIMEOUT: Duration = Duration::from_mins(1);

/// Calls found no way to their database; nothing of them was executed.
const AWAY: Condition = Condition { what: "no connection to the database", is_told: true };
/// Calls found no free connection in time; nothing of them was executed.
const BUSY: Condition = Condition::new("no connection was free in time");

/// What the name of a database gets in metrics and logs where it is only read from.
const READ_ONLY_SUFFIX: &str = ":read-only";

/// One database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Where its procedures run.
    pub backend: Arc<dyn Backend>,
    queues: Arc<Queues>,
}

/// Every database of a worker by its place.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    databases: BTreeMap<Place, Database>,
    closing: Cancel,
}

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
        let mut opened = Self::default();
        let mut errors = Vec::new();
        for (place, config) in places {
            let name = place.to_string();
            match connect(config, &name) {
                Ok(backend) => {
                    let database = Database::new(&name, backend);
                    database.watch(tasks, opened.closing.clone());
                    opened.databases.insert(place.clone(), database);
                }
                Err(error) => errors.push((place.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// The database that a queue's procedures run on.
    #[must_use]
    pub fn get(&self, queue: &QueueConfig) -> Option<&Database> {
        self.databases.get(&Place::of(queue))
    }

    /// Takes the bounds of a reload.
    pub fn resize(&self, places: &BTreeMap<Place, DatabaseConfig>) {
        for (place, database) in &self.databases {
            if let Some(config) = places.get(place) {
                database.backend.resize(config);
            }
        }
    }

    /// Closes all of them.
    pub async fn close(&self) {
        self.closing.cancel();
        for database in self.databases.values() {
            database.backend.close().await;
        }
    }
}

impl Database {
    /// A database that nobody watches yet.
    #[must_use]
    pub fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        Self { name: name.into(), backend, queues: Arc::default() }
    }

    /// Starts to ask whether it is there, and has what its queues need.
    fn watch(&self, tasks: &Tasks, closing: Cancel) {
        let (report, up) = watch::channel(None);
        let (database, backend) = (self.name.to_string(), Arc::clone(&self.backend));
        let queues = Arc::clone(&self.queues);
        let verifier = Verifier { database, backend, up, queues, logged: BTreeSet::new() };
        let _detached = tasks.spawn_background(verifier.run());
        let watch = Watch { database: self.clone(), report };
        let _detached = tasks.spawn_background(async move {
            tokio::select! {
                () = watch.run() => {}
                () = closing.cancelled() => {}
            }
        });
    }

    /// Says from now on whether the database has what a queue needs.
    #[must_use]
    pub fn fitness(&self, queue: &QueueName, needs: Vec<Need>) -> watch::Receiver<Fitness> {
        self.queues.enter(queue.clone(), needs)
    }

    /// A call failed. While the database is away, or has no connection to spare, the first one is logged and those after
    /// it are counted.
    pub fn note_failure(&self, error: &BackendError) {
        let condition = match error.kind {
            BackendErrorKind::Unavailable => &AWAY,
            BackendErrorKind::PoolTimedOut => &BUSY,
            _ => return,
        };
        if conditions::begins(condition, &self.name) {
            let (database, cause) = (&*self.name, chain(error));
            tracing::warn!(database, cause, "calls are refused, nothing of them is executed");
        }
    }
}

/// Asks a database again and again whether it is there.
struct Watch {
    database: Database,
    report: watch::Sender<Option<bool>>,
}

impl Watch {
    async fn run(self) {
        let name = &*self.database.name;
        let figure = gauge(&names::BACKEND_UP, &[(names::DATABASE, name.to_owned())]);
        let mut since = Instant::now();
        loop {
            let answer = timeout(ASK_TIMEOUT, self.database.backend.ping()).await;
            let answer = answer.map_err(|_| "no answer in time".to_owned());
            let answer = answer.and_then(|answer| answer.map_err(|error| chain(&error)));
            let is_up = answer.is_ok();
            figure.set(if is_up { 1.0 } else { 0.0 });
            let before = *self.report.borrow();
            if before != Some(is_up) {
                self.log(before, answer, since.elapsed());
                since = Instant::now();
                self.report.send_replace(Some(is_up));
            } else if is_up {
                conditions::ends_if_quiet(&AWAY, name);
            }
            sleep(jittered(if is_up { ASK_UP } else { ASK_DOWN })).await;
        }
    }

    /// A line when it goes, and one when it is back: how long it was away, and how many calls were refused.
    fn log(&self, before: Option<bool>, answer: Result<(), String>, lasted: Duration) {
        let (database, queues) = (&*self.database.name, self.database.queues.count());
        match answer {
            Err(cause) => {
                tracing::error!(database, queues, cause, "the database does not answer");
            }
            Ok(()) if before.is_none() => tracing::debug!(database, "the database answers"),
            Ok(()) => {
                let calls_refused = conditions::ends(&AWAY, database);
                let seconds = lasted.as_secs_f64();
                tracing::info!(database, queues, seconds, calls_refused, "the database answers");
            }
        }
    }
}

/// Half as long to half as long again, so that a fleet does not ask in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.5))
}
