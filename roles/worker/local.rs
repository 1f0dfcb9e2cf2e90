//! Executes requests for `fjord test` without NATS. It uses the handlers and databases of a worker, but not its slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::catalogue::{Catalogue, Endpoint, EndpointId, QueueName};
use crate::config::Config;
use crate::envelope::{Final, Request};
use crate::lifecycle::Cancel;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::procedures::databases::Databases;
use crate::roles::worker::execution::handler::{Job, JobProgress};
use crate::roles::worker::execution::job_result::JobResult;
use crate::roles::worker::intake::version::ServedEndpoint;
use crate::roles::worker::prepare;
use crate::roles::worker::prepare::RunningParts;
use crate::start_check::StartError;
use crate::telemetry::chain;

/// The longest wait for a database, including the creation of an embedded one.
const PING_LIMIT: Duration = Duration::from_mins(3);

/// The endpoints that a worker's configuration serves.
#[derive(Debug)]
pub struct LocalWorker {
    databases: Databases,
    served: HashMap<(EndpointId, QueueName), ServedEndpoint>,
}

impl LocalWorker {
    /// Creates the handlers. Connects to no database yet.
    ///
    /// # Errors
    /// All errors that would prevent a worker from starting, apart from errors in connecting to
    /// NATS.
    pub fn open(config: &Config, catalogue: &Catalogue) -> Result<Self, Vec<StartError>> {
        let (none, prefix) = (&Databases::default(), &config.messaging.prefix);
        let databases = prepare::open_databases(config, catalogue, none)?;
        let running = RunningParts { databases: none, prefix, first_index: 0 };
        let queues = prepare::queues(config, catalogue, &databases, &running)?;
        let served = queues.into_iter().flat_map(|queue| {
            let name = queue.subjects.name;
            queue.endpoints.into_iter().map(move |(id, served)| ((id, name.clone()), served))
        });
        Ok(Self { databases, served: served.collect() })
    }

    /// Returns whether a queue of an endpoint is served.
    #[must_use]
    pub fn serves(&self, endpoint: &Endpoint) -> bool {
        self.served(endpoint).is_some()
    }

    /// Returns an endpoint as served by the first of its queues that the configuration selects.
    fn served(&self, endpoint: &Endpoint) -> Option<&ServedEndpoint> {
        let mut queues = endpoint.queues.iter();
        queues.find_map(|queue| self.served.get(&(endpoint.id.clone(), queue.name.clone())))
    }

    /// Returns the errors of the databases that do not answer.
    pub async fn ping(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for database in self.databases.iter() {
            let error = match timeout(PING_LIMIT, database.backend.ping()).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {PING_LIMIT:?}"),
            };
            errors.push(format!("database {}: {error}", database.name));
        }
        errors
    }

    /// Executes a request, and returns the answer that a worker would send.
    pub async fn execute(&self, endpoint: Arc<Endpoint>, request: Request) -> Final {
        let request_id = Arc::clone(&request.request_id);
        let deadline = Instant::now() + request.timeout;
        let progress = Arc::new(JobProgress::default());
        let result = match self.served(&endpoint) {
            Some(served) => {
                let endpoint = Arc::clone(&served.endpoint);
                let job = Job { endpoint, request, progress: Arc::clone(&progress) };
                served.handler.handle(job, deadline, &Cancel::new()).await
            }
            None => JobResult::NotExecuted {
                problem: Problem::new(ProblemKind::NoWorkers),
                outcome: Outcome::BackendDown,
            },
        };
        let answer = result.into_final(&request_id);
        Final { is_rolled_back: progress.is_rolled_back(), ..answer }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.databases.close().await;
    }
}
