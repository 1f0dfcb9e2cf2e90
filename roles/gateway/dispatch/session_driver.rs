//! Connects one session to its queue, without I/O: waits for a slot, chooses the recipient of each
//! attempt, and learns about the workers from their replies.
//!
//! Like a session, a driver accepts events and the current time, and returns actions. In the
//! gateway, `session_task.rs` carries out these actions. The simulation in `tests/` carries them
//! out on a simulated network.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::catalogue::EndpointId;
use crate::config::gateway::SessionConfig;
use crate::envelope::{Control, Reply};
use crate::message::Subject;
use crate::problem::Effect;
use crate::telemetry::{counter, names};

use super::message::{AttemptReply, QueueSignal, SessionMessage};
use super::queues::GatewayQueue;
use super::queues::deliveries::{Delivery, DeliveryPhase};
use super::queues::members::Recipient;
use super::retry_budget::RetryBudget;
use super::session::{
    Destination, PublishFailure, Session, SessionAction, SessionEnd, SessionEvent, SessionOptions,
    StepContext, WaitReason,
};

mod events;
mod learning;
mod waiter;

pub use events::{DriverAction, DriverEvent};
pub use waiter::QueueWaiter;

/// The gateway state that a session driver needs at each step.
pub struct DriverContext<'a> {
    /// The current time.
    pub now: Instant,
    /// The current configuration.
    pub config: &'a SessionConfig,
    /// The retry budget of all sessions.
    pub retry_budget: &'a RetryBudget,
    /// Whether the link to the bus is up.
    pub is_linked: bool,
    /// Whether the byte budget has room for another answer.
    pub has_answer_memory: &'a dyn Fn() -> bool,
    /// The source of random numbers from 0 to 1.
    pub random: &'a mut dyn FnMut() -> f64,
}

impl std::fmt::Debug for DriverContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverContext").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The durations of a session that has ended, and the messages still to be sent.
#[derive(Debug)]
pub struct ClosedSession {
    /// The delay after which to retry a request that was certainly not executed.
    pub retry_after: Option<Duration>,
    /// The wait until the last attempt was sent or, after a 503, until the session ended.
    pub queue_wait: Duration,
    /// The time from the end of that wait to the end of the session.
    pub exchange_time: Duration,
    /// The replies to claims and offers that the session did not handle before its end.
    pub messages: Vec<(Subject, Control)>,
}

/// One session, connected to its queue.
#[derive(Debug)]
pub struct SessionDriver {
    queue: Arc<GatewayQueue>,
    endpoint: EndpointId,
    session: Session,
    waiter: QueueWaiter,
    delivery: Delivery,
    started_at: Instant,
    actions: Vec<SessionAction>,
    next_action: usize,
    /// The recipient of the latest attempt, until the attempt gets a reply or times out. `None` if
    /// the attempt was sent to an offered slot.
    recipient: Option<Recipient>,
    /// The latest attempt to the group that got no reply in time.
    unanswered: Option<u32>,
    /// The latest attempt that got a reply.
    replied: u32,
    /// Before this time, a silent worker is not treated as lost.
    silence_excused_until: Instant,
}

impl SessionDriver {
    /// Creates a driver for a request read at `now`.
    #[must_use]
    pub fn new(
        queue: Arc<GatewayQueue>,
        endpoint: EndpointId,
        options: SessionOptions,
        waiter: QueueWaiter,
        now: Instant,
    ) -> Self {
        Self {
            delivery: Delivery::new(&queue.deliveries, options.session),
            queue,
            endpoint,
            session: Session::new(options, now),
            waiter,
            started_at: now,
            actions: Vec::with_capacity(2),
            next_action: 0,
            recipient: None,
            unanswered: None,
            replied: 0,
            silence_excused_until: now,
        }
    }

    /// Returns the queue.
    #[must_use]
    pub fn queue(&self) -> &Arc<GatewayQueue> {
        &self.queue
    }

    /// Returns the session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns when the next `Timer` event is due.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        let session = self.session_wake_at();
        self.waiter.try_at().map_or(session, |try_at| try_at.min(session))
    }

    /// Returns whether the driver is waiting for a `LinkUp` event.
    #[must_use]
    pub fn awaits_link(&self) -> bool {
        self.session.awaits_link() && self.waiter.try_at().is_some()
    }

    /// Handles one event. `next_action` then returns the resulting actions.
    pub fn handle(&mut self, event: DriverEvent, context: &mut DriverContext<'_>) {
        let session_event = match event {
            DriverEvent::Start { may_send_to_group } => {
                let wait_for =
                    (!may_send_to_group).then(|| self.queue.wait_queue.unregistered_reason());
                SessionEvent::Start { is_linked: context.is_linked, wait_for }
            }
            DriverEvent::Reply(reply) => self.learn(reply, context),
            DriverEvent::Signal(QueueSignal::Head) => {
                let round_trip = self.queue.timing.round_trip();
                return self.waiter.on_head(round_trip, context);
            }
            DriverEvent::Signal(QueueSignal::SendToGroup) if context.is_linked => {
                self.session.forget_refusals();
                self.waiter.on_wake();
                SessionEvent::SendToGroup
            }
            DriverEvent::Signal(QueueSignal::SendToGroup) => return,
            DriverEvent::Signal(QueueSignal::QueueFull) => {
                count_rejection("queue");
                SessionEvent::QueueFull
            }
            DriverEvent::Signal(QueueSignal::SlotOffered(slot)) => {
                self.waiter.on_offer();
                SessionEvent::SlotOffered(slot)
            }
            DriverEvent::PublishFailed { attempt, failure } => {
                SessionEvent::PublishFailed { attempt, failure }
            }
            DriverEvent::ChunksConsumed(chunks) => SessionEvent::ChunksConsumed(chunks),
            DriverEvent::ClientGone => SessionEvent::ClientGone,
            DriverEvent::LinkUp => return self.waiter.try_now(context.now),
            DriverEvent::Timer { silence_excused_until } => {
                let Some(event) = self.on_timer(silence_excused_until, context) else { return };
                event
            }
        };
        self.step(session_event, context);
    }

    /// Returns the next action, or `None` when the driver needs the next event.
    pub fn next_action(&mut self, context: &mut DriverContext<'_>) -> Option<DriverAction> {
        while let Some(action) = self.actions.get_mut(self.next_action) {
            let action = std::mem::replace(action, SessionAction::LeaveQueue);
            self.next_action += 1;
            let action = match action {
                SessionAction::Publish { attempt, to, budget } => {
                    self.publish(attempt, to, budget, context)
                }
                SessionAction::SendControl { to, control } => {
                    Some(DriverAction::SendControl { to, control })
                }
                SessionAction::BroadcastCancel { attempt } => {
                    Some(DriverAction::BroadcastCancel { attempt })
                }
                SessionAction::JoinQueue(reason) => {
                    self.join_queue(reason, context);
                    None
                }
                SessionAction::LeaveQueue => {
                    let next = self.actions.get(self.next_action);
                    let to_send = matches!(next, Some(SessionAction::Publish { .. }));
                    self.waiter.leave(&self.queue.wait_queue, to_send);
                    None
                }
                SessionAction::NoReply(attempt) => {
                    let next = self.actions.get(self.next_action);
                    let is_resent = matches!(next, Some(SessionAction::CountResubmission(_)));
                    self.on_no_reply(attempt, is_resent, context.now)
                }
                SessionAction::CountResubmission(reason) => {
                    let label = [(names::REASON, reason.as_str().to_owned())];
                    counter(&names::GATEWAY_RESUBMISSIONS, &label).increment(1);
                    None
                }
                SessionAction::BeginAnswer(head) => Some(DriverAction::BeginAnswer(head)),
                SessionAction::SendChunk(bytes) => Some(DriverAction::SendChunk(bytes)),
                SessionAction::End(end) => Some(DriverAction::End(end)),
            };
            if action.is_some() {
                return action;
            }
        }
        self.actions.clear();
        self.next_action = 0;
        let phase = if self.session.is_waiting() || self.session.has_ended() {
            DeliveryPhase::Idle
        } else if self.session.is_accepted() {
            DeliveryPhase::Accepted
        } else {
            DeliveryPhase::Unaccepted
        };
        self.delivery.set(phase, context.now);
        None
    }

    /// Closes the session after its end: leaves the queue and answers the unread messages.
    pub fn close(
        &mut self,
        end: &SessionEnd,
        messages: &mut mpsc::Receiver<SessionMessage>,
        now: Instant,
    ) -> ClosedSession {
        self.waiter.leave(&self.queue.wait_queue, false);
        self.delivery.end(events::delivery_end(end), now);
        messages.close();
        let mut replies = Vec::new();
        while let Ok(message) = messages.try_recv() {
            match message {
                SessionMessage::Signal(QueueSignal::SlotOffered(slot)) => {
                    if let Err(slot) = self.queue.wait_queue.offer(slot, now) {
                        replies.push((slot, Control::Decline));
                    }
                }
                SessionMessage::Reply(AttemptReply {
                    reply: Ok(Reply::Claim { control }), ..
                }) => replies.push((control, Control::Deny)),
                SessionMessage::Reply(_) => {
                    counter(&names::GATEWAY_LATE_REPLIES, &[]).increment(1);
                }
                SessionMessage::Signal(_) => {}
            }
        }
        let problem = match end {
            SessionEnd::Problem(kind) => Some(kind.definition()),
            _ => None,
        };
        let was_not_executed = problem.is_some_and(|problem| problem.effect == Effect::NotExecuted);
        let status = problem.map(|problem| problem.status);
        if status == Some(StatusCode::GATEWAY_TIMEOUT) && !was_not_executed {
            // The call takes longer than this, but it is not known how much longer.
            let duration = now.saturating_duration_since(self.session.sent_at());
            self.queue.timing.record_answer(&self.endpoint, duration);
        }
        // A request that is too large (413) would fail again.
        let may_retry = was_not_executed && status.is_some_and(|status| status.is_server_error());
        let caller = self.waiter.caller();
        let retry_after = may_retry.then(|| self.queue.wait_queue.retry_after(caller, now));
        let wait_end = if was_not_executed { now } else { self.session.sent_at() };
        let queue_wait = wait_end.saturating_duration_since(self.started_at);
        self.queue.metrics.wait.record(queue_wait.as_secs_f64());
        let exchange_time = now.saturating_duration_since(wait_end);
        ClosedSession { retry_after, queue_wait, exchange_time, messages: replies }
    }

    fn session_wake_at(&self) -> Instant {
        self.session.wake_at().max(self.silence_excused_until)
    }

    fn step(&mut self, event: SessionEvent, context: &mut DriverContext<'_>) {
        let (now, retry_budget) = (context.now, context.retry_budget);
        self.session.step(
            event,
            &mut StepContext {
                now,
                may_resubmit: &mut || retry_budget.withdraw(now),
                actions: &mut self.actions,
            },
        );
    }

    fn on_timer(
        &mut self,
        silence_excused_until: Option<Instant>,
        context: &mut DriverContext<'_>,
    ) -> Option<SessionEvent> {
        let now = context.now;
        if self.waiter.try_at().is_some_and(|try_at| try_at < self.session_wake_at()) {
            let may_try = self.waiter.on_timer(&self.queue.wait_queue, context);
            return may_try.then_some(SessionEvent::SendToGroup);
        }
        if now < self.silence_excused_until {
            return None;
        }
        if let Some(excused_until) = silence_excused_until
            && let Some(end) = self.session.silence_may_last_until()
        {
            self.silence_excused_until = excused_until.min(end);
            if now < self.silence_excused_until {
                return None;
            }
        }
        if let Some(reason) = self.waiter.reason(&self.queue.wait_queue) {
            self.session.set_wait_reason(reason);
        }
        Some(SessionEvent::Timer)
    }

    fn join_queue(&mut self, reason: WaitReason, context: &mut DriverContext<'_>) {
        self.session.set_estimate(self.queue.timing.estimate(&self.endpoint));
        let waiting_max = context.config.waiting_max;
        if !self.waiter.join(&self.queue.wait_queue, reason, waiting_max) {
            count_rejection("queue");
            self.step(SessionEvent::QueueFull, context);
        }
    }

    fn publish(
        &mut self,
        attempt: u32,
        to: Destination,
        budget: Duration,
        context: &mut DriverContext<'_>,
    ) -> Option<DriverAction> {
        if !(context.has_answer_memory)() {
            return self.publish_without_memory(attempt, to, context);
        }
        let to = match to {
            Destination::Group => {
                let recipient = self.queue.members.choose_recipient(context.now);
                let subject = match &recipient {
                    Recipient::Member(direct) => direct.clone(),
                    Recipient::Group | Recipient::GroupProbe => self.queue.subject.clone(),
                };
                self.recipient = Some(recipient);
                subject
            }
            Destination::OfferedSlot(slot) => {
                self.recipient = None;
                slot
            }
        };
        Some(DriverAction::Publish { attempt, to, budget })
    }

    /// Handles an attempt that is not published because there is no memory for its answer. An
    /// offered slot goes to the next waiter, or is declined.
    fn publish_without_memory(
        &mut self,
        attempt: u32,
        to: Destination,
        context: &mut DriverContext<'_>,
    ) -> Option<DriverAction> {
        let unused_slot = match to {
            Destination::OfferedSlot(slot) => self.queue.wait_queue.offer(slot, context.now).err(),
            Destination::Group => None,
        };
        let failure = PublishFailure::NoAnswerMemory;
        self.step(SessionEvent::PublishFailed { attempt, failure }, context);
        if self.session.has_ended() {
            count_rejection("buffered_bytes");
        }
        unused_slot.map(|to| DriverAction::SendControl { to, control: Control::Decline })
    }
}

/// Counts a request that is rejected because a limit is reached.
pub(super) fn count_rejection(limit: &str) {
    counter(&names::GATEWAY_SHED, &[(names::REASON, limit.to_owned())]).increment(1);
}

#[cfg(test)]
mod tests;
