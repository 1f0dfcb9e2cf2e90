//! The life cycle of a worker process: start, reload and drain.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{self, Admin, Readiness};
use crate::catalogue::Catalogue;
use crate::cli::Role;
use crate::config::messaging::TransportConfig;
use crate::config::{Config, LoadedConfig, Sources};
use crate::fleet;
use crate::lifecycle::{Cancel, Signal, Signals, Tasks, systemd};
use crate::messaging::{self, Transport};
use crate::procedures::databases::{Databases, Verification};
use crate::procedures::{ExpectedProcedure, pool_sizes};
use crate::roles::RunError;
use crate::roles::worker::prepare;
use crate::roles::worker::prepare::PreparedWorker;
use crate::start_check;
use crate::telemetry::{counter, names};

use super::execution::executor::Executor;
use super::execution::procedure::failure_log;
use super::execution::recent_replies::RecentReplies;
use super::execution::reply_sender::ReplySender;
use super::execution::resend::Resender;
use super::intake::membership::GroupMembership;
use super::intake::queue::Queue;
use super::intake::{control, round_trip};
use super::observation::readiness::QueueReadiness;
use super::observation::report;

mod queues;

/// How long to wait for tasks to end after they have been cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// A running worker.
struct WorkerProcess {
    config: Config,
    transport: Arc<dyn Transport>,
    databases: Databases,
    executor: Arc<Executor>,
    queues: Arc<[Arc<Queue>]>,
    queue_readiness: Arc<QueueReadiness>,
    readiness: Readiness,
    tasks: Tasks,
    admin_tasks: Tasks,
    /// Triggered to leave the queue groups.
    leave: Cancel,
    /// Triggered to stop the admin listener.
    stop: Cancel,
}

/// Runs a worker until a signal stops it.
///
/// # Errors
/// `RunError` if the worker cannot start. No request has been executed in that case.
pub async fn run(
    config: Config,
    prepared: PreparedWorker,
    sources: Sources,
    mut signals: Signals,
) -> Result<(), RunError> {
    let mut worker = WorkerProcess::start(config, prepared).await?;
    systemd::feed_watchdog(&worker.tasks);
    let mut is_ready = false;
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
            () = worker.queue_readiness.any_served(), if !is_ready => {
                is_ready = true;
                systemd::ready("serving");
            }
        }
    }
    worker.drain().await;
    Ok(())
}

impl WorkerProcess {
    async fn start(config: Config, prepared: PreparedWorker) -> Result<Self, RunError> {
        let PreparedWorker { catalogue, databases, queues } = prepared;
        let (tasks, admin_tasks) = (Tasks::new(), Tasks::new());
        let (leave, stop) = (Cancel::new(), Cancel::new());
        failure_log::log_database_messages(config.log.database_messages);
        log_connection_limits(&config, &catalogue);
        databases.monitor(&tasks);
        let admin = Admin::bind(&config.admin);
        let admin = admin.map_err(|error| RunError::system(error.to_string(), error))?;
        let readiness = Readiness::new();
        let queue_readiness = Arc::new(QueueReadiness::new(readiness.clone()));
        let transport = connect(&config).await?;
        readiness.follow(transport.link(), &tasks);
        let replies = ReplySender::new(Arc::clone(&transport));
        let recent = RecentReplies::new(config.messaging.transport.reconnect_time_max());
        let (executor, resend_requests) =
            Executor::new(replies, recent, config.worker.clone(), tasks.clone());
        let executor = Arc::new(executor);
        let queues: Arc<[_]> = queues::create(queues, &config.worker, &executor).into();
        round_trip::follow(&transport, &queues, &config.worker, &tasks);
        let resender = Resender {
            replies: executor.replies.clone(),
            recent: Arc::clone(&executor.recent),
            throttle: Arc::clone(&executor.throttle),
            queues: queues.iter().map(|queue| Arc::clone(&queue.subjects)).collect(),
        };
        resender.start(resend_requests, &tasks);
        tracing::info!(part = "admin", address = %admin.address(), "listening");
        let health = admin::ProcessHealth { readiness: readiness.clone(), status: status(&queues) };
        admin.serve(health, &admin_tasks, stop.clone());
        let worker = Self {
            config,
            transport,
            databases,
            executor,
            queues,
            queue_readiness,
            readiness,
            tasks,
            admin_tasks,
            leave,
            stop,
        };
        worker.report_to_fleet().await?;
        worker.serve().await?;
        Ok(worker)
    }

    /// Starts answering status queries.
    async fn report_to_fleet(&self) -> Result<(), RunError> {
        let queues = Arc::clone(&self.queues);
        let snapshots = move || queues.iter().map(|queue| queue.snapshot()).collect();
        let source = report::source(snapshots, &self.readiness);
        fleet::serve_reports(
            &self.config.messaging,
            Role::Worker,
            source,
            &self.transport,
            &self.tasks,
        )
        .await
        .map_err(|error| RunError::system("cannot subscribe to status queries", error))
    }

    /// Subscribes to this worker's subjects, and starts the tasks that join the queue groups.
    async fn serve(&self) -> Result<(), RunError> {
        // Register all expected procedures first, so that each database is queried once.
        let verification: Vec<_> =
            self.queues.iter().map(|queue| self.verification(queue)).collect();
        for (queue, verification) in self.queues.iter().zip(verification) {
            control::listen(&self.transport, queue, &self.executor).await.map_err(|error| {
                RunError::system("cannot subscribe to the worker's own subjects", error)
            })?;
            let membership = GroupMembership {
                queue: Arc::clone(queue),
                transport: Arc::clone(&self.transport),
                verification,
                config: self.config.worker.clone(),
                readiness: Arc::clone(&self.queue_readiness),
                stop: self.leave.clone(),
                leave_timeout: self.config.lifecycle.drain_timeout,
            };
            let _detached = self.tasks.spawn(membership.serve());
        }
        Ok(())
    }

    /// Returns the verification of a queue's procedures; `None` if the queue needs no database.
    fn verification(&self, queue: &Queue) -> Option<watch::Receiver<Verification>> {
        let expected: Vec<ExpectedProcedure> = queue.expected_procedures().collect();
        let name = &queue.subjects.name;
        let database = self.databases.get(self.config.worker.queue(name)?)?;
        (!expected.is_empty()).then(|| database.verification(name, expected))
    }

    /// Reloads the configuration and the catalogue, and applies the new limits, passwords and log
    /// settings. An error changes nothing. New queues and endpoints require a restart, which loses no request.
    fn reload(&mut self, sources: &Sources) {
        let result = match start_check::load(sources, prepare::prepare) {
            Ok((LoadedConfig { config, .. }, PreparedWorker { catalogue, .. })) => {
                log_connection_limits(&config, &catalogue);
                self.databases.reconfigure(&pool_sizes::database_configs(&config, &catalogue));
                for queue in self.queues.iter() {
                    if let Some(limits) = config.worker.queue(&queue.subjects.name) {
                        queue.set_limit(limits.concurrency);
                    }
                }
                crate::roles::apply_log_filter(&config.log);
                failure_log::log_database_messages(config.log.database_messages);
                self.config = config;
                tracing::info!("applied the new limits");
                "ok"
            }
            Err(errors) => {
                crate::roles::log_invalid_reload(&errors);
                "failed"
            }
        };
        counter(&names::CONFIG_RELOADS, &[(names::RESULT, result.to_owned())]).increment(1);
    }

    /// Leaves the queue groups, refuses messages that still arrive, finishes the calls, and stops.
    async fn drain(self) {
        let limit = self.config.lifecycle.drain_timeout;
        let jobs = &self.executor.jobs;
        tracing::info!(running = jobs.count(), "draining");
        systemd::stopping(limit + CANCEL_TIMEOUT);
        self.readiness.set("lifecycle", Err("draining".to_owned()));
        let end = Instant::now() + limit;
        self.leave.cancel();
        let is_complete = self.tasks.wait(limit).await;
        if !is_complete {
            tracing::warn!(
                running = jobs.count(),
                "the drain timeout has passed: cancelling the calls that are still running"
            );
            jobs.cancel_all();
            let _ended = self.tasks.wait(CANCEL_TIMEOUT).await;
        }
        let left = end.saturating_duration_since(Instant::now()).max(CANCEL_TIMEOUT);
        if let Err(error) = self.transport.flush_within(left).await {
            tracing::warn!(%error, "the last answers may not have been sent");
        }
        self.databases.close().await;
        self.stop.cancel();
        let _ended = self.admin_tasks.wait(CANCEL_TIMEOUT).await;
        tracing::info!(is_complete, "drained");
    }
}

/// Logs the connection limit of each database; warns if calls may have to wait for a connection.
fn log_connection_limits(config: &Config, catalogue: &Catalogue) {
    let (short, enough) = pool_sizes::summaries(config, catalogue);
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
        .map_err(|error| RunError::system("cannot use the NATS configuration", error))
}

/// Returns the source of the `/status` document.
fn status(queues: &Arc<[Arc<Queue>]>) -> admin::StatusSource {
    let queues = Arc::clone(queues);
    Arc::new(move || {
        let state = |queue: &Arc<Queue>| {
            let snapshot = queue.snapshot();
            let slots = snapshot.slots;
            (snapshot.name, json!({ "limit": slots.limit, "running": slots.running }))
        };
        let queues: serde_json::Map<String, Value> = queues.iter().map(state).collect();
        json!({ "role": "worker", "version": env!("CARGO_PKG_VERSION"), "queues": queues })
    })
}
