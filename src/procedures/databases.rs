//! The databases of a worker by name, and whether each of them answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::ProceduresConfig;
use crate::config::procedures::DatabaseConfig;
use crate::lifecycle::Tasks;
use crate::telemetry::{gauge, names};

use super::{Backend, BackendError, mssql, sqlite};

/// How often a database that answers is asked again.
const ASK_UP: Duration = Duration::from_secs(1);
/// How often one that does not; jittered, so that a fleet does not come back in step.
const ASK_DOWN: Duration = Duration::from_millis(500);
/// Longest wait for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The database that a queue uses unless it names another.
pub const DEFAULT: &str = "default";

/// One database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Where its procedures run.
    pub backend: Arc<dyn Backend>,
    /// Whether it answers.
    pub up: watch::Receiver<bool>,
}

/// Every database of a worker.
#[derive(Clone, Debug, Default)]
pub struct Databases(BTreeMap<String, Database>);

impl Databases {
    /// Makes every backend and starts to watch it. Nothing is connected before it is needed.
    ///
    /// # Errors
    /// The database's name, and why its configuration cannot be used.
    pub fn open(
        config: &ProceduresConfig,
        tasks: &Tasks,
    ) -> Result<Self, Vec<(String, BackendError)>> {
        let mut databases = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, database) in &config.databases {
            let backend = match database {
                DatabaseConfig::Sqlite(config) => sqlite::connect(config, name),
                DatabaseConfig::Mssql(config) => mssql::connect(config, name),
            };
            match backend {
                Ok(backend) => {
                    let up = watch_over(name, Arc::clone(&backend), tasks);
                    databases.insert(name.clone(), Database { backend, up });
                }
                Err(error) => errors.push((name.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(Self(databases)) } else { Err(errors) }
    }

    /// The database of this name; the default one when none is named.
    #[must_use]
    pub fn get(&self, name: Option<&str>) -> Option<&Database> {
        self.0.get(name.unwrap_or(DEFAULT))
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
