//! The queues of a running worker. This module starts, changes and removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::catalogue::{EndpointId, QueueName};
use crate::config::Config;
use crate::lifecycle::Cancel;
use crate::messaging::Transport;
use crate::procedures::databases::{Databases, Verification};
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::intake::membership::GroupMembership;
use crate::roles::worker::intake::queue::Queue;
use crate::roles::worker::intake::queue_set::QueueSet;
use crate::roles::worker::intake::slots::Slots;
use crate::roles::worker::intake::version::{self, QueueVersion, ServedEndpoints};
use crate::roles::worker::observation::queue_metrics;
use crate::roles::worker::observation::readiness::QueueReadiness;
use crate::roles::worker::prepare::PreparedQueue;
use crate::telemetry::{self, names};

/// The interval at which the worker checks whether the last job of a removed queue has ended.
const JOBS_INTERVAL: Duration = Duration::from_millis(100);

/// The queues of a worker.
pub(super) struct RunningQueues {
    queues: BTreeMap<QueueName, RunningQueue>,
    /// The same queues, for reports.
    pub(super) set: QueueSet,
    pub(super) readiness: Arc<QueueReadiness>,
    pub(super) executor: Arc<Executor>,
    transport: Arc<dyn Transport>,
    /// Triggered to leave all queue groups.
    leave: Cancel,
    /// The number of the configuration, counted from 1.
    version: u64,
    /// The index of the next new queue.
    pub(super) next_index: usize,
}

struct RunningQueue {
    queue: Arc<Queue>,
    versions: watch::Sender<Arc<QueueVersion>>,
    /// Triggered to leave the queue group.
    leave: Cancel,
    /// Triggered when the worker is no longer to receive messages about the queue's jobs.
    closed: Cancel,
    membership: JoinHandle<()>,
    /// The queue's endpoints in the configuration, or `None` if the configuration no longer has the queue.
    configured: Option<BTreeSet<EndpointId>>,
}

/// A queue with the endpoints in the new configuration.
struct QueueChange {
    queue: PreparedQueue,
    verification: Option<watch::Receiver<Verification>>,
}

/// The queues in a reloaded configuration. All of them must serve their new versions.
#[derive(Debug)]
pub(super) struct Rollout {
    version: u64,
    queues: Vec<Arc<Queue>>,
}

impl RunningQueues {
    /// Creates an empty set.
    pub(super) fn new(
        transport: &Arc<dyn Transport>,
        executor: &Arc<Executor>,
        readiness: QueueReadiness,
    ) -> Self {
        Self {
            queues: BTreeMap::new(),
            set: QueueSet::default(),
            readiness: Arc::new(readiness),
            executor: Arc::clone(executor),
            transport: Arc::clone(transport),
            leave: Cancel::new(),
            version: 0,
            next_index: 0,
        }
    }

    /// Serves the queues in a new configuration. Existing queues keep their slots and jobs, and serve their previous
    /// endpoints until the database has verified the new ones. With `keeps_removed`, queues and endpoints that the
    /// configuration no longer has are still served. Does not wait: each queue subscribes in its own task.
    pub(super) fn apply(
        &mut self,
        prepared: Vec<PreparedQueue>,
        config: &Config,
        databases: &Databases,
        keeps_removed: bool,
    ) -> Rollout {
        self.version += 1;
        self.next_index += prepared.len();
        // All expected procedures are registered first, so that each database is queried once.
        let changes: Vec<QueueChange> = prepared
            .into_iter()
            .map(|queue| {
                let verification = verification(&queue, databases);
                QueueChange { queue, verification }
            })
            .collect();
        let names: BTreeSet<&QueueName> =
            changes.iter().map(|change| &change.queue.subjects.name).collect();
        for (name, running) in &mut self.queues {
            if !names.contains(name) {
                running.configured = None;
            }
        }
        if !keeps_removed {
            self.remove_queues(config);
        }
        let mut queues = Vec::with_capacity(changes.len());
        for change in changes {
            queues.push(self.apply_one(change, config, keeps_removed));
        }
        self.publish();
        Rollout { version: self.version, queues }
    }

    fn publish(&self) {
        self.set.store(self.queues.values().map(|running| Arc::clone(&running.queue)).collect());
    }

    fn apply_one(
        &mut self,
        change: QueueChange,
        config: &Config,
        keeps_removed: bool,
    ) -> Arc<Queue> {
        let QueueChange {
            queue: PreparedQueue { subjects, config: limits, endpoints },
            verification,
        } = change;
        let worker = &config.worker;
        let number = self.version;
        let configured: BTreeSet<EndpointId> = endpoints.keys().cloned().collect();
        let new_version = |endpoints: ServedEndpoints| {
            Arc::new(QueueVersion {
                number,
                endpoints: Arc::new(endpoints),
                verification,
                leave_timeout: config.lifecycle.drain_timeout,
            })
        };
        if let Some(running) = self.queues.get_mut(&subjects.name) {
            let queue = &running.queue;
            let endpoints = version::replacing(&queue.endpoints(), endpoints, keeps_removed);
            queue.set_newest(number);
            running.configured = Some(configured);
            running.versions.send_replace(new_version(endpoints));
            queue.set_configured_limit(limits.concurrency);
            queue.set_offer_limits(worker.remembered_refusals_max, worker.offer_timeout);
            return Arc::clone(queue);
        }
        let version = new_version(endpoints);
        let slots =
            Slots::new(limits.concurrency, worker.remembered_refusals_max, worker.offer_timeout);
        let name = subjects.name.clone();
        let executor = &self.executor;
        let endpoints = Arc::clone(&version.endpoints);
        let queue = Arc::new(Queue::new(subjects, endpoints, slots, Arc::clone(executor)));
        queue.set_newest(number);
        let closed = Cancel::new();
        let (versions, receiver) = watch::channel(version);
        let leave = self.leave.child();
        let membership = GroupMembership {
            queue: Arc::clone(&queue),
            transport: Arc::clone(&self.transport),
            versions: receiver,
            executor: Arc::clone(executor),
            readiness: Arc::clone(&self.readiness),
            stop: leave.clone(),
            closed: closed.clone(),
        };
        let membership = executor.tasks.spawn(membership.serve());
        let configured = Some(configured);
        let running = RunningQueue {
            queue: Arc::clone(&queue),
            versions,
            leave,
            closed,
            membership,
            configured,
        };
        self.queues.insert(name, running);
        queue
    }

    /// Returns whether the worker serves queues or endpoints that the configuration does not have.
    pub(super) fn has_unconfigured(&self) -> bool {
        self.queues.values().any(|running| {
            let configured = running.configured.as_ref();
            configured.is_none_or(|ids| ids.len() != running.versions.borrow().endpoints.len())
        })
    }

    /// Stops serving the queues and endpoints that the configuration does not have. Returns the names of these queues.
    pub(super) fn remove_unconfigured(&mut self, config: &Config) -> Vec<QueueName> {
        let removed = self.remove_queues(config);
        self.version += 1;
        for running in self.queues.values() {
            let Some(configured) = &running.configured else { continue };
            let newest = Arc::clone(&running.versions.borrow());
            if newest.endpoints.len() == configured.len() {
                continue;
            }
            let mut endpoints = ServedEndpoints::clone(&newest.endpoints);
            endpoints.retain(|id, _| configured.contains(id));
            let (number, endpoints) = (self.version, Arc::new(endpoints));
            running.queue.set_newest(number);
            let version = QueueVersion { number, endpoints, ..QueueVersion::clone(&newest) };
            running.versions.send_replace(Arc::new(version));
        }
        removed
    }

    /// Removes the queues that the configuration does not have.
    fn remove_queues(&mut self, config: &Config) -> Vec<QueueName> {
        let unconfigured = self.queues.iter().filter(|(_, running)| running.configured.is_none());
        let removed: Vec<QueueName> = unconfigured.map(|(name, _)| name.clone()).collect();
        for name in &removed {
            self.remove(name, config);
        }
        removed
    }

    /// Leaves the group of a queue, refuses the requests that still arrive, and lets the running calls end.
    fn remove(&mut self, name: &QueueName, config: &Config) {
        let Some(running) = self.queues.remove(name) else { return };
        let RunningQueue { queue, versions, leave, closed, membership, .. } = running;
        leave.cancel();
        self.readiness.remove(name.as_str());
        self.publish();
        let label = (names::QUEUE, name.to_string());
        telemetry::remove(&queue_metrics::GAUGES, &label);
        let jobs = Arc::clone(&self.executor.jobs);
        let answers_kept = config.messaging.transport.reconnect_time_max();
        let name = name.to_string();
        let _detached = self.executor.tasks.spawn_background(async move {
            // The wait ends early if the worker stops, because the task of the membership is then aborted or has ended.
            let _ended = membership.await;
            drop(versions);
            while jobs.count_of(queue.subjects.index) > 0 {
                sleep(JOBS_INTERVAL).await;
            }
            tracing::info!(queue = name, "a removed queue is no longer served");
            // During this time, gateways can ask for answers that they have missed.
            sleep(answers_kept).await;
            closed.cancel();
        });
    }

    /// Leaves all queue groups.
    pub(super) fn leave(&self) {
        self.leave.cancel();
    }
}

impl Rollout {
    /// Waits for at most `limit` until every queue serves the new configuration. Returns the queues that do not, each
    /// with the reason.
    pub(super) async fn finish(self, limit: Duration) -> BTreeMap<String, String> {
        let end = Instant::now() + limit;
        let mut problems = BTreeMap::new();
        for queue in self.queues {
            let mut version = queue.version();
            let served = version.wait_for(|state| state.served >= self.version);
            if timeout_at(end, served).await.is_err()
                && let Some(problem) = queue.pending()
            {
                problems.insert(queue.subjects.name.to_string(), problem);
            }
        }
        problems
    }
}

/// Starts verifying the procedures of a queue. Returns `None` if the queue needs no database.
fn verification(
    queue: &PreparedQueue,
    databases: &Databases,
) -> Option<watch::Receiver<Verification>> {
    let expected = version::expected_procedures(&queue.endpoints);
    let database = databases.get(&queue.config)?;
    (!expected.is_empty()).then(|| database.verification(&queue.subjects.name, expected))
}
