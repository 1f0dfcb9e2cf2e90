//! Joins a queue group once the database has the procedures, and joins it again after leaving it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::lifecycle::Cancel;
use crate::messaging::{self, Subscription, Transport, TransportError};
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::observation::readiness::QueueReadiness;
use crate::telemetry::{chain, gauge, names};

use super::control;
use super::queue::Queue;
use super::version::QueueVersion;

mod reading;

use reading::LeaveReason;

/// The pause before the next attempt to join.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The maximum time between the server's acknowledgement and the report of a refused subscription.
const REFUSAL_DELAY_MAX: Duration = Duration::from_millis(20);
/// The reason reported for a queue that is not served because NATS refuses, or has lost, a subscription.
const SUBSCRIPTION_REFUSED: &str =
    "NATS does not serve a subscription that the queue needs: see \"nats subscriptions\"";

/// A worker's membership in one queue group.
#[derive(Debug)]
pub struct GroupMembership {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The connection to NATS.
    pub transport: Arc<dyn Transport>,
    /// The newest version of the queue. Until the database has verified it, the worker serves the previous version,
    /// even after an outage.
    pub versions: watch::Receiver<Arc<QueueVersion>>,
    /// The executor of the jobs. It has the configuration of the worker.
    pub executor: Arc<Executor>,
    /// The readiness of all queues, to which this queue reports its state.
    pub readiness: Arc<QueueReadiness>,
    /// Triggered to leave the group for good.
    pub stop: Cancel,
    /// Triggered to receive no more messages about the queue's jobs.
    pub closed: Cancel,
}

/// A membership in progress, with the version of the queue that is being served or is about to be served.
struct VersionedMembership {
    membership: GroupMembership,
    version: Arc<QueueVersion>,
    /// Whether the version has been served.
    was_served: bool,
}

impl GroupMembership {
    /// Serves the queue until `stop` is triggered. Joins the group once the database has the
    /// procedures, and again after leaving it for any reason but `stop`.
    pub async fn serve(self) {
        let version = Arc::clone(&self.versions.borrow());
        VersionedMembership { membership: self, version, was_served: false }.serve().await;
    }
}

impl VersionedMembership {
    async fn serve(mut self) {
        if !self.listen().await {
            return;
        }
        let mut is_back = false;
        while self.wait_until_verified().await {
            match self.join().await {
                Ok(subscription) => {
                    self.log_joined(is_back);
                    let reason = self.read(subscription).await;
                    self.log_left(reason);
                    is_back = reason == LeaveReason::DatabaseUnavailable;
                    if reason == LeaveReason::SubscriptionRefused {
                        self.report(Err(SUBSCRIPTION_REFUSED.to_owned()));
                    }
                }
                Err(error) => {
                    self.report(Err(error.to_string()));
                    self.pause(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Subscribes to messages about the queue's jobs, and retries until that succeeds. Returns `false` if the worker stops first.
    async fn listen(&self) -> bool {
        let GroupMembership { queue, transport, executor, stop, closed, .. } = &self.membership;
        let mut link = transport.link();
        while !stop.is_cancelled() {
            let listening = async {
                // Without this wait, each queue would report an outage. If the transport is closed, subscribing fails.
                let _up = messaging::wait_until_up(&mut link).await;
                control::listen(transport, queue, executor, closed).await
            };
            let listening = tokio::select! {
                listening = listening => listening,
                () = stop.cancelled() => return false,
            };
            let Err(error) = listening else { return true };
            let (name, cause) = (&queue.subjects.name, chain(&error));
            tracing::warn!(queue = %name, cause, "cannot subscribe to the queue's subjects; retrying");
            self.report(Err(format!("cannot subscribe to the queue's subjects: {cause}")));
            self.pause(RETRY_DELAY).await;
        }
        false
    }

    /// Waits until the database has the procedures of the newest version, or of the version that was served last.
    /// Returns `false` if the worker stops first.
    async fn wait_until_verified(&mut self) -> bool {
        while !self.membership.stop.is_cancelled() {
            let newest = Arc::clone(&self.membership.versions.borrow_and_update());
            let GroupMembership { queue, readiness, .. } = &self.membership;
            let pending = newest.problem();
            // After an outage, a version that has never been verified must not replace one that has been served.
            if pending.is_none() || !self.was_served {
                adopt(queue, readiness, &newest);
                self.was_served &= self.version.number == newest.number;
                self.version = Arc::clone(&newest);
            } else if let Some(why) = &pending
                && newest.number != self.version.number
            {
                note_pending(queue, readiness, why);
            }
            let Some(why) = self.version.problem() else { return true };
            self.report(Err(why.to_string()));
            let Self { version, membership: GroupMembership { stop, versions, .. }, .. } = self;
            tokio::select! {
                () = stop.cancelled() => {}
                () = version.verification_changed(Some(&why)) => {}
                () = newest.verification_changed(pending.as_ref()) => {}
                () = changed(versions) => {}
            }
        }
        false
    }

    /// Logs that the queue is served. If it is served again because its database is available again, logs at `debug`,
    /// because one line about the database covers all of its queues.
    fn log_joined(&self, is_back: bool) {
        let queue = &self.membership.queue;
        let (queue, limit) = (queue.subjects.name.as_str(), queue.limit());
        if is_back {
            tracing::debug!(queue, limit, "joined the queue group");
        } else {
            tracing::info!(queue, limit, "joined the queue group");
        }
    }

    fn log_left(&self, reason: LeaveReason) {
        let queue = self.membership.queue.subjects.name.as_str();
        match reason {
            LeaveReason::DatabaseUnavailable => {
                tracing::debug!(queue, ?reason, "left the queue group");
            }
            LeaveReason::Stopped | LeaveReason::SubscriptionRefused | LeaveReason::Closed => {
                tracing::info!(queue, ?reason, "left the queue group");
            }
        }
    }

    /// Joins the group. Returns after the server has processed the subscription.
    async fn join(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let GroupMembership { queue, transport, stop, .. } = &self.membership;
        let mut link = transport.link();
        tokio::select! {
            // If the transport is closed, subscribing fails below.
            _ = messaging::wait_until_up(&mut link) => {}
            () = stop.cancelled() => return Err(TransportError::Disconnected),
        }
        let subjects = &queue.subjects;
        let subscription =
            transport.queue_subscribe(&subjects.requests, subjects.name.as_str()).await?;
        transport.flush().await?;
        // The server has answered by now, but the NATS client may report a refusal a moment later.
        let mut served = subscription.served();
        let _served = timeout(REFUSAL_DELAY_MAX, served.wait_for(|served| !served)).await;
        Ok(subscription)
    }

    fn report(&self, state: Result<(), String>) {
        let GroupMembership { queue, readiness, stop, .. } = &self.membership;
        if let Err(problem) = &state
            && self.version.number == self.membership.versions.borrow().number
        {
            queue.set_problem(problem);
        }
        // A queue that this worker has left for good must not be reported.
        if !stop.is_cancelled() {
            report(queue, readiness, state);
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.membership.stop.cancelled() => {}
            () = sleep(duration) => {}
        }
    }
}

fn report(queue: &Queue, readiness: &QueueReadiness, state: Result<(), String>) {
    let name = &queue.subjects.name;
    let is_ready = if state.is_ok() { 1.0 } else { 0.0 };
    gauge(&names::WORKER_QUEUE_READY, &[(names::QUEUE, name.to_string())]).set(is_ready);
    readiness.set(name.as_str(), state);
}

/// Serves a version of a queue from now on.
fn adopt(queue: &Queue, readiness: &QueueReadiness, version: &QueueVersion) {
    queue.adopt(version);
    readiness.note_reloaded(queue.subjects.name.as_str(), None);
}

/// Reports the reason why the newest version of a queue is not served.
fn note_pending(queue: &Queue, readiness: &QueueReadiness, why: &str) {
    queue.set_problem(why);
    readiness.note_reloaded(queue.subjects.name.as_str(), Some(why.to_owned()));
}

/// Waits for another version. Never returns if no other version can arrive.
async fn changed(versions: &mut watch::Receiver<Arc<QueueVersion>>) {
    if versions.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
