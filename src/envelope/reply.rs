//! Replies: messages from a worker about a request. Interim replies may precede the final.

use std::borrow::Cow;

use bytes::Bytes;

use crate::catalogue::ResponseHeader;
use crate::message::Subject;
use crate::outcome::Outcome;

use super::Phases;

mod effect;
mod wire;

/// The media type of nearly all answers.
pub const JSON: &str = "application/json";

/// A reply from a worker, or from NATS itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The worker has accepted the request. It is being executed or is waiting in the worker's
    /// backlog.
    Progress {
        /// The job's control subject, if the job can be cancelled.
        control: Option<Subject>,
    },
    /// The worker asks whether it may execute the request. The gateway replies to `control`.
    Claim {
        /// The job's control subject.
        control: Subject,
    },
    /// The worker has not executed this message and never will.
    Refused {
        /// The reason for the refusal.
        reason: RefusalReason,
        /// After a claim, the job's control subject. Otherwise, the worker's own subject.
        control: Option<Subject>,
    },
    /// The worker has reserved a slot that is free or about to become free. The gateway sends
    /// either the request or a `Decline` control message to `direct`.
    Offer {
        /// The worker's own subject for this offer.
        direct: Subject,
    },
    /// The worker sent the answer and then lost its link. A gateway that has not received the
    /// answer sends `Resend` to `control`.
    Answered {
        /// The job's control subject.
        control: Subject,
    },
    /// A part of a large answer.
    Part {
        /// The number of the part, starting at 1.
        number: u32,
        /// The bytes of this part.
        bytes: Bytes,
        /// The status and media type. Present only in the first part of an answer that may be
        /// streamed.
        head: Option<AnswerHead>,
        /// The job's control subject. Present if an earlier reply has named it or if parts must be
        /// acknowledged.
        control: Option<Subject>,
    },
    /// The answer, or its last part.
    Final(Final),
    /// The subject has no subscribers, so no worker is serving the queue.
    NoResponders,
}

/// The reason why a worker did not execute a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// All slots are occupied, or the remaining time is too short for the call.
    Busy,
    /// The worker is draining.
    Draining,
    /// The request's time ran out before its call could be sent to the database.
    Expired,
    /// The worker cannot use its database, or its claim did not receive a timely reply.
    Unavailable,
    /// An operator has paused the queue.
    Paused,
}

impl RefusalReason {
    /// Returns the reason's name on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
            Self::Paused => "paused",
        }
    }
}

/// The status and media type of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: Cow<'static, str>,
}

/// The answer to a call, or the last message of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The HTTP status.
    pub status: u16,
    /// The media type. Empty if there is no body.
    pub content_type: Cow<'static, str>,
    /// The body, or its last part. The gateway does not parse it.
    pub body: Bytes,
    /// The number of parts that were sent before this message.
    pub parts: u32,
    /// The job's control subject, if an earlier reply for the job has named it.
    pub control: Option<Subject>,
    /// How the call ended, for metrics and logs.
    pub outcome: Outcome,
    /// How the worker spent the time, if it reported this.
    pub phases: Option<Phases>,
    /// Whether a dry run left no changes, because it was rolled back or never sent to the database.
    pub is_rolled_back: bool,
    /// Response headers. The gateway forwards the ones that the endpoint declares.
    pub headers: Vec<(ResponseHeader, String)>,
}

impl Final {
    /// Creates an answer that fits into one message.
    #[must_use]
    pub fn whole(status: u16, content_type: &'static str, body: Bytes, outcome: Outcome) -> Self {
        let content_type = Cow::Borrowed(content_type);
        Self {
            status,
            content_type,
            body,
            parts: 0,
            control: None,
            outcome,
            phases: None,
            is_rolled_back: false,
            headers: Vec::new(),
        }
    }

    /// Returns the size of the response headers, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        // Each line also contains a colon, a space and a line break (two bytes).
        self.headers.iter().map(|(header, value)| header.as_str().len() + value.len() + 4).sum()
    }

    /// Returns whether this can be the answer to a dry run. This is the case if the call was rolled
    /// back or if the status is 500 or higher.
    #[must_use]
    pub fn is_valid_for_dry_run(&self) -> bool {
        self.is_rolled_back || self.status >= 500
    }
}

impl Reply {
    /// Returns the worker's control subject, if the reply names one.
    #[must_use]
    pub fn control(&self) -> Option<&Subject> {
        match self {
            Self::Progress { control }
            | Self::Refused { control, .. }
            | Self::Part { control, .. }
            | Self::Final(Final { control, .. }) => control.as_ref(),
            Self::Claim { control: named }
            | Self::Offer { direct: named }
            | Self::Answered { control: named } => Some(named),
            Self::NoResponders => None,
        }
    }

    /// Returns the total size in bytes of the body and response headers in the reply.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Part { bytes, .. } => bytes.len(),
            Self::Final(answer) => answer.body.len() + answer.header_bytes(),
            _ => 0,
        }
    }
}
