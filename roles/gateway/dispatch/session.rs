//! The session of a request: a state machine that accepts events and the current time, and returns
//! actions.
//!
//! A session does no I/O and reads no clock, so that the simulation in `tests/` can run this code. `session_driver.rs`
//! connects a session to its queue. `session_task.rs` carries out its actions.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{Execution, OnDisconnect};
use crate::envelope::{Control, Final, Reply};
use crate::problem::ProblemKind;

mod attempts;
mod claim;
mod deadlines;
mod events;
mod replies;
mod retry;
mod streaming;

use attempts::{Attempts, OpenAttempt};
use claim::Grant;
pub use events::{
    Destination, PublishFailure, ResubmitReason, SessionAction, SessionEnd, SessionEvent,
    WaitReason,
};
use streaming::AnswerStream;

/// The properties of one request's session, fixed when it starts.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Whether the request may be executed more than once.
    pub execution: Execution,
    /// Whether a granted call is cancelled when the client disconnects.
    pub on_disconnect: OnDisconnect,
    /// The time within which a worker must accept the request.
    pub timeout: Duration,
    /// The time within which the session must end.
    pub session: Duration,
    /// The maximum number of attempts, including the first. Refused attempts do not count.
    pub attempts: u32,
    /// The wait for the first reply to the first attempt. Later attempts wait at least as long.
    pub accept_timeout: Duration,
    /// The time for which a worker that is running the call can be silent before it counts as lost.
    pub progress_timeout: Duration,
    /// The maximum size, in bytes, of an answer that is assembled from parts.
    pub answer_bytes_max: usize,
    /// Whether the parts of an answer are kept. If not, an answer in parts has no body.
    pub keeps_answer: bool,
    /// The number of parts that may be in transit to the client. With 0, the answer is assembled.
    pub window: u32,
}

/// The time that an attempt needs, estimated from earlier calls to the same endpoint and from the round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptEstimate {
    /// The time until the first reply to the attempt.
    pub first_reply: Duration,
    /// The time until the answer to the attempt.
    pub answer: Duration,
}

#[derive(Debug)]
enum State {
    /// The request is waiting in the queue or for the link.
    Waiting,
    /// The attempt was published, and no worker has replied to it yet.
    Sent { attempt: u32, retry_at: Instant },
    /// A worker is running the call.
    Running { attempt: u32, lost_at: Instant },
    /// The session has ended.
    Ended,
}

/// One request's session.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    state: State,
    /// The time by which a worker must accept the request. After this time, the request is not sent again.
    accept_deadline: Instant,
    /// The time at which the session ends.
    deadline: Instant,
    estimate: AttemptEstimate,
    wait_reason: WaitReason,
    attempts: Attempts,
    /// The permission to execute an at-most-once request. The session grants it once, and again only
    /// if the worker reports that the granted job never started.
    grant: Option<Grant>,
    /// The answer that is being streamed. While it is set, replies to other attempts are not used.
    stream: Option<AnswerStream>,
    /// Whether the client has disconnected and the session continues only to let the call finish.
    client_left: bool,
    resubmissions: u32,
    immediate_retries: u32,
    sent_at: Instant,
    /// The latest attempt, if it was sent to an offered slot.
    attempt_at_offered_slot: Option<u32>,
    assembled_bytes: usize,
}

/// The inputs and outputs of one step: the time, the retry budget and the list of actions.
pub struct StepContext<'a> {
    /// The current time.
    pub now: Instant,
    /// Withdraws one resubmission from the retry budget, or returns `false` if it is exhausted.
    pub may_resubmit: &'a mut dyn FnMut() -> bool,
    /// The list to which the actions are added, in order.
    pub actions: &'a mut Vec<SessionAction>,
}

impl std::fmt::Debug for StepContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepContext").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Session {
    /// Creates a session for a request that was read at `now`.
    #[must_use]
    pub fn new(options: SessionOptions, now: Instant) -> Self {
        Self {
            state: State::Waiting,
            accept_deadline: now + options.timeout,
            deadline: now + options.session.max(options.timeout),
            estimate: AttemptEstimate::default(),
            wait_reason: WaitReason::NoReply,
            attempts: Attempts::new(options.answer_bytes_max, options.keeps_answer),
            grant: None,
            stream: None,
            client_left: false,
            resubmissions: 0,
            immediate_retries: 0,
            sent_at: now,
            attempt_at_offered_slot: None,
            assembled_bytes: 0,
            options,
        }
    }

    /// Returns whether the session has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Returns whether the session is waiting in the queue or for the link.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Returns whether a worker has accepted the request and is running it.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Returns whether the session is waiting only for the link.
    #[must_use]
    pub fn awaits_link(&self) -> bool {
        self.is_waiting() && self.wait_reason == WaitReason::BusDown
    }

    /// Resets the count of refusals, because a member accepts requests. Many other members may still refuse them.
    pub fn forget_refusals(&mut self) {
        self.immediate_retries = 0;
    }

    /// Sets the reason why the session is waiting, after other sessions have determined a new reason. Does nothing if
    /// the session is not waiting.
    pub fn set_wait_reason(&mut self, reason: WaitReason) {
        if self.is_waiting() {
            self.wait_reason = reason;
        }
    }

    /// Returns the time at which the latest attempt was sent. The time before that counts as queue wait, even if an
    /// earlier attempt was sent and got no reply.
    #[must_use]
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// Returns whether this part of an attempt's answer has been received before.
    #[must_use]
    pub fn has_part(&self, attempt: u32, part: u32) -> bool {
        self.attempts.has_part(attempt, part)
    }

    /// Returns the size in bytes of the answer if it was assembled from parts, and 0 otherwise.
    #[must_use]
    pub fn assembled_bytes(&self) -> usize {
        self.assembled_bytes
    }

    /// Returns when an attempt was sent, unless it has been refused or answered.
    #[must_use]
    pub fn attempt_sent_at(&self, attempt: u32) -> Option<Instant> {
        self.attempts.sent_at(attempt)
    }

    /// Returns the time within which a worker must accept the request.
    #[must_use]
    pub fn time_to_accept(&self, now: Instant) -> Duration {
        self.accept_deadline.saturating_duration_since(now)
    }

    /// Returns the number of attempts made so far.
    #[must_use]
    pub fn attempts_made(&self) -> u32 {
        self.attempts.made()
    }

    /// Handles one event. After the session has ended, it only denies claims and declines offers.
    pub fn step(&mut self, event: SessionEvent, context: &mut StepContext<'_>) {
        if self.has_ended() {
            return self.step_after_end(event, context);
        }
        match event {
            SessionEvent::Start { is_linked: false, .. } => {
                self.wait(WaitReason::BusDown, context);
            }
            SessionEvent::Start { wait_for: Some(reason), .. } => self.wait(reason, context),
            SessionEvent::Start { .. } => self.send(Destination::Group, context),
            SessionEvent::SendToGroup if self.may_start(context.now) => {
                self.leave_queue_and_send(Destination::Group, context);
            }
            SessionEvent::SendToGroup | SessionEvent::QueueFull if !self.is_waiting() => {}
            SessionEvent::SendToGroup => self.end_at_deadline(context),
            SessionEvent::QueueFull => self.overloaded(context),
            SessionEvent::SlotOffered(slot) if self.may_start(context.now) => {
                self.leave_queue_and_send(Destination::OfferedSlot(slot), context);
            }
            SessionEvent::SlotOffered(to) => {
                context.actions.push(SessionAction::SendControl { to, control: Control::Decline });
            }
            SessionEvent::Reply { attempt, reply: Ok(reply) } => {
                self.on_reply(attempt, reply, context);
            }
            SessionEvent::Reply { attempt, reply: Err(_) }
            | SessionEvent::ReplyDropped { attempt } => self.on_unusable_reply(attempt, context),
            SessionEvent::PublishFailed { attempt, failure } => {
                self.on_publish_failed(attempt, failure, context);
            }
            SessionEvent::ChunksConsumed(chunks) => self.chunks_consumed(chunks, context),
            SessionEvent::ClientGone => self.client_gone(context),
            SessionEvent::Timer => self.on_timer(context),
        }
    }

    /// Handles an event after the end of the session. Declines offers, so that no slot stays reserved,
    /// and denies claims. A repeated claim of the granted job gets no answer.
    fn step_after_end(&self, event: SessionEvent, context: &mut StepContext<'_>) {
        match event {
            SessionEvent::SlotOffered(to)
            | SessionEvent::Reply { reply: Ok(Reply::Offer { direct: to }), .. } => {
                context.actions.push(SessionAction::SendControl { to, control: Control::Decline });
            }
            SessionEvent::Reply { reply: Ok(Reply::Claim { control: to }), .. } => {
                let is_granted = self.grant.as_ref().is_some_and(|grant| grant.was_given_to(&to));
                if !is_granted {
                    context.actions.push(SessionAction::SendControl { to, control: Control::Deny });
                }
            }
            _ => {}
        }
    }

    fn is_sent(&self, attempt: u32) -> bool {
        matches!(self.state, State::Sent { attempt: current, .. } if current == attempt)
    }

    fn is_running(&self, attempt: u32) -> bool {
        matches!(self.state, State::Running { attempt: current, .. } if current == attempt)
    }

    fn wait(&mut self, reason: WaitReason, context: &mut StepContext<'_>) {
        self.wait_reason = reason;
        if context.now >= self.waiting_deadline() {
            // The request would leave the queue at once, and must not take the place of another one.
            return self.end_at_deadline(context);
        }
        self.state = State::Waiting;
        context.actions.push(SessionAction::JoinQueue(reason));
    }

    fn leave_queue_and_send(&mut self, to: Destination, context: &mut StepContext<'_>) {
        context.actions.push(SessionAction::LeaveQueue);
        self.send(to, context);
    }

    fn send(&mut self, to: Destination, context: &mut StepContext<'_>) {
        let attempt = self.attempts.open(context.now);
        let is_offered = matches!(to, Destination::OfferedSlot(_));
        self.attempt_at_offered_slot = is_offered.then_some(attempt);
        let retry_at = context.now + self.first_reply_timeout(context.now);
        self.state = State::Sent { attempt, retry_at };
        self.sent_at = context.now;
        let budget = self.deadline.saturating_duration_since(context.now);
        context.actions.push(SessionAction::Publish { attempt, to, budget });
    }

    /// Handles a full wait queue or an exhausted byte budget. If an attempt may have been executed, the session still
    /// waits for its answer. Otherwise, the session ends.
    fn overloaded(&mut self, context: &mut StepContext<'_>) {
        if self.attempts.none_open() {
            return self.end(SessionEnd::Problem(ProblemKind::Overloaded), context);
        }
        context.actions.push(SessionAction::LeaveQueue);
        let retry_at = self.first_reply_deadline();
        self.state = State::Sent { attempt: self.attempts.made(), retry_at };
    }

    fn client_gone(&mut self, context: &mut StepContext<'_>) {
        match (&self.grant, self.options.execution, self.options.on_disconnect) {
            (Some(_), Execution::AtMostOnce, OnDisconnect::Finish) => {
                self.discard_answer(context);
            }
            (None, Execution::AtMostOnce, _) => self.end(SessionEnd::ClientGone, context),
            _ => {
                self.cancel_all(context);
                self.end(SessionEnd::ClientGone, context);
            }
        }
    }

    /// Cancels every attempt that may be running.
    fn cancel_all(&mut self, context: &mut StepContext<'_>) {
        context.actions.extend(self.attempts.drain_open().map(cancel));
    }

    /// Cancels all attempts except one, because the other copies are no longer needed.
    fn cancel_others(&mut self, attempt: u32, context: &mut StepContext<'_>) {
        context.actions.extend(self.attempts.drain_others(attempt).map(cancel));
    }

    fn end(&mut self, end: SessionEnd, context: &mut StepContext<'_>) {
        if self.is_waiting() {
            context.actions.push(SessionAction::LeaveQueue);
        }
        self.state = State::Ended;
        context.actions.push(SessionAction::End(self.end_of_stream(end)));
    }

    fn answer(&mut self, answer: Final, context: &mut StepContext<'_>) {
        // Other copies of an at-least-once request may still run, but are no longer needed.
        if self.options.execution == Execution::AtLeastOnce {
            self.cancel_all(context);
        }
        self.end(SessionEnd::Answer(answer), context);
    }
}

fn cancel(attempt: OpenAttempt) -> SessionAction {
    match attempt.control {
        Some(to) => SessionAction::SendControl { to, control: Control::Cancel },
        None => SessionAction::BroadcastCancel { attempt: attempt.number },
    }
}
