//! Handles workers' replies while an answer is streamed: forwards its parts, and cuts it off on
//! errors.
//!
//! The status has been sent to the client, so the request is never sent again. Any error ends the
//! response in a way that the client cannot mistake for a complete answer.

use bytes::Bytes;

use crate::envelope::{AnswerHead, Control, Final, Reply};
use crate::message::Subject;
use crate::outcome::Outcome;
use crate::problem::ProblemKind;

use super::{Session, SessionAction, SessionEnd, StepContext};

/// The answer that is being streamed.
#[derive(Debug)]
pub(super) struct AnswerStream {
    attempt: u32,
    /// The control subject of the job that sends the answer. Replies from other jobs are ignored.
    control: Subject,
    head: AnswerHead,
    /// The number of the last part that was received.
    received: u32,
    /// The number of the last part that the client consumed.
    consumed: u32,
    /// Whether the client has disconnected and the session continues only to let the call finish.
    client_left: bool,
}

/// The source and head of an answer that begins to stream.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) attempt: u32,
    pub(super) head: AnswerHead,
    pub(super) control: Subject,
}

impl AnswerStream {
    fn is_from(&self, attempt: u32, control: Option<&Subject>) -> bool {
        self.attempt == attempt && control == Some(&self.control)
    }

    /// Returns the action that tells the worker how many parts the client has consumed.
    fn acknowledge(&self) -> SessionAction {
        SessionAction::SendControl {
            to: self.control.clone(),
            control: Control::Ack(self.consumed),
        }
    }
}

impl Session {
    /// Begins to stream an answer, starting with its first part.
    pub(super) fn begin_stream(
        &mut self,
        start: StreamStart,
        bytes: Bytes,
        context: &mut StepContext<'_>,
    ) {
        let StreamStart { attempt, head, control } = start;
        self.attempts.set_control(attempt, Some(control.clone()));
        self.cancel_others(attempt, context);
        let client_left = self.client_left;
        if !client_left {
            context.actions.push(SessionAction::BeginAnswer(head.clone()));
        }
        let (received, consumed) = (0, 0);
        self.stream =
            Some(AnswerStream { attempt, control, head, received, consumed, client_left });
        self.forward_part(1, bytes, context);
    }

    pub(super) fn on_reply_while_streaming(
        &mut self,
        attempt: u32,
        reply: Reply,
        context: &mut StepContext<'_>,
    ) {
        let Some(stream) = &self.stream else { return };
        match reply {
            Reply::Claim { control } => self.on_claim(attempt, control, context),
            Reply::Offer { direct } => {
                let decline = SessionAction::SendControl { to: direct, control: Control::Decline };
                context.actions.push(decline);
            }
            Reply::Part { number, bytes, control, .. }
                if stream.is_from(attempt, control.as_ref()) =>
            {
                self.set_running(attempt, context);
                self.forward_part(number, bytes, context);
            }
            Reply::Progress { control } if stream.is_from(attempt, control.as_ref()) => {
                // An earlier acknowledgement may have been lost. Repeating it also shows the worker
                // that the gateway is alive.
                context.actions.push(stream.acknowledge());
                self.set_running(attempt, context);
            }
            // Parts are not resent, but the final is: it completes an answer that has all parts.
            Reply::Answered { control } if stream.is_from(attempt, Some(&control)) => {
                let resend = SessionAction::SendControl { to: control, control: Control::Resend };
                context.actions.push(resend);
                self.set_running(attempt, context);
            }
            Reply::Final(answer) if stream.is_from(attempt, answer.control.as_ref()) => {
                self.finish_stream(answer, context);
            }
            // The reply comes from another job for the same request, and that job has been
            // cancelled.
            _ => {}
        }
    }

    /// Records how many chunks the client's connection has consumed in total. A part is one chunk.
    pub(super) fn chunks_consumed(&mut self, chunks: u32, context: &mut StepContext<'_>) {
        if let Some(stream) = &mut self.stream
            && (stream.consumed + 1..=stream.received).contains(&chunks)
        {
            stream.consumed = chunks;
            context.actions.push(stream.acknowledge());
        }
    }

    /// Discards the rest of the answer: the client has disconnected, but the call can finish.
    pub(super) fn discard_answer(&mut self, context: &mut StepContext<'_>) {
        self.client_left = true;
        if let Some(stream) = &mut self.stream {
            stream.client_left = true;
            stream.consumed = stream.received;
            context.actions.push(stream.acknowledge());
        }
    }

    /// Returns how the session ends. After the answer has begun, an error can only cut the answer
    /// off.
    pub(super) fn end_of_stream(&self, end: SessionEnd) -> SessionEnd {
        match (&self.stream, end) {
            (Some(stream), _) if stream.client_left => SessionEnd::ClientGone,
            (Some(_), SessionEnd::Problem(kind)) => SessionEnd::CutOff(kind.outcome()),
            (_, end) => end,
        }
    }

    /// Handles a worker that stopped reporting progress after the answer had begun.
    pub(super) fn lost_during_stream(&mut self, context: &mut StepContext<'_>) {
        let is_granted = self.grant.is_some();
        self.cancel_all(context);
        let kind =
            if is_granted { ProblemKind::OutcomeUnknown } else { ProblemKind::AttemptTimedOut };
        self.end(SessionEnd::Problem(kind), context);
    }

    fn forward_part(&mut self, number: u32, bytes: Bytes, context: &mut StepContext<'_>) {
        let Some(stream) = &mut self.stream else { return };
        if number != stream.received + 1 || number - stream.consumed > self.options.window {
            return self.bad_answer(context);
        }
        stream.received = number;
        if stream.client_left {
            stream.consumed = number;
            context.actions.push(stream.acknowledge());
        } else {
            context.actions.push(SessionAction::SendChunk(bytes));
        }
    }

    /// Ends the session with the final if it matches the parts before it. Otherwise, the call has
    /// failed halfway, and the answer is cut off.
    fn finish_stream(&mut self, mut answer: Final, context: &mut StepContext<'_>) {
        let Some(stream) = &self.stream else { return };
        self.attempts.close(stream.attempt);
        let is_complete = answer.parts == stream.received
            && answer.status == stream.head.status
            && answer.content_type == stream.head.content_type;
        if !is_complete {
            let outcome = match answer.outcome {
                Outcome::Ok => Outcome::BadAnswer,
                failure => failure,
            };
            return self.end(SessionEnd::CutOff(outcome), context);
        }
        let last_bytes = std::mem::take(&mut answer.body);
        if !last_bytes.is_empty() && !stream.client_left {
            context.actions.push(SessionAction::SendChunk(last_bytes));
        }
        self.end(SessionEnd::Answer(answer), context);
    }
}
