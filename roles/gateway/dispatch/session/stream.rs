//! An answer that has begun before its end is known: what still counts about it, and what cuts it off.
//!
//! Its status has gone out: nothing is sent again, and whatever goes wrong from here on ends it so that no client can
//! take it for whole.

use bytes::Bytes;

use crate::envelope::{AnswerHead, Control, Final, Reply};
use crate::message::Subject;
use crate::outcome::Word;
use crate::problem::ProblemKind;

use super::{Action, Ending, Session, Step};

/// The one answer that is on its way.
#[derive(Debug)]
pub(super) struct Stream {
    attempt: u32,
    /// Who sends it: another copy of the same attempt says nothing here.
    control: Subject,
    head: AnswerHead,
    /// The last part that came.
    got: u32,
    /// The last part that the client took.
    taken: u32,
    /// Whether the call only has to come to its end.
    client_left: bool,
}

impl Stream {
    fn is_of(&self, attempt: u32, control: Option<&Subject>) -> bool {
        self.attempt == attempt && control == Some(&self.control)
    }

    fn tell_taken(&self) -> Action {
        Action::Tell { to: self.control.clone(), control: Control::Ack(self.taken) }
    }
}

impl Session {
    /// The first part of an answer that may begin with it.
    pub(super) fn begin(
        &mut self,
        attempt: u32,
        (head, control): (AnswerHead, Subject),
        bytes: Bytes,
        step: &mut Step<'_>,
    ) {
        self.attempts.control(attempt, Some(control.clone()));
        self.cancel_others(attempt, step);
        let client_left = self.client_left;
        if !client_left {
            step.actions.push(Action::Begin(head.clone()));
        }
        self.stream = Some(Stream { attempt, control, head, got: 0, taken: 0, client_left });
        self.pass(1, bytes, step);
    }

    /// A reply, once the answer has begun.
    pub(super) fn hear_on(&mut self, attempt: u32, reply: Reply, step: &mut Step<'_>) {
        let Some(stream) = &self.stream else { return };
        match reply {
            Reply::Claim { control } => self.hear_claim(attempt, control, step),
            Reply::Offer { direct } => {
                step.actions.push(Action::Tell { to: direct, control: Control::Decline });
            }
            Reply::Part { number, bytes, control, .. }
                if stream.is_of(attempt, control.as_ref()) =>
            {
                self.runs(attempt, step);
                self.pass(number, bytes, step);
            }
            Reply::Progress { control } if stream.is_of(attempt, control.as_ref()) => {
                // What was said may be lost. Said again, it also tells the worker that we are here.
                step.actions.push(stream.tell_taken());
                self.runs(attempt, step);
            }
            // Parts are never sent again, the last piece is: it ends what came whole.
            Reply::Answered { control } if stream.is_of(attempt, Some(&control)) => {
                step.actions.push(Action::Tell { to: control, control: Control::Repeat });
                self.runs(attempt, step);
            }
            Reply::Final(answer) if stream.is_of(attempt, answer.control.as_ref()) => {
                self.finish(answer, step);
            }
            // Another copy: it was told to stop.
            _ => {}
        }
    }

    /// The client took the parts up to this one.
    pub(super) fn taken(&mut self, part: u32, step: &mut Step<'_>) {
        if let Some(stream) = &mut self.stream
            && (stream.taken + 1..=stream.got).contains(&part)
        {
            stream.taken = part;
            step.actions.push(stream.tell_taken());
        }
    }

    /// Nobody reads the rest, and the call may come to its end.
    pub(super) fn read_by_nobody(&mut self, step: &mut Step<'_>) {
        self.client_left = true;
        if let Some(stream) = &mut self.stream {
            stream.client_left = true;
            stream.taken = stream.got;
            step.actions.push(stream.tell_taken());
        }
    }

    /// What an ending means for an answer that has begun.
    pub(super) fn of_a_stream(&self, ending: Ending) -> Ending {
        match (&self.stream, ending) {
            (Some(stream), _) if stream.client_left => Ending::ClientGone,
            (Some(_), Ending::Problem(kind)) => Ending::Cut(kind.outcome()),
            (_, ending) => ending,
        }
    }

    /// The worker of an answer that has begun went silent.
    pub(super) fn lost_halfway(&mut self, step: &mut Step<'_>) {
        let is_granted = self.granted.is_some();
        self.cancel_all(step);
        let kind =
            if is_granted { ProblemKind::OutcomeUnknown } else { ProblemKind::AttemptTimedOut };
        self.end(Ending::Problem(kind), step);
    }

    fn pass(&mut self, number: u32, bytes: Bytes, step: &mut Step<'_>) {
        let Some(stream) = &mut self.stream else { return };
        if number != stream.got + 1 || number - stream.taken > self.terms.window {
            return self.broken(step);
        }
        stream.got = number;
        if stream.client_left {
            stream.taken = number;
            step.actions.push(stream.tell_taken());
        } else {
            step.actions.push(Action::Pass(bytes));
        }
    }

    /// The end, when it is that of what has begun; anything else says that it failed.
    fn finish(&mut self, mut answer: Final, step: &mut Step<'_>) {
        let Some(stream) = &self.stream else { return };
        self.attempts.close(stream.attempt);
        let is_whole = answer.parts == stream.got
            && answer.status == stream.head.status
            && answer.content_type == stream.head.content_type;
        if !is_whole {
            let word = Some(answer.outcome).filter(|word| *word != Word::Ok);
            return self.end(Ending::Cut(word.unwrap_or(Word::BadAnswer)), step);
        }
        let last = std::mem::take(&mut answer.body);
        if !last.is_empty() && !stream.client_left {
            step.actions.push(Action::Pass(last));
        }
        self.end(Ending::Final(answer), step);
    }
}
