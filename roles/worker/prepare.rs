//! Performs the first step of a start: reads every file that the configuration names, and creates
//! the handlers of all queues. `fjord check` performs only this step.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalogue::{self, Catalogue, CatalogueError, Endpoint, QueueName};
use crate::cli::Role;
use crate::config::worker::QueueConfig;
use crate::config::{Config, LoadedConfig};
use crate::free_memory;
use crate::message::Subject;
use crate::procedures::databases::{DatabaseKey, Databases};
use crate::procedures::{BackendError, pool_sizes};
use crate::roles;
use crate::roles::worker::execution::handler::{HandlerContext, HandlerError};
use crate::roles::worker::execution::handlers;
use crate::roles::worker::intake::version::{ServedEndpoint, ServedEndpoints, by_id};
use crate::roles::worker::subjects::QueueSubjects;
use crate::start_check::{self, StartError};
use crate::telemetry::chain;
use crate::telemetry::traces::PreparedTraces;

/// The parts of a worker that depend on files.
#[derive(Debug)]
pub struct PreparedWorker {
    /// The endpoints.
    pub catalogue: Arc<Catalogue>,
    /// The databases. They are not connected and not monitored yet.
    pub databases: Databases,
    /// The queues that the catalogue defines and the configuration selects.
    pub queues: Vec<PreparedQueue>,
    /// The export of traces.
    pub traces: PreparedTraces,
}

/// A queue whose handlers have been created.
#[derive(Debug)]
pub struct PreparedQueue {
    /// The subjects of the queue.
    pub subjects: QueueSubjects,
    /// The settings of the queue.
    pub config: QueueConfig,
    /// The endpoints that the queue serves.
    pub endpoints: ServedEndpoints,
}

/// Reads every file that a worker needs. Binds no address and connects to nothing.
///
/// # Errors
/// All errors found.
pub fn prepare(loaded: &LoadedConfig) -> Result<PreparedWorker, Vec<StartError>> {
    let (databases, prefix) = (&Databases::default(), &loaded.config.messaging.prefix);
    prepare_reload(loaded, &RunningParts { databases, prefix, first_index: 0 })
}

/// The parts of a running worker on which a reload depends.
#[derive(Clone, Copy, Debug)]
pub struct RunningParts<'a> {
    /// The databases. If a database's connections would be the same in the new configuration, it is shared
    /// with that configuration.
    pub databases: &'a Databases,
    /// The prefix of all subjects, which a reload does not change.
    pub prefix: &'a Subject,
    /// The index of the first new queue.
    pub first_index: usize,
}

/// Reads the files again for a worker that is running, to prepare a reload.
///
/// # Errors
/// All errors found.
pub fn prepare_reload(
    loaded: &LoadedConfig,
    running: &RunningParts<'_>,
) -> Result<PreparedWorker, Vec<StartError>> {
    let config = &loaded.config;
    let mut errors = start_check::client_file_errors(config);
    let catalogue = free_memory::run_in_own_thread(|| {
        let mut catalogue =
            catalogue::load(&config.catalogue.directory, &config.catalogue.defaults)?;
        catalogue.remove_examples();
        Ok::<_, Vec<CatalogueError>>(catalogue)
    });
    let catalogue = match catalogue {
        Ok(catalogue) => Arc::new(catalogue),
        Err(found) => {
            errors.extend(found.into_iter().map(StartError::from));
            Arc::default()
        }
    };
    let has_catalogue = errors.iter().all(|error| !matches!(error, StartError::Catalogue(_)));
    let databases = open_databases(config, &catalogue, running.databases);
    let databases = databases.map_err(|found| errors.extend(found));
    let (true, Ok(databases)) = (has_catalogue, databases) else { return Err(errors) };
    match queues(config, &catalogue, &databases, running) {
        Ok(queues) if errors.is_empty() => {
            let traces = roles::prepare_traces(config, Role::Worker)?;
            Ok(PreparedWorker { catalogue, databases, queues, traces })
        }
        Ok(_) => Err(errors),
        Err(found) => {
            errors.extend(found);
            Err(errors)
        }
    }
}

/// Creates the backends of all databases. If a database's connections would be the same as in `running`, it
/// is shared with `running`.
pub(super) fn open_databases(
    config: &Config,
    catalogue: &Catalogue,
    running: &Databases,
) -> Result<Databases, Vec<StartError>> {
    let databases = running.reopen(&pool_sizes::database_configs(config, catalogue));
    databases.map_err(|found| {
        found.iter().flat_map(|(key, error)| database_errors(key, error)).collect()
    })
}

fn database_errors(key: &DatabaseKey, error: &BackendError) -> Vec<StartError> {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    if let Some(files) = cause {
        return StartError::from_tls(files);
    }
    let database = &key.database;
    vec![StartError::at_key(format!("procedures.databases.{database}"), chain(error))]
}

/// Creates the queues that the configuration selects, with the handlers of their endpoints.
pub(super) fn queues(
    config: &Config,
    catalogue: &Catalogue,
    databases: &Databases,
    running: &RunningParts<'_>,
) -> Result<Vec<PreparedQueue>, Vec<StartError>> {
    let mut by_queue: BTreeMap<&QueueName, Vec<Arc<Endpoint>>> = BTreeMap::new();
    for endpoint in catalogue.endpoints() {
        for queue in endpoint.queues.iter() {
            by_queue.entry(&queue.name).or_default().push(endpoint.for_queue(queue));
        }
    }
    let worker_id = uuid::Uuid::new_v4().simple().to_string();
    let mut queues = Vec::new();
    let mut errors = Vec::new();
    for (name, endpoints) in by_queue {
        let Some(limits) = config.worker.queue(name) else { continue };
        let index = running.first_index + queues.len();
        let subjects =
            QueueSubjects::new(running.prefix, name.clone(), index, &worker_id).map_err(|error| {
                let expected = format!("queue {name}: {error}");
                errors.push(StartError::at_key("messaging.prefix", expected));
            });
        let before = errors.len();
        let endpoints = served_endpoints(config, limits, catalogue, endpoints, databases);
        let endpoints: Vec<_> =
            endpoints.filter_map(|e| e.map_err(|e| errors.push(e)).ok()).collect();
        if let (Ok(subjects), true) = (subjects, errors.len() == before) {
            let endpoints = by_id(endpoints);
            queues.push(PreparedQueue { subjects, config: limits.clone(), endpoints });
        }
    }
    if queues.is_empty() && errors.is_empty() {
        let expected = "expected at least one queue from the catalogue".to_owned();
        errors.push(StartError::at_key("worker.queues", expected));
    }
    if errors.is_empty() { Ok(queues) } else { Err(errors) }
}

fn served_endpoints<'a>(
    config: &Config,
    limits: &QueueConfig,
    catalogue: &'a Catalogue,
    endpoints: Vec<Arc<Endpoint>>,
    databases: &Databases,
) -> impl Iterator<Item = Result<ServedEndpoint, StartError>> + use<'a> {
    let database = databases.get(limits).cloned();
    let context = HandlerContext { database, answer_bytes_max: config.worker.answer_bytes_max };
    endpoints.into_iter().map(move |endpoint| match handlers::create(&endpoint.handler, &context) {
        Ok(handler) => Ok(ServedEndpoint::new(endpoint, handler)),
        Err(error) => {
            let key = if error == HandlerError::NeedsDatabase { "procedure" } else { "handler" };
            Err(catalogue.error(&endpoint.id, key, error.to_string()).into())
        }
    })
}
