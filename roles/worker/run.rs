//! The life cycle of a worker process: start, reload and drain.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admin::{self, Admin, Readiness};
use crate::catalogue::Catalogue;
use crate::cli::Role;
use crate::config::messaging::TransportConfig;
use crate::config::{Config, Sources};
use crate::fleet::{self, FleetMember, ProcessIdentity, control::CommandReceiver, monitor};
use crate::lifecycle::{Cancel, Signal, Signals, Tasks, systemd};
use crate::messaging::{self, Transport};
use crate::procedures::databases::Databases;
use crate::procedures::pool_sizes;
use crate::roles::RunError;
use crate::roles::worker::prepare::PreparedWorker;
use crate::telemetry::{gauge, names};

use super::execution::executor::Executor;
use super::execution::procedure::failure_log;
use super::execution::recent_replies::RecentReplies;
use super::execution::reply_sender::ReplySender;
use super::execution::resend::Resender;
use super::intake::queue::Queue;
use super::intake::queue_set::QueueSet;
use super::intake::round_trip;
use super::observation::readiness::QueueReadiness;
use super::observation::report;

mod commands;
mod queue_commands;
mod queues;
mod reload;

use queues::RunningQueues;

/// The time to wait for tasks to end after they have been cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// A running worker.
struct WorkerProcess {
    config: Config,
    transport: Arc<dyn Transport>,
    databases: Databases,
    queues: RunningQueues,
    /// The rollout of the last reload, or `None` if that reload was not part of a rollout.
    last_rollout: Option<String>,
    readiness: Readiness,
    tasks: Tasks,
    admin_tasks: Tasks,
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
    let (mut worker, mut commands) = WorkerProcess::start(config, prepared).await?;
    systemd::feed_watchdog(&worker.tasks);
    let queue_readiness = Arc::clone(&worker.queues.readiness);
    let mut is_ready = false;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    systemd::reloading();
                    worker.reload_by_signal(&sources);
                    if is_ready {
                        systemd::ready("serving");
                    }
                }
                Signal::Stop => break,
            },
            Some(command) = commands.recv() => {
                if worker.execute(command, &sources).await {
                    break;
                }
            }
            () = queue_readiness.any_served(), if !is_ready => {
                is_ready = true;
                systemd::ready("serving");
            }
        }
    }
    drop(commands);
    worker.drain().await;
    Ok(())
}

impl WorkerProcess {
    async fn start(
        config: Config,
        prepared: PreparedWorker,
    ) -> Result<(Self, CommandReceiver), RunError> {
        let PreparedWorker { catalogue, databases, queues, traces } = prepared;
        let (tasks, admin_tasks, stop) = (Tasks::new(), Tasks::new(), Cancel::new());
        traces.apply();
        failure_log::log_database_messages(config.log.database_messages);
        log_connection_limits(&config, &catalogue);
        databases.monitor(&tasks);
        let admin = Admin::bind(&config.admin);
        let admin = admin.map_err(|error| RunError::system(error.to_string(), error))?;
        let readiness = Readiness::new();
        let queue_readiness = QueueReadiness::new(readiness.clone());
        let transport = connect(&config).await?;
        readiness.follow(&transport, &tasks);
        let replies = ReplySender::new(Arc::clone(&transport));
        let recent = RecentReplies::new(config.messaging.transport.reconnect_time_max());
        let (executor, resend_requests) =
            Executor::new(replies, recent, config.worker.clone(), tasks.clone());
        let executor = Arc::new(executor);
        let mut running = RunningQueues::new(&transport, &executor, queue_readiness);
        round_trip::follow(&transport, &running.set, &executor, &tasks);
        let resender = Resender {
            replies: executor.replies.clone(),
            recent: Arc::clone(&executor.recent),
            throttle: Arc::clone(&executor.throttle),
        };
        resender.start(resend_requests, &tasks);
        let member = fleet_member(&config, &transport, &running.set, &readiness);
        let fleet = monitor::start(&member, config.admin.fleet, &transport, &tasks);
        tracing::info!(part = "admin", address = %admin.address(), "listening");
        let status = status(&running.set);
        let health = admin::ProcessHealth { readiness: readiness.clone(), status, fleet };
        admin.serve(health, &admin_tasks, stop.clone());
        let commands = fleet::join(&config.messaging, &member, &transport, &tasks).await;
        let commands = commands
            .map_err(|error| RunError::system("cannot subscribe to queries and commands", error))?;
        // Each queue itself reports when it is served, or the reason why it is not.
        let _rollout = running.apply(queues, &config, &databases, false);
        let worker = Self {
            config,
            transport,
            databases,
            queues: running,
            last_rollout: None,
            readiness,
            tasks,
            admin_tasks,
            stop,
        };
        Ok((worker, commands))
    }

    /// Leaves the queue groups, refuses messages that still arrive, waits for the calls to finish,
    /// and stops.
    async fn drain(self) {
        let limit = self.config.lifecycle.drain_timeout;
        let jobs = &self.queues.executor.jobs;
        tracing::info!(running = jobs.count(), "draining");
        systemd::stopping(limit + CANCEL_TIMEOUT);
        self.readiness.set("lifecycle", Err("draining".to_owned()));
        let end = Instant::now() + limit;
        self.queues.leave();
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

/// Logs the connection limit of each database. Warns if calls may have to wait for a connection.
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
    messaging::nats::connect(nats, &format!("fjord worker {}", config.messaging.prefix))
        .await
        .map_err(|error| RunError::system("cannot use the NATS configuration", error))
}

/// Creates this worker as a member of the fleet.
fn fleet_member(
    config: &Config,
    transport: &Arc<dyn Transport>,
    queues: &QueueSet,
    readiness: &Readiness,
) -> Arc<FleetMember> {
    let queues = queues.clone();
    let snapshots = move || queues.load().iter().map(|queue| queue.snapshot()).collect();
    let pool = &config.worker.pool;
    gauge(&names::WORKER_POOL, &[(names::POOL, pool.clone())]).set(1.0);
    let source = report::source(pool, snapshots, readiness);
    let prefix = config.messaging.prefix.clone();
    FleetMember::new(ProcessIdentity::new(Role::Worker, prefix, &transport.inbox()), source)
}

/// Returns the source of the `/status` document.
fn status(queues: &QueueSet) -> admin::StatusSource {
    let queues = queues.clone();
    Arc::new(move || {
        let queues = queues.load();
        let state = |queue: &Arc<Queue>| {
            let snapshot = queue.snapshot();
            let slots = snapshot.slots;
            (snapshot.name, json!({ "limit": slots.limit, "running": slots.running }))
        };
        let pending = queues.iter().filter_map(|queue| {
            Some((queue.subjects.name.to_string(), Value::from(queue.pending()?)))
        });
        let pending: serde_json::Map<String, Value> = pending.collect();
        let queues: serde_json::Map<String, Value> = queues.iter().map(state).collect();
        json!({
            "role": "worker",
            "version": env!("CARGO_PKG_VERSION"),
            "queues": queues,
            "pending": pending,
        })
    })
}
