//! Creates the queues of a worker from its configuration and the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Endpoint, QueueName};
use crate::config::Config;
use crate::config::worker::QueueConfig;
use crate::procedures::databases::Databases;
use crate::roles::RunError;
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::execution::handler::HandlerContext;
use crate::roles::worker::execution::handlers;
use crate::roles::worker::intake::queue::{Queue, ServedEndpoint};
use crate::roles::worker::intake::slots::Slots;
use crate::roles::worker::subjects::QueueSubjects;

/// Creates the queues that the catalogue defines and the configuration selects.
///
/// # Errors
/// `RunError::Config` with every error, or if no queue is selected; `RunError::System` if a subject
/// is invalid.
pub(super) fn create(
    config: &Config,
    catalogue: &Catalogue,
    databases: &Databases,
    executor: &Arc<Executor>,
) -> Result<Vec<Arc<Queue>>, RunError> {
    let mut by_queue: BTreeMap<&QueueName, Vec<&Arc<Endpoint>>> = BTreeMap::new();
    for endpoint in catalogue.endpoints() {
        by_queue.entry(&endpoint.queue).or_default().push(endpoint);
    }
    let worker_id = uuid::Uuid::new_v4().simple().to_string();
    let prefix = &config.messaging.prefix;
    let mut queues = Vec::new();
    let mut errors = Vec::new();
    for (name, endpoints) in by_queue {
        let Some(limits) = config.worker.queue(name) else { continue };
        match served_endpoints(config, limits, &endpoints, databases) {
            Ok(endpoints) => {
                let subjects = QueueSubjects::new(prefix, name.clone(), queues.len(), &worker_id)
                    .map_err(|error| RunError::system(format!("queue {name}"), error))?;
                let worker = &config.worker;
                let slots =
                    Slots::new(limits.concurrency, worker.refused_max, worker.offer_timeout);
                let queue = Queue::new(subjects, endpoints, slots, Arc::clone(executor));
                queues.push(Arc::new(queue));
            }
            Err(error) => errors.push(format!("queue {name}: {error}")),
        }
    }
    if queues.is_empty() && errors.is_empty() {
        errors.push("worker.queues: expected at least one queue of the catalogue".to_owned());
    }
    if errors.is_empty() { Ok(queues) } else { Err(RunError::Config(errors)) }
}

fn served_endpoints(
    config: &Config,
    limits: &QueueConfig,
    endpoints: &[&Arc<Endpoint>],
    databases: &Databases,
) -> Result<Vec<ServedEndpoint>, String> {
    let database = databases.get(limits);
    if let (None, Some(name)) = (database, &limits.database) {
        return Err(format!("database: [procedures.databases.{name}] does not exist"));
    }
    let answer_bytes_max = config.worker.answer_bytes_max;
    let context = HandlerContext { database: database.cloned(), answer_bytes_max };
    let served = |endpoint: &&Arc<Endpoint>| {
        let handler =
            handlers::create(&endpoint.handler, &context).map_err(|error| error.to_string())?;
        Ok(ServedEndpoint::new(Arc::clone(endpoint), handler))
    };
    endpoints.iter().map(served).collect()
}
