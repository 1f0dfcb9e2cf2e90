//! The events that a session driver handles, and the actions that it returns.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::envelope::{AnswerHead, Control};
use crate::message::Subject;
use crate::problem::ProblemKind;
use crate::roles::gateway::dispatch::message::{AttemptReply, QueueSignal};
use crate::roles::gateway::dispatch::queues::deliveries::DeliveryEnd;
use crate::roles::gateway::dispatch::session::{PublishFailure, SessionEnd};

/// An event that a session driver handles.
#[derive(Debug)]
pub enum DriverEvent {
    /// The request was read and admitted.
    Start {
        /// Whether the request may be sent to the group immediately. Otherwise, it joins the wait
        /// queue.
        may_send_to_group: bool,
    },
    /// A reply to one of the session's attempts.
    Reply(AttemptReply),
    /// A signal from the wait queue.
    Signal(QueueSignal),
    /// An attempt was certainly not sent.
    PublishFailed {
        /// The number of the attempt.
        attempt: u32,
        /// The reason.
        failure: PublishFailure,
    },
    /// The total number of chunks of the answer that the client's connection has consumed.
    ChunksConsumed(u32),
    /// The client disconnected.
    ClientGone,
    /// The link to the bus is up again.
    LinkUp,
    /// The time returned by `SessionDriver::wake_at` has passed.
    Timer {
        /// Until this time, a silent worker is not treated as lost. `None` if the link to NATS has
        /// never stalled.
        silence_excused_until: Option<Instant>,
    },
}

/// An action that a session driver requests.
#[derive(Debug, PartialEq, Eq)]
pub enum DriverAction {
    /// Publish the request.
    Publish {
        /// The number of the attempt. It is part of the attempt's reply subject.
        attempt: u32,
        /// The subject of the group, of one worker, or of an offered slot.
        to: Subject,
        /// The time that is left for the call.
        budget: Duration,
    },
    /// Send one worker a control message about its claim, job or offer.
    SendControl {
        /// The worker's subject.
        to: Subject,
        /// The message.
        control: Control,
    },
    /// Tell every worker of the queue to cancel this attempt.
    BroadcastCancel {
        /// The number of the attempt.
        attempt: u32,
    },
    /// Find out which members reply, because one member seems to hang.
    FindMembers {
        /// Whether to ask all members to identify themselves.
        query: bool,
        /// The time to wait for their replies before the next action.
        pause: Option<Duration>,
    },
    /// Begin the response with this status and media type. Chunks follow.
    BeginAnswer(AnswerHead),
    /// Send the next bytes of the response.
    SendChunk(Bytes),
    /// End the session. This is the last action.
    End(SessionEnd),
}

/// Returns what the end of a session means for the delivery of its request, if that has been sent and has not been refused.
pub(super) fn delivery_end(end: &SessionEnd) -> DeliveryEnd {
    match end {
        SessionEnd::Answer(answer) if answer.outcome.is_stalled() => DeliveryEnd::Stopped,
        SessionEnd::Answer(_) => DeliveryEnd::Answered,
        SessionEnd::CutOff(outcome) if outcome.is_stalled() => DeliveryEnd::Stopped,
        // A request that no worker can have executed ends with the reason for which it last waited.
        SessionEnd::Problem(
            ProblemKind::AttemptTimedOut
            | ProblemKind::SessionTimedOut
            | ProblemKind::OutcomeUnknown
            | ProblemKind::NotExecuted
            | ProblemKind::Busy
            | ProblemKind::NoWorkers
            | ProblemKind::BusDown
            | ProblemKind::QueuePaused,
        ) => DeliveryEnd::TimedOut,
        SessionEnd::Problem(_) | SessionEnd::CutOff(_) | SessionEnd::ClientGone => {
            DeliveryEnd::Other
        }
    }
}
