//! The events that a session handles, and the actions that it returns.

use std::time::Duration;

use bytes::Bytes;

use crate::envelope::{AnswerHead, Control, EnvelopeError, Final, RefusalReason, Reply};
use crate::message::Subject;
use crate::outcome::Outcome;
use crate::problem::ProblemKind;

/// An event that a session handles.
#[derive(Debug)]
pub enum SessionEvent {
    /// The request was read and admitted.
    Start {
        /// Whether the link to the bus is up.
        is_linked: bool,
        /// The reason why the request must join the wait queue, or `None` if it may be sent to the
        /// group immediately.
        wait_for: Option<WaitReason>,
    },
    /// The session may send its request to the group now.
    SendToGroup,
    /// The wait queue is full, and this session has lost its position or was not given one.
    QueueFull,
    /// A worker offers this session a free slot at this subject.
    SlotOffered(Subject),
    /// A reply to one of the session's attempts.
    Reply {
        /// The number of the attempt.
        attempt: u32,
        /// The reply, or the error if it cannot be parsed.
        reply: Result<Reply, EnvelopeError>,
    },
    /// An answer or a part of one was dropped because the byte budget is exhausted.
    ReplyDropped {
        /// The number of the attempt.
        attempt: u32,
    },
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
    /// The time returned by `Session::wake_at` has passed.
    Timer,
}

/// An action that a session requests.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// Publish the request.
    Publish {
        /// The number of the attempt. It is part of the attempt's reply subject.
        attempt: u32,
        /// The recipient.
        to: Destination,
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
    /// Tell every worker of the queue to cancel this attempt, because its worker is unknown.
    BroadcastCancel {
        /// The number of the attempt.
        attempt: u32,
    },
    /// Join the wait queue.
    JoinQueue(WaitReason),
    /// Leave the wait queue.
    LeaveQueue,
    /// Record that no worker replied to an attempt in time.
    NoReply(u32),
    /// Count a resubmission.
    CountResubmission(ResubmitReason),
    /// Begin the response with this status and media type. Chunks follow.
    BeginAnswer(AnswerHead),
    /// Send the next bytes of the response.
    SendChunk(Bytes),
    /// End the session. This is the last action.
    End(SessionEnd),
}

/// The recipient of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The queue group: one member receives the request.
    Group,
    /// The worker that offered a slot at this subject.
    OfferedSlot(Subject),
}

/// The reason why an attempt was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishFailure {
    /// The bus did not accept the request.
    BusDown,
    /// The request is larger than the bus allows, so retrying cannot succeed.
    TooLarge,
    /// The byte budget is exhausted, so there is no memory for the answer.
    NoAnswerMemory,
}

/// The reason why a request is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// The workers that received the request have refused it.
    Busy,
    /// The queue has no members.
    NoWorkers,
    /// The bus is not connected.
    BusDown,
    /// No worker replied, and no claim was granted.
    NoReply,
    /// An operator has paused the queue.
    Paused,
}

impl WaitReason {
    /// Returns the problem of a request that waited for this reason until its deadline.
    pub(super) fn problem(self) -> ProblemKind {
        match self {
            Self::Busy => ProblemKind::Busy,
            Self::NoWorkers => ProblemKind::NoWorkers,
            Self::BusDown => ProblemKind::BusDown,
            Self::NoReply => ProblemKind::NotExecuted,
            Self::Paused => ProblemKind::QueuePaused,
        }
    }
}

/// The reason why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResubmitReason {
    /// A worker refused the request.
    Refused(RefusalReason),
    /// No worker replied in time.
    NoReply,
    /// The worker that ran the call stopped reporting progress.
    WorkerLost,
}

impl ResubmitReason {
    /// Returns the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.as_str(),
            Self::NoReply => "no_reply",
            Self::WorkerLost => "lost",
        }
    }
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// A worker's complete answer.
    Answer(Final),
    /// An error that the gateway itself reports.
    Problem(ProblemKind),
    /// A worker's answer that has begun but cannot be completed.
    CutOff(Outcome),
    /// The client has disconnected.
    ClientGone,
}

impl SessionEnd {
    /// Returns the outcome for logs and metrics.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Answer(answer) => answer.outcome,
            Self::Problem(kind) => kind.outcome(),
            Self::CutOff(outcome) => *outcome,
            Self::ClientGone => Outcome::ClientGone,
        }
    }
}
