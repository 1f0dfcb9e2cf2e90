//! One session's position in the wait queue, and when it may try the group.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::roles::gateway::dispatch::message::SessionMessage;
use crate::roles::gateway::dispatch::queues::wait_queue::{WaitQueue, WaiterId};
use crate::roles::gateway::dispatch::session::WaitReason;

use super::DriverContext;

/// A waiter of a wait queue. As the head of the queue it tries the group again and again, at growing intervals.
#[derive(Debug)]
pub(super) struct QueueWaiter {
    signals: mpsc::Sender<SessionMessage>,
    /// Its position, which it keeps while it tries the group.
    id: Option<WaiterId>,
    try_at: Option<Instant>,
    tries: u32,
    /// Whether its latest attempt was such a try, and not the use of an offered slot.
    is_trying: bool,
}

impl QueueWaiter {
    /// Creates a waiter without a position. It gets its signals through `signals`.
    pub(super) fn new(signals: mpsc::Sender<SessionMessage>) -> Self {
        Self { signals, id: None, try_at: None, tries: 0, is_trying: false }
    }

    /// Returns when it tries the group, if it is the head.
    pub(super) fn try_at(&self) -> Option<Instant> {
        self.try_at
    }

    /// Joins the queue, in its old position if it has one. Returns `false` if the queue is full.
    pub(super) fn join(
        &mut self,
        queue: &WaitQueue,
        reason: WaitReason,
        waiting_max: usize,
    ) -> bool {
        self.try_at = None;
        self.id = queue.join(self.id, reason, self.signals.clone(), waiting_max);
        self.id.is_some()
    }

    /// Leaves the queue and remembers the position.
    pub(super) fn leave(&mut self, queue: &WaitQueue) {
        self.try_at = None;
        if let Some(id) = self.id {
            queue.leave(id);
        }
    }

    /// It has become the head: it tries the group after a delay. The delay grows exponentially, with jitter so that many
    /// gateways do not try in step, and is never shorter than a round trip.
    pub(super) fn on_head(&mut self, round_trip: Duration, context: &mut DriverContext<'_>) {
        let config = context.config;
        let delay = config
            .probe_delay_min
            .saturating_mul(1 << self.tries.min(16))
            .min(config.probe_delay_max)
            .max(round_trip);
        let jitter = f64::midpoint(1.0, (context.random)());
        self.try_at = Some(context.now + delay.mul_f64(jitter));
    }

    /// The link is up again: it tries the group at once.
    pub(super) fn try_now(&mut self, now: Instant) {
        self.try_at = Some(now);
    }

    /// It was offered a slot.
    pub(super) fn on_offer(&mut self) {
        self.is_trying = false;
    }

    /// Returns whether to try the group now: the delay is over, and it is still the head.
    pub(super) fn on_timer(&mut self, queue: &WaitQueue, context: &DriverContext<'_>) -> bool {
        if self.try_at.is_none_or(|try_at| context.now < try_at) {
            return false;
        }
        self.try_at = None;
        if !self.id.is_some_and(|id| queue.is_head(id)) {
            return false;
        }
        if context.is_linked {
            self.tries += 1;
            self.is_trying = true;
            return true;
        }
        self.try_at = Some(context.now + context.config.probe_delay_max);
        false
    }

    /// A worker runs the call, so it waits no longer.
    pub(super) fn on_accepted(&mut self, queue: &WaitQueue, now: Instant) {
        if self.id.take().is_some() && self.is_trying {
            queue.record_dequeue(now);
        }
    }
}
