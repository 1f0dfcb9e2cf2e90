//! Reads the messages of a joined queue group until there is a reason to leave it, and leaves it without losing a message.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::limits::OFFER_EXPIRY_INTERVAL;
use crate::message::Message;
use crate::messaging::{Link, LinkState, Subscription, TransportError};
use crate::roles::worker::observation::readiness::QueueReadiness;

use super::super::queue::Queue;
use super::super::version::QueueVersion;
use super::{
    GroupMembership, SUBSCRIPTION_REFUSED, VersionedMembership, adopt, note_pending, report,
};

/// The reason for leaving a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveReason {
    /// The worker is stopping.
    Stopped,
    /// The database does not answer, or no longer has the procedures.
    DatabaseUnavailable,
    /// NATS refuses a subscription that the worker needs, for example for grants and cancels.
    SubscriptionRefused,
    /// The transport has closed the subscription.
    Closed,
}

impl VersionedMembership {
    /// Reads messages until there is a reason to leave the group, then leaves it.
    pub(super) async fn read(&mut self, mut subscription: Box<dyn Subscription>) -> LeaveReason {
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
        // These futures are created only once, because creating them for each message would dominate its cost.
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
            // A queue that this worker has left for good must not be reported.
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
    /// Leaving is complete when no message has arrived for a while, and a probe has travelled to the server and back
    /// without a message arriving in between. Silence alone is not enough, because the server may be stalled.
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
}

/// Reads messages until none has arrived for `idle`, or until `end`. Returns `false` when the stream has ended.
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

/// Waits for a version after `number` that the database has verified. Meanwhile, reports why the newest version is not
/// served. Never returns if there is no such version.
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
            // A later reload replaces this version. If the worker stops, the sender of the versions is dropped, and
            // this branch is disabled.
            Ok(_) = versions.wait_for(|version| version.number > newest) => {}
        }
    }
}

/// Waits until the database has verified a version, and meanwhile reports why the database has not verified it.
async fn verified(version: &QueueVersion, report: impl Fn(&str)) {
    while let Some(why) = version.problem() {
        report(&why);
        version.verification_changed(Some(&why)).await;
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
