//! Joins a queue group, reads its messages, and leaves it without losing a message.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::limits::OFFER_EXPIRY_INTERVAL;
use crate::lifecycle::Cancel;
use crate::message::Message;
use crate::messaging::{self, Link, LinkState, Subscription, Transport, TransportError};
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::observation::readiness::QueueReadiness;
use crate::telemetry::{chain, gauge, names};

use super::control;
use super::queue::Queue;
use super::version::QueueVersion;

/// The pause before the next attempt to join.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long the report of a refused subscription may take after the server's acknowledgement.
const REFUSAL_DELAY_MAX: Duration = Duration::from_millis(20);
/// The reason reported for a queue that is not served because NATS refuses a subscription.
const SUBSCRIPTION_REFUSED: &str =
    "NATS refuses a subscription that it needs: see \"nats subscriptions\"";

/// A worker's membership in one queue group.
#[derive(Debug)]
pub struct GroupMembership {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The connection to NATS.
    pub transport: Arc<dyn Transport>,
    /// The newest version of the queue. The worker serves the previous one until the database has
    /// verified the newest, also after an outage.
    pub versions: watch::Receiver<Arc<QueueVersion>>,
    /// Runs the jobs. It has the configuration of the worker.
    pub executor: Arc<Executor>,
    /// The readiness of all queues, to which this queue reports its state.
    pub readiness: Arc<QueueReadiness>,
    /// Triggered to leave the group for good.
    pub stop: Cancel,
    /// Triggered to receive no more messages about the queue's jobs.
    pub closed: Cancel,
}

/// A membership in progress, with the version of the queue that is served, or is about to be.
struct VersionedMembership {
    membership: GroupMembership,
    version: Arc<QueueVersion>,
    /// Whether the version has been served.
    was_served: bool,
}

/// The reason for leaving a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaveReason {
    /// The worker is stopping.
    Stopped,
    /// The database does not answer, or no longer has the procedures.
    DatabaseUnavailable,
    /// NATS refuses a subscription that the worker needs, for example for grants and cancels.
    SubscriptionRefused,
    /// The transport has closed the subscription.
    Closed,
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
                // Each queue would report an outage. If the transport is closed, subscribing fails.
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
            self.report(Err(format!("cannot subscribe to its subjects: {cause}")));
            self.pause(RETRY_DELAY).await;
        }
        false
    }

    /// Waits until the database has the procedures of the newest version, or of the one that was served last. Returns `false`
    /// if the worker stops first.
    async fn wait_until_verified(&mut self) -> bool {
        while !self.membership.stop.is_cancelled() {
            let newest = Arc::clone(&self.membership.versions.borrow_and_update());
            let GroupMembership { queue, readiness, .. } = &self.membership;
            let pending = newest.problem();
            // After an outage, a version that has never passed must not replace one that has been served.
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

    /// Logs that the queue is served. If it is served again because its database is back, logs at
    /// `debug`: one line about the database covers all of its queues.
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

    /// Reads messages until there is a reason to leave the group, then leaves it.
    async fn read(&mut self, mut subscription: Box<dyn Subscription>) -> LeaveReason {
        let queue = Arc::clone(&self.membership.queue);
        self.was_served = true;
        queue.set_available();
        queue.set_served(self.version.number);
        let reason = self.read_messages(&mut subscription).await;
        match reason {
            LeaveReason::Stopped => queue.drain(),
            LeaveReason::DatabaseUnavailable | LeaveReason::SubscriptionRefused => {
                queue.set_unavailable();
            }
            LeaveReason::Closed => return reason,
        }
        self.leave(subscription).await;
        reason
    }

    async fn read_messages(&mut self, subscription: &mut Box<dyn Subscription>) -> LeaveReason {
        let Self { membership, version, .. } = self;
        let GroupMembership { queue, readiness, transport, versions, stop, .. } = &*membership;
        // These futures are created once: creating them would dominate the cost of each message.
        let mut stopped = pin!(stop.cancelled());
        let failure = |version: &Arc<QueueVersion>| {
            let version = Arc::clone(version);
            async move { version.verification_changed(None).await }
        };
        let mut failed = pin!(failure(version));
        let newer = |number| next_version(versions.clone(), number, queue, readiness);
        let mut newer_version = pin!(newer(version.number));
        let mut subscription_refused = pin!(subscription_refused(transport.link()));
        let mut reported = pin!(follow(subscription.served(), |state| {
            // A queue that this worker leaves for good is no longer listed.
            if !stop.is_cancelled() {
                report(queue, readiness, state);
            }
        }));
        let mut timer = pin!(sleep(OFFER_EXPIRY_INTERVAL));
        loop {
            tokio::select! {
                // Reasons to leave are polled before messages, so that a busy queue can be left.
                biased;
                () = &mut stopped => return LeaveReason::Stopped,
                () = &mut failed => return LeaveReason::DatabaseUnavailable,
                () = &mut subscription_refused => return LeaveReason::SubscriptionRefused,
                next = &mut newer_version => {
                    adopt(queue, readiness, &next);
                    queue.set_served(next.number);
                    failed.set(failure(&next));
                    newer_version.set(newer(next.number));
                    *version = next;
                }
                () = &mut reported => {}
                message = subscription.next() => match message {
                    Some(message) => queue.on_message(message),
                    None => return LeaveReason::Closed,
                },
                () = queue.backlog_grew() => {}
                () = &mut timer => {}
            }
            let fires_at = timer.deadline();
            if fires_at <= Instant::now() || queue.next_expiry().is_some_and(|at| at < fires_at) {
                let next = queue.expire();
                let latest = Instant::now() + OFFER_EXPIRY_INTERVAL;
                timer.as_mut().reset(next.map_or(latest, |at| at.min(latest)));
            }
        }
    }

    /// Leaves the group. The server sends a limited number of further messages, which are refused.
    ///
    /// Leaving is complete when no message has arrived for a while, and none while a probe travels
    /// to the server and back. Silence alone is not enough: the server may be stalled.
    async fn leave(&self, mut subscription: Box<dyn Subscription>) {
        let GroupMembership { queue: own, transport, executor, .. } = &self.membership;
        let queue = &own.subjects.name;
        let (messages_max, quiet_time) = {
            let config = executor.config();
            (config.unsubscribe_messages_max, config.unsubscribe_quiet_time)
        };
        if let Err(error) = subscription.leave_after(messages_max).await {
            tracing::warn!(%queue, %error, "could not leave the queue group cleanly");
        }
        let end = Instant::now() + self.version.leave_timeout;
        let arrive = |message| own.on_message(message);
        while read_until_silent(&mut subscription, quiet_time, end, arrive).await {
            let left = end.saturating_duration_since(Instant::now());
            let mut flushed = pin!(transport.flush_within(left));
            let mut ended = pin!(sleep_until(end));
            let mut is_silent = true;
            let flushed = loop {
                tokio::select! {
                    biased;
                    () = &mut ended => break Err(TransportError::TimedOut),
                    message = subscription.next() => match message {
                        Some(message) => {
                            is_silent = false;
                            own.on_message(message);
                        }
                        None => return,
                    },
                    flushed = &mut flushed => break flushed,
                }
            };
            match flushed {
                Ok(()) if is_silent => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%queue, %error, "could not verify that the queue group was left");
                    return;
                }
            }
        }
    }

    fn report(&self, state: Result<(), String>) {
        let GroupMembership { queue, readiness, stop, .. } = &self.membership;
        if let Err(problem) = &state
            && self.version.number == self.membership.versions.borrow().number
        {
            queue.set_problem(problem);
        }
        // A queue that this worker leaves for good is no longer listed.
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

/// Reads messages until none has arrived for `idle`, or until `end`. Returns `false` at the end of
/// the stream.
async fn read_until_silent(
    messages: &mut (impl Stream<Item = Message> + Unpin),
    idle: Duration,
    end: Instant,
    mut arrive: impl FnMut(Message),
) -> bool {
    while Instant::now() < end
        && let Ok(message) = timeout(idle, messages.next()).await
    {
        let Some(message) = message else { return false };
        arrive(message);
    }
    true
}

fn report(queue: &Queue, readiness: &QueueReadiness, state: Result<(), String>) {
    let name = &queue.subjects.name;
    let is_ready = if state.is_ok() { 1.0 } else { 0.0 };
    gauge(&names::WORKER_QUEUE_READY, &[(names::QUEUE, name.to_string())]).set(is_ready);
    readiness.set(name.as_str(), state);
}

/// Reports whether the subscription is served, now and after every change. Never returns.
async fn follow(mut served: watch::Receiver<bool>, report: impl Fn(Result<(), String>)) {
    loop {
        let is_served = *served.borrow_and_update();
        report(if is_served { Ok(()) } else { Err(SUBSCRIPTION_REFUSED.to_owned()) });
        if served.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until NATS refuses a subscription that the worker needs.
async fn subscription_refused(mut link: watch::Receiver<Link>) {
    if link.wait_for(|link| link.state == LinkState::SubscriptionRefused).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Serves a version of a queue from now on.
fn adopt(queue: &Queue, readiness: &QueueReadiness, version: &QueueVersion) {
    queue.adopt(version);
    readiness.note_reloaded(queue.subjects.name.as_str(), None);
}

/// Reports why the newest version of a queue is not served.
fn note_pending(queue: &Queue, readiness: &QueueReadiness, why: &str) {
    queue.set_problem(why);
    readiness.note_reloaded(queue.subjects.name.as_str(), Some(why.to_owned()));
}

/// Waits for a version after `number` that the database has verified. Meanwhile, reports why it is
/// not served. Never returns if there is none.
async fn next_version(
    mut versions: watch::Receiver<Arc<QueueVersion>>,
    number: u64,
    queue: &Queue,
    readiness: &QueueReadiness,
) -> Arc<QueueVersion> {
    let mut newest = number;
    loop {
        let next = versions.wait_for(|version| version.number > newest).await;
        let Ok(next) = next.map(|version| Arc::clone(&version)) else {
            return std::future::pending().await;
        };
        newest = next.number;
        let verified = verified(&next, |why| note_pending(queue, readiness, why));
        tokio::select! {
            () = verified => return next,
            // A later reload replaces this version. If the worker stops, its sender is dropped.
            Ok(_) = versions.wait_for(|version| version.number > newest) => {}
        }
    }
}

/// Waits until the database has verified a version, and reports why it has not.
async fn verified(version: &QueueVersion, report: impl Fn(&str)) {
    while let Some(why) = version.problem() {
        report(&why);
        version.verification_changed(Some(&why)).await;
    }
}

/// Waits for another version. Never returns if there can be none.
async fn changed(versions: &mut watch::Receiver<Arc<QueueVersion>>) {
    if versions.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Subject;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn reading_ends_in_time_even_if_messages_keep_arriving() {
        let subject = Subject::new("q").unwrap();
        let mut endless = Box::pin(futures_util::stream::repeat(subject).then(async |subject| {
            tokio::task::yield_now().await;
            Message::to(subject)
        }));
        let mut arrived = 0_u64;
        let read = read_until_silent(&mut endless, SHORT, Instant::now() + SHORT, |_| arrived += 1);
        assert!(timeout(SHORT * 100, read).await.unwrap());
        assert!(arrived > 0);
    }
}
