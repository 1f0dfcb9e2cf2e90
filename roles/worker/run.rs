//! The worker as a process: starts its queues, reloads, drains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{self, Admin, Readiness};
use crate::catalogue::{self, Catalogue, Endpoint, QueueName};
use crate::cli::Role;
use crate::config::messaging::TransportConfig;
use crate::config::worker::QueueConfig;
use crate::config::{Config, Sources};
use crate::fleet;
use crate::lifecycle::{Cancel, Signal, Signals, Tasks, systemd};
use crate::messaging::{self, Transport};
use crate::procedures::databases::{Databases, Fitness, Place as DatabasePlace};
use crate::procedures::{Need, connections};
use crate::roles::RunError;
use crate::telemetry::{counter, names};

use super::intake::round_trip;
use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::execution::handlers::{self, Tools};
use crate::roles::worker::execution::recent_replies::Recent;
use crate::roles::worker::execution::resend::{self, Pace, Resend};
use crate::roles::worker::execution::running_jobs::Jobs;
use crate::roles::worker::intake::control::{self, QueueTable};
use crate::roles::worker::intake::membership::Intake;
use crate::roles::worker::intake::queue::{Place, Queue, Service};
use crate::roles::worker::intake::slots::Slots;
use crate::roles::worker::observation::readiness::Health;
use crate::roles::worker::observation::report;

/// How long tasks that were cut off may take to end.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A worker that serves.
struct Worker {
    config: Config,
    transport: Arc<dyn Transport>,
    databases: Databases,
    dispatch: Arc<Dispatch>,
    queues: QueueTable,
    health: Arc<Health>,
    readiness: Readiness,
    tasks: Tasks,
    admin_tasks: Tasks,
    /// Given when queues are to be left.
    leave: Cancel,
    stop: Cancel,
}

/// Runs a worker until a signal ends it.
///
/// # Errors
/// `RunError` when it cannot start: nothing was executed then.
pub async fn run(config: Config, sources: Sources) -> Result<(), RunError> {
    let mut signals =
        Signals::listen().map_err(|error| RunError::system("cannot listen for signals", error))?;
    let mut worker = Worker::start(config).await?;
    systemd::feed_watchdog(&worker.tasks);
    let mut is_told = false;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    systemd::reloading();
                    worker.reload(&sources);
                    systemd::ready("serving");
                }
                Signal::Stop => break,
            },
            () = worker.health.first_served(), if !is_told => {
                is_told = true;
                systemd::ready("serving");
            }
        }
    }
    worker.drain().await;
    Ok(())
}

impl Worker {
    async fn start(config: Config) -> Result<Self, RunError> {
        let catalogue = load_catalogue(&config).map_err(RunError::Config)?;
        let (tasks, admin_tasks) = (Tasks::new(), Tasks::new());
        let (leave, stop) = (Cancel::new(), Cancel::new());
        tell_of_connections(&config, &catalogue);
        let places = connections::places(&config, &catalogue);
        let databases = Databases::open(&places, &tasks).map_err(|errors| {
            let line = |(place, error): &(DatabasePlace, _)| format!("database {place}: {error}");
            RunError::Config(errors.iter().map(line).collect())
        })?;
        let admin = Admin::bind(&config.admin);
        let admin = admin.map_err(|error| RunError::system(error.to_string(), error))?;
        let readiness = Readiness::new();
        let health = Arc::new(Health::new(readiness.clone()));
        let transport = connect(&config).await?;
        readiness.follow(transport.link(), &tasks);
        let (resend, asked) = Resend::new();
        let dispatch = Arc::new(dispatch(&config, &transport, resend, &tasks));
        let queues: QueueTable =
            Arc::new(ArcSwap::from_pointee(queues(&config, &catalogue, &databases, &dispatch)?));
        round_trip::follow(&transport, &queues, &config.worker, &tasks);
        let _detached =
            tasks.spawn_background(resend::run(Arc::clone(&dispatch), Arc::clone(&queues), asked));
        resend::follow_link(&dispatch, &queues);
        tracing::info!(part = "admin", address = %admin.address(), "listening");
        let status = status(&queues);
        admin.serve(
            admin::Health { readiness: readiness.clone(), status },
            &admin_tasks,
            stop.clone(),
        );
        let worker = Self {
            config,
            transport,
            databases,
            dispatch,
            queues,
            health,
            readiness,
            tasks,
            admin_tasks,
            leave,
            stop,
        };
        worker.tell().await?;
        worker.serve().await?;
        Ok(worker)
    }

    /// Tells the fleet about this worker from here on.
    async fn tell(&self) -> Result<(), RunError> {
        let source = report::source(&self.queues, &self.readiness);
        fleet::tell(&self.config.messaging, Role::Worker, source, &self.transport, &self.tasks)
            .await
            .map_err(|error| RunError::system("cannot subscribe to what the fleet asks", error))
    }

    /// Joins every queue.
    async fn serve(&self) -> Result<(), RunError> {
        let queues = self.queues.load();
        // All are entered before the first is waited for: a database is asked for what all of them need at once.
        let fitness: Vec<_> = queues.iter().map(|queue| self.fitness(queue)).collect();
        for (queue, fitness) in queues.iter().zip(fitness) {
            control::listen(&self.transport, queue, &self.dispatch)
                .await
                .map_err(|error| RunError::system("cannot subscribe to its own subjects", error))?;
            let intake = Intake {
                queue: Arc::clone(queue),
                transport: Arc::clone(&self.transport),
                fitness,
                config: self.config.worker.clone(),
                health: Arc::clone(&self.health),
                stop: self.leave.clone(),
                leave_limit: self.config.lifecycle.drain_timeout,
            };
            let _detached = self.tasks.spawn(intake.serve());
        }
        Ok(())
    }

    /// Whether its database has what a queue needs; `None` for one that needs none.
    fn fitness(&self, queue: &Queue) -> Option<watch::Receiver<Fitness>> {
        let needs: Vec<Need> = queue.needs().collect();
        let database = self.databases.get(self.config.worker.queue(&queue.name)?)?;
        (!needs.is_empty()).then(|| database.fitness(&queue.name, needs))
    }

    /// Reads configuration and catalogue again and takes the new limits. What cannot be used changes
    /// nothing; new queues and endpoints need a restart, which loses no request.
    fn reload(&mut self, sources: &Sources) {
        let lines = |errors: Vec<crate::config::ConfigError>| -> Vec<String> {
            errors.iter().map(ToString::to_string).collect()
        };
        let read = Config::load(sources)
            .map_err(lines)
            .and_then(|loaded| Ok((load_catalogue(&loaded.config)?, loaded.config)));
        let word = match read {
            Ok((catalogue, config)) => {
                tell_of_connections(&config, &catalogue);
                self.databases.resize(&connections::places(&config, &catalogue));
                for queue in self.queues.load().iter() {
                    if let Some(limits) = config.worker.queue(&queue.name) {
                        queue.set_limit(limits.concurrency);
                    }
                }
                crate::roles::take_log_filter(&config.log);
                self.config = config;
                tracing::info!("took the new limits");
                "ok"
            }
            Err(errors) => {
                for error in errors {
                    tracing::error!(error, "the new configuration is refused, the old one stays");
                }
                "failed"
            }
        };
        counter(&names::CONFIG_RELOADS, &[(names::RESULT, word.to_owned())]).increment(1);
    }

    /// Leaves the groups, refuses what still comes, finishes what runs, ends.
    async fn drain(self) {
        let limit = self.config.lifecycle.drain_timeout;
        tracing::info!(running = self.dispatch.jobs.count(), "draining");
        systemd::stopping(limit + LAST_WAIT);
        self.readiness.set("lifecycle", Err("draining".to_owned()));
        let end = Instant::now() + limit;
        self.leave.cancel();
        let whole = self.tasks.wait(limit).await;
        if !whole {
            tracing::warn!(
                running = self.dispatch.jobs.count(),
                "cuts off calls: the drain is over"
            );
            self.dispatch.jobs.cancel_all();
            let _ended = self.tasks.wait(LAST_WAIT).await;
        }
        let left = end.saturating_duration_since(Instant::now()).max(LAST_WAIT);
        if let Err(error) = self.transport.flush_within(left).await {
            tracing::warn!(%error, "the last answers may not have been sent");
        }
        self.databases.close().await;
        self.stop.cancel();
        let _ended = self.admin_tasks.wait(LAST_WAIT).await;
        tracing::info!(whole, "drained");
    }
}

/// Says how many connections the databases may come to have.
fn tell_of_connections(config: &Config, catalogue: &Catalogue) {
    let (short, enough) = connections::summaries(config, catalogue);
    for line in short {
        tracing::warn!("{line}");
    }
    for line in enough {
        tracing::info!("{line}");
    }
}

async fn connect(config: &Config) -> Result<Arc<dyn Transport>, RunError> {
    let TransportConfig::Nats(nats) = &config.messaging.transport;
    messaging::nats::connect(nats, "fjord worker")
        .await
        .map_err(|error| RunError::system("cannot use the configuration of NATS", error))
}

fn load_catalogue(config: &Config) -> Result<Catalogue, Vec<String>> {
    catalogue::load(&config.catalogue.directory, &config.catalogue)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn dispatch(
    config: &Config,
    transport: &Arc<dyn Transport>,
    resend: Resend,
    tasks: &Tasks,
) -> Dispatch {
    Dispatch {
        transport: Arc::clone(transport),
        jobs: Arc::new(Jobs::default()),
        tasks: tasks.clone(),
        worker: uuid::Uuid::new_v4().simple().to_string(),
        config: config.worker.clone(),
        recent: Recent::default(),
        resend,
        pace: Pace::default(),
    }
}

/// The queues of the catalogue that this worker's configuration names.
fn queues(
    config: &Config,
    catalogue: &Catalogue,
    databases: &Databases,
    dispatch: &Arc<Dispatch>,
) -> Result<Vec<Arc<Queue>>, RunError> {
    let mut by_queue: BTreeMap<&QueueName, Vec<&Arc<Endpoint>>> = BTreeMap::new();
    for endpoint in catalogue.endpoints() {
        by_queue.entry(&endpoint.queue).or_default().push(endpoint);
    }
    let mut queues = Vec::new();
    let mut errors = Vec::new();
    for (name, endpoints) in by_queue {
        let Some(limits) = config.worker.queue(name) else { continue };
        match services(config, limits, &endpoints, databases) {
            Ok(services) => {
                let place = Place {
                    name: name.clone(),
                    number: queues.len(),
                    prefix: config.messaging.prefix.clone(),
                };
                let worker = &config.worker;
                let slots =
                    Slots::new(limits.concurrency, worker.refused_max, worker.offer_timeout);
                let queue = Queue::new(place, services, slots, Arc::clone(dispatch))
                    .map_err(|error| RunError::system(format!("queue {name}"), error))?;
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

fn services(
    config: &Config,
    limits: &QueueConfig,
    endpoints: &[&Arc<Endpoint>],
    databases: &Databases,
) -> Result<Vec<Service>, String> {
    let database = databases.get(limits);
    if let (None, Some(name)) = (database, &limits.database) {
        return Err(format!("database: no [procedures.databases.{name}]"));
    }
    let tools =
        Tools { database: database.cloned(), answer_bytes_max: config.worker.answer_bytes_max };
    let service = |endpoint: &&Arc<Endpoint>| {
        let handler = handlers::make(&endpoint.handler, &tools).map_err(|e| e.to_string())?;
        Ok(Service::new(Arc::clone(endpoint), handler))
    };
    endpoints.iter().map(service).collect()
}

fn status(queues: &QueueTable) -> admin::StatusSource {
    let queues = Arc::clone(queues);
    Arc::new(move || {
        let each = |queue: &Arc<Queue>| {
            let slots = queue.slots();
            let state = json!({ "limit": slots.limit(), "running": slots.running() });
            (queue.name.to_string(), state)
        };
        let queues: serde_json::Map<String, Value> = queues.load().iter().map(each).collect();
        json!({ "role": "worker", "version": env!("CARGO_PKG_VERSION"), "queues": queues })
    })
}
