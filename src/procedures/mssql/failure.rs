//! Why an attempt failed, of one type when nothing of the call was sent and of another once something was.

use crate::procedures::{BackendError, BackendErrorKind, SentError, SentErrorKind};

/// Why an attempt has no outcome.
#[derive(Debug)]
pub(super) enum AttemptFailure {
    /// Nothing of the call was sent.
    NotSent(NotSentFailure),
    /// The call was sent.
    Sent(SentFailure),
}

/// A failed attempt of which nothing was sent, its connection dealt with.
#[derive(Debug)]
pub(super) struct NotSentFailure {
    /// The error, if it is the last attempt.
    pub(super) error: BackendError,
    /// Why it may be tried again.
    pub(super) retry: Option<RetryReason>,
}

/// A failed attempt that was sent, its connection dealt with.
#[derive(Debug)]
pub(super) struct SentFailure {
    /// The error, if it is the last attempt.
    pub(super) error: SentError,
    /// Why it may be sent again: only where a second execution does no harm, or where nothing of the first stays.
    pub(super) retry: Option<RetryReason>,
}

/// Why a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryReason {
    /// The connection broke before the call was sent.
    Unsent,
    /// The server rolled its transaction back for a deadlock.
    Deadlock,
    /// The server rolled its transaction back for an update under snapshot isolation.
    Snapshot,
    /// The procedure's parameters have changed since they were read.
    Signature,
    /// The server takes no untyped NULL.
    UntypedNull,
    /// The connection broke in the call.
    Lost,
}

impl RetryReason {
    /// The metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Deadlock => "deadlock",
            Self::Snapshot => "snapshot",
            Self::Signature => "signature",
            Self::UntypedNull => "untyped-null",
            Self::Lost => "lost",
        }
    }

    /// Whether others work on the same rows now: the next try waits a little.
    pub(super) fn is_contention(self) -> bool {
        matches!(self, Self::Deadlock | Self::Snapshot)
    }
}

impl From<BackendError> for AttemptFailure {
    fn from(error: BackendError) -> Self {
        Self::NotSent(NotSentFailure { error, retry: None })
    }
}

impl From<SentError> for SentFailure {
    fn from(error: SentError) -> Self {
        Self { error, retry: None }
    }
}

impl SentFailure {
    /// The failure of a call that was sent, when nothing of the attempt after that was: what was sent before still counts.
    pub(super) fn followed_by(self, next: NotSentFailure) -> Self {
        let mut error = self.error;
        if let BackendErrorKind::Mismatch { procedure, difference } = next.error.kind {
            error.kind = SentErrorKind::Mismatch { procedure, difference };
        }
        Self { error, retry: next.retry }
    }
}

/// What ended the wait for the database.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// The deadline passed.
    TimedOut,
    /// Nobody waits any more, or the backend ends.
    Cancelled,
}

impl Stop {
    /// Why its connection is closed, if it is.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The error of a call of which nothing was sent.
    pub(super) fn before_sending(self) -> BackendErrorKind {
        match self {
            Self::TimedOut => BackendErrorKind::TimedOut,
            Self::Cancelled => BackendErrorKind::Cancelled,
        }
    }

    /// The error of a call that was sent.
    pub(super) fn after_sending(self) -> SentErrorKind {
        match self {
            Self::TimedOut => SentErrorKind::TimedOut,
            Self::Cancelled => SentErrorKind::Cancelled,
        }
    }
}

impl From<BackendError> for NotSentFailure {
    fn from(error: BackendError) -> Self {
        Self { error, retry: None }
    }
}

impl From<NotSentFailure> for AttemptFailure {
    fn from(failure: NotSentFailure) -> Self {
        Self::NotSent(failure)
    }
}
