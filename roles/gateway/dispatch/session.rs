//! One request's way through workers as a plain state machine: events and `now` in, actions out.
//!
//! No I/O and no clock in here, so that the simulation runs the same code as the gateway. The table of
//! DESIGN §5 is this file; `place.rs` carries its actions out.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::catalogue::{Execution, OnDisconnect};
use crate::envelope::{AnswerHead, Control, EnvelopeError, Final, RefusalReason, Reply};
use crate::message::Subject;
use crate::problem::ProblemKind;

use super::timing::Needs;

mod attempts;
mod ending;
mod hear;
mod stream;
mod waiting;

use attempts::Attempts;
pub use ending::Ending;
use stream::Stream;

/// Certain refusals (`draining`, `unavailable`) that are answered by asking again at once. More of them
/// in a row mean that the whole group is leaving, and asking waits like after `busy`.
const AT_ONCE_MAX: u32 = 8;

/// How much longer than the worker's own deadline we wait for what it says about it.
const ANSWER_GRACE: Duration = Duration::from_millis(100);

/// What holds for one request.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whether it may run twice.
    pub execution: Execution,
    /// What a leaving client means for a granted call.
    pub on_disconnect: OnDisconnect,
    /// How long it may wait for a worker to take it.
    pub timeout: Duration,
    /// The longest it is waited for at all.
    pub session: Duration,
    /// Attempts at most, the first included.
    pub attempts: u32,
    /// How long an attempt may be unheard of.
    pub accept_timeout: Duration,
    /// How long a running call may be silent.
    pub silence: Duration,
    /// Largest answer put together from parts.
    pub answer_bytes_max: usize,
    /// Whether its parts are wanted; without them an answer in parts has no body.
    pub keeps_answer: bool,
    /// Parts of an answer that may be on their way to the client; 0: it is put together first.
    pub window: u32,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// The request was read: place it. `false` when it has to wait its turn first.
    Start {
        /// Whether the link is up.
        linked: bool,
        /// Whether it may go to the group at once; otherwise the hold gives it its turn.
        free: bool,
    },
    /// The hold says: ask the group now.
    Ask,
    /// The hold has no place for this session.
    Full,
    /// The hold has a free slot for this session.
    Offered(Subject),
    /// A reply to one of its attempts.
    Heard {
        /// The attempt.
        attempt: u32,
        /// The reply, or why it cannot be read.
        reply: Result<Reply, EnvelopeError>,
    },
    /// Its answer or a part of it came, and there is no room for it.
    NoRoom {
        /// The attempt.
        attempt: u32,
    },
    /// What was to be published was certainly not sent.
    NotSent {
        /// The attempt.
        attempt: u32,
        /// Why.
        why: Unsent,
    },
    /// The client took the parts of its answer up to this one.
    Taken(u32),
    /// The client left.
    ClientGone,
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the request.
    Publish {
        /// The attempt's number: its replies are told apart by it.
        attempt: u32,
        /// Where to.
        to: Destination,
        /// The budget left.
        budget: Duration,
    },
    /// Tell one worker about its claim, job or offer.
    Tell {
        /// The worker's subject.
        to: Subject,
        /// What.
        control: Control,
    },
    /// Tell every worker of the queue to stop this attempt: nobody knows which one has it.
    CancelEverywhere {
        /// The attempt.
        attempt: u32,
    },
    /// Wait in the queue's hold for a turn.
    Hold(Why),
    /// Wait in the hold no longer.
    Unhold,
    /// Nothing was heard of an attempt for too long.
    Unheard(u32),
    /// The session counts a resubmission.
    Resubmitted(&'static str),
    /// The answer begins: what comes of it is passed on.
    Begin(AnswerHead),
    /// The next bytes of the answer that has begun.
    Pass(Bytes),
    /// The one answer, or the end of what has begun. Nothing comes after it.
    End(Ending),
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the queue group: one member gets it.
    Group,
    /// To the worker that offered a slot.
    Direct(Subject),
}

/// Why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The bus did not take it.
    BusDown,
    /// It is larger than the bus allows, so that trying again is no use.
    TooLarge,
    /// The byte budget has no room for its answer.
    NoRoom,
}

/// Why a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The workers asked so far were busy.
    Busy,
    /// The queue has no members.
    NoWorkers,
    /// The bus is not connected.
    BusDown,
    /// Nothing was heard of what was sent, and nothing was granted.
    Unheard,
}

#[derive(Debug)]
enum Phase {
    /// Waits for a turn, or for the link.
    Held,
    /// Published; nothing heard of this attempt yet.
    Sent { attempt: u32, until: Instant },
    /// A worker has it.
    Running { attempt: u32, lost_at: Instant },
    /// Answered.
    Done,
}

/// One request's session.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    phase: Phase,
    /// Until when it may wait to be taken.
    place_end: Instant,
    /// Until when it is waited for at all.
    end: Instant,
    /// What an attempt needs of that time.
    needs: Needs,
    why: Why,
    attempts: Attempts,
    /// The attempt whose worker may execute: given once in an at-most-once request's life, unless that
    /// very worker says that it never started.
    granted: Option<Granted>,
    /// The answer that has begun: from then on nothing else counts.
    stream: Option<Stream>,
    /// Whether the call only has to come to its end.
    client_left: bool,
    resubmissions: u32,
    at_once: u32,
    sent_at: Instant,
    /// The attempt that was sent last, when it went to an offered slot.
    direct: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Granted {
    attempt: u32,
    control: Option<Subject>,
}

/// What a step may use: the time, and whether a resubmission is within the retry budget.
pub struct Step<'a> {
    /// Now.
    pub now: Instant,
    /// Takes from the retry budget.
    pub may_resubmit: &'a mut dyn FnMut() -> bool,
    /// Where actions go.
    pub actions: &'a mut Vec<Action>,
}

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Session {
    /// A session for a request that was read at `now`.
    #[must_use]
    pub fn new(terms: Terms, now: Instant) -> Self {
        Self {
            phase: Phase::Held,
            place_end: now + terms.timeout,
            end: now + terms.session.max(terms.timeout),
            needs: Needs::default(),
            why: Why::Unheard,
            attempts: Attempts::new(terms.answer_bytes_max, terms.keeps_answer),
            granted: None,
            stream: None,
            client_left: false,
            resubmissions: 0,
            at_once: 0,
            sent_at: now,
            direct: None,
            terms,
        }
    }

    /// Whether the answer was given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether it waits for a turn or for the link.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held)
    }

    /// Whether it waits for the link and nothing else.
    #[must_use]
    pub fn awaits_link(&self) -> bool {
        self.is_held() && self.why == Why::BusDown
    }

    /// When the request was last sent: what came before was waiting.
    #[must_use]
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// Whether this part of an attempt's answer is kept already.
    #[must_use]
    pub fn has_part(&self, attempt: u32, part: u32) -> bool {
        self.attempts.has_part(attempt, part)
    }

    /// Bytes of the parts that are kept of an attempt's answer.
    #[must_use]
    pub fn part_bytes(&self, attempt: u32) -> usize {
        self.attempts.part_bytes(attempt)
    }

    /// When this attempt was sent, unless it was refused.
    #[must_use]
    pub fn attempt_sent_at(&self, attempt: u32) -> Option<Instant> {
        self.attempts.sent_at(attempt)
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts_made(&self) -> u32 {
        self.attempts.made()
    }

    /// When `Tick` is due.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        match self.phase {
            Phase::Held => self.held_end(),
            Phase::Done => self.place_end,
            Phase::Sent { until, .. } => until.min(self.place_end),
            Phase::Running { lost_at, .. } => lost_at.min(self.end + ANSWER_GRACE),
        }
    }

    /// How long that can wait, where it is about a worker that was not heard and not about a deadline.
    #[must_use]
    pub fn silence_may_last_until(&self) -> Option<Instant> {
        let (due, end) = match self.phase {
            Phase::Sent { until, .. } => (until, self.place_end),
            Phase::Running { lost_at, .. } => (lost_at, self.end + ANSWER_GRACE),
            Phase::Held | Phase::Done => return None,
        };
        (due < end).then_some(end)
    }

    /// Takes one event. Does nothing once the answer was given.
    pub fn step(&mut self, event: Event, step: &mut Step<'_>) {
        if self.is_done() {
            return self.step_after_end(event, step);
        }
        match event {
            Event::Start { linked: false, .. } => self.hold(Why::BusDown, step),
            Event::Start { free: false, .. } => self.hold(Why::NoWorkers, step),
            Event::Start { .. } => self.send(Destination::Group, step),
            Event::Ask if self.may_start(step.now) => self.release(Destination::Group, step),
            Event::Ask | Event::Full if !self.is_held() => {}
            Event::Ask => self.out_of_time(step),
            Event::Full => self.finds_no_place(step),
            Event::Offered(direct) if self.may_start(step.now) => {
                self.release(Destination::Direct(direct), step);
            }
            Event::Offered(direct) => {
                step.actions.push(Action::Tell { to: direct, control: Control::Decline });
            }
            Event::Heard { attempt, reply: Ok(reply) } => self.hear(attempt, reply, step),
            Event::Heard { attempt, reply: Err(_) } | Event::NoRoom { attempt } => {
                self.hear_unusable(attempt, step);
            }
            Event::NotSent { attempt, why } => self.not_sent(attempt, why, step),
            Event::Taken(part) => self.taken(part, step),
            Event::ClientGone => self.client_gone(step),
            Event::Tick => self.tick(step),
        }
    }

    /// What still arrives after the answer: a slot that is offered must not stay reserved, and a claim
    /// must not stay unanswered.
    fn step_after_end(&self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Offered(to) | Event::Heard { reply: Ok(Reply::Offer { direct: to }), .. } => {
                step.actions.push(Action::Tell { to, control: Control::Decline });
            }
            Event::Heard { reply: Ok(Reply::Claim { control: to }), .. } => {
                let mine = self.granted.as_ref().and_then(|g| g.control.as_ref()) == Some(&to);
                if !mine {
                    step.actions.push(Action::Tell { to, control: Control::Deny });
                }
            }
            _ => {}
        }
    }

    fn is_sent(&self, attempt: u32) -> bool {
        matches!(self.phase, Phase::Sent { attempt: current, .. } if current == attempt)
    }

    fn is_running(&self, attempt: u32) -> bool {
        matches!(self.phase, Phase::Running { attempt: current, .. } if current == attempt)
    }

    /// A certain refusal by the worker that had this attempt: it did not run there and never will.
    fn refused(&mut self, attempt: u32, reason: RefusalReason, step: &mut Step<'_>) {
        let mine = self.is_sent(attempt) || self.is_running(attempt);
        self.attempts.close(attempt);
        if !mine {
            return;
        }
        match reason {
            RefusalReason::Busy => self.hold(Why::Busy, step),
            RefusalReason::Expired if self.attempts.none_open() => {
                self.end(Ending::Problem(ProblemKind::Expired), step);
            }
            RefusalReason::Draining | RefusalReason::Unavailable if self.at_once < AT_ONCE_MAX => {
                self.at_once += 1;
                step.actions.push(Action::Resubmitted(reason.as_str()));
                self.send(Destination::Group, step);
            }
            RefusalReason::Draining | RefusalReason::Unavailable | RefusalReason::Expired => {
                self.hold(Why::Busy, step);
            }
        }
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        match self.phase {
            Phase::Held if now >= self.held_end() => self.out_of_time(step),
            Phase::Sent { .. } if now >= self.place_end => self.out_of_time(step),
            Phase::Running { .. } if now >= self.end + ANSWER_GRACE => {
                self.out_of_time(step);
            }
            Phase::Sent { attempt, until } if now >= until => self.unheard(attempt, step),
            Phase::Running { lost_at, .. } if now >= lost_at => self.lost(step),
            Phase::Held | Phase::Sent { .. } | Phase::Running { .. } | Phase::Done => {}
        }
    }

    /// The worker that had it went silent.
    fn lost(&mut self, step: &mut Step<'_>) {
        if self.stream.is_some() {
            return self.lost_halfway(step);
        }
        if self.granted.is_some() {
            return self.end(Ending::Problem(ProblemKind::OutcomeUnknown), step);
        }
        if !self.may_resubmit(step) {
            return self.end(Ending::Problem(ProblemKind::AttemptTimedOut), step);
        }
        self.place_end = (step.now + self.terms.timeout).min(self.end);
        step.actions.push(Action::Resubmitted("lost"));
        self.send(Destination::Group, step);
    }

    fn client_gone(&mut self, step: &mut Step<'_>) {
        match (&self.granted, self.terms.execution, self.terms.on_disconnect) {
            (Some(_), Execution::AtMostOnce, OnDisconnect::Finish) => self.read_by_nobody(step),
            (None, Execution::AtMostOnce, _) => self.end(Ending::ClientGone, step),
            _ => {
                self.cancel_all(step);
                self.end(Ending::ClientGone, step);
            }
        }
    }

    /// Stops every attempt that may run.
    fn cancel_all(&mut self, step: &mut Step<'_>) {
        for (attempt, control) in self.attempts.drain_open() {
            step.actions.push(cancel(attempt, control));
        }
    }

    /// Stops every attempt but one: copies that serve nobody any more.
    fn cancel_others(&mut self, attempt: u32, step: &mut Step<'_>) {
        for (attempt, control) in self.attempts.drain_others(attempt) {
            step.actions.push(cancel(attempt, control));
        }
    }

    fn end(&mut self, ending: Ending, step: &mut Step<'_>) {
        if self.is_held() {
            step.actions.push(Action::Unhold);
        }
        self.phase = Phase::Done;
        step.actions.push(Action::End(self.of_a_stream(ending)));
    }

    fn answer(&mut self, answer: Final, step: &mut Step<'_>) {
        // Copies of an at-least-once request that still run serve nobody any more.
        if self.terms.execution == Execution::AtLeastOnce {
            self.cancel_all(step);
        }
        self.end(Ending::Final(answer), step);
    }
}

fn cancel(attempt: u32, control: Option<Subject>) -> Action {
    match control {
        Some(to) => Action::Tell { to, control: Control::Cancel },
        None => Action::CancelEverywhere { attempt },
    }
}
