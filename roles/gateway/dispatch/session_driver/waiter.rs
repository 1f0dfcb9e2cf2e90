//! One session's position in the wait queue, and the times at which it sends its request to the
//! queue group.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::roles::gateway::client::CallerKey;
use crate::roles::gateway::dispatch::message::SessionMessage;
use crate::roles::gateway::dispatch::queues::wait_queue::{WaitQueue, WaiterId};
use crate::roles::gateway::dispatch::session::WaitReason;

use super::DriverContext;

/// One session as a waiter in the wait queue. While it is the head of the queue, it sends its
/// request to the group at growing intervals.
#[derive(Debug)]
pub struct QueueWaiter {
    /// The caller whose turns in the queue the waiter uses.
    caller: CallerKey,
    signals: mpsc::Sender<SessionMessage>,
    /// The position in the queue, which the waiter keeps while it sends its request to the group.
    id: Option<WaiterId>,
    try_at: Option<Instant>,
    tries: u32,
    /// Whether the latest attempt was sent to the group, not to an offered slot.
    is_trying: bool,
}

impl QueueWaiter {
    /// Creates a waiter for a caller. It has no position yet. The wait queue sends its signals to `signals`.
    #[must_use]
    pub fn new(caller: CallerKey, signals: mpsc::Sender<SessionMessage>) -> Self {
        Self { caller, signals, id: None, try_at: None, tries: 0, is_trying: false }
    }

    /// Returns the caller.
    pub(super) fn caller(&self) -> CallerKey {
        self.caller
    }

    /// Returns when the waiter will send its request to the group, if it is the head.
    pub(super) fn try_at(&self) -> Option<Instant> {
        self.try_at
    }

    /// Joins the queue, at the old position if the waiter has one. Returns `false` if the queue is full.
    pub(super) fn join(
        &mut self,
        queue: &WaitQueue,
        reason: WaitReason,
        waiting_max: usize,
    ) -> bool {
        self.try_at = None;
        let waiter = (self.caller, self.id);
        self.id = queue.join(waiter, reason, self.signals.clone(), waiting_max);
        self.id.is_some()
    }

    /// Returns why the waiter is waiting, if the reason depends on replies that other sessions receive.
    pub(super) fn reason(&self, queue: &WaitQueue) -> Option<WaitReason> {
        let is_unregistered = self.id.is_some_and(|id| queue.is_unregistered(id));
        is_unregistered.then(|| queue.unregistered_reason())
    }

    /// Leaves the queue. A waiter that leaves to send its request uses its caller's turn. A later `join` restores its
    /// position and the turn.
    pub(super) fn leave(&mut self, queue: &WaitQueue, to_send: bool) {
        self.try_at = None;
        match self.id {
            Some(id) if to_send => self.id = Some(queue.take_turn(id)),
            Some(id) => queue.leave(id),
            None => {}
        }
    }

    /// Schedules the next attempt as the head. Before jitter, the delay grows exponentially and is
    /// at least one round trip. Jitter shortens it by up to half, so that gateways do not retry in
    /// lockstep.
    pub(super) fn on_head(&mut self, round_trip: Duration, context: &mut DriverContext<'_>) {
        let config = context.config;
        let delay = config
            .queue_retry_delay_min
            .saturating_mul(1 << self.tries.min(16))
            .min(config.queue_retry_delay_max)
            .max(round_trip);
        let jitter = f64::midpoint(1.0, (context.random)());
        self.try_at = Some(context.now + delay.mul_f64(jitter));
    }

    /// Schedules the next attempt immediately, because the link is up again.
    pub(super) fn try_now(&mut self, now: Instant) {
        self.try_at = Some(now);
    }

    /// Handles a signal that lets the waiter send its request to the group, although it may not be the head.
    pub(super) fn on_wake(&mut self) {
        self.is_trying = true;
    }

    pub(super) fn on_offer(&mut self) {
        self.is_trying = false;
    }

    /// Returns whether to send the request to the group now: the waiter is the head, its delay has
    /// passed, and the link is up.
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
        self.try_at = Some(context.now + context.config.queue_retry_delay_max);
        false
    }

    /// Gives up the position after a worker has accepted the request.
    pub(super) fn on_accepted(&mut self, queue: &WaitQueue, now: Instant) {
        if let Some(id) = self.id.take()
            && self.is_trying
        {
            queue.record_dequeue(id, now);
        }
    }
}
