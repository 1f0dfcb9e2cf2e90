//! Failures of an attempt: one type for a call that was not sent, and another for a call that was
//! sent at least in part.

use std::time::Duration;

use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::server_message::ServerMessage;
use crate::procedures::{BackendError, BackendErrorKind, SentError, SentErrorKind};

/// The pause before the retry of a call that lost a conflict with other calls.
const CONTENTION_PAUSE: Duration = Duration::from_millis(20);
/// The pause before the retry of a call for which the database had no capacity.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);

/// The failure of an attempt.
#[derive(Debug)]
pub(super) enum AttemptFailure {
    /// No part of the call was sent.
    NotSent(NotSentFailure),
    /// The call was sent, at least in part.
    Sent(SentFailure),
}

/// The failure of an attempt whose call was not sent. The connection was returned or closed.
#[derive(Debug)]
pub(super) struct NotSentFailure {
    /// The error that the call returns if this is the last attempt.
    pub(super) error: BackendError,
    /// The reason why another attempt can succeed.
    pub(super) retry: Option<RetryReason>,
}

/// The failure of an attempt whose call was sent. The connection was returned or closed.
#[derive(Debug)]
pub(super) struct SentFailure {
    /// The error that the call returns if this is the last attempt.
    pub(super) error: SentError,
    /// The reason why another attempt can succeed. The `retry` module decides whether one is
    /// permitted.
    pub(super) retry: Option<RetryReason>,
}

/// The reason why another attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryReason {
    /// The connection broke before the call was sent.
    LostBeforeSending,
    /// The server rolled the transaction back because of a deadlock.
    Deadlock,
    /// The server rolled the transaction back because of a conflict under snapshot isolation.
    Snapshot,
    /// Memory or locks were temporarily unavailable.
    Resources,
    /// The database limits the resources of its clients, or is being moved.
    Throttled,
    /// The procedure's parameters have changed since they were read.
    Signature,
    /// The server does not accept untyped NULLs.
    UntypedNull,
    /// The connection broke during the call.
    LostAfterSending,
}

impl RetryReason {
    /// Returns the reason if the error was not caused by the call itself, but by a conflict with
    /// another call or a lack of resources.
    pub(super) fn contention(error: &ServerMessage) -> Option<Self> {
        if error_numbers::is_deadlock(error) {
            Some(Self::Deadlock)
        } else if error_numbers::is_snapshot_conflict(error) {
            Some(Self::Snapshot)
        } else if error_numbers::asks_for_pause(error) {
            Some(Self::Throttled)
        } else if error_numbers::is_transient(error) {
            Some(Self::Resources)
        } else {
            None
        }
    }

    /// Returns the pause before the first retry, or `None` if a retry need not wait.
    pub(super) fn pause(self) -> Option<Duration> {
        match self {
            Self::Deadlock | Self::Snapshot | Self::Resources => Some(CONTENTION_PAUSE),
            Self::Throttled => Some(THROTTLED_PAUSE),
            Self::LostBeforeSending
            | Self::Signature
            | Self::UntypedNull
            | Self::LostAfterSending => None,
        }
    }

    /// Returns the label for the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LostBeforeSending => "unsent",
            Self::Deadlock => "deadlock",
            Self::Snapshot => "snapshot",
            Self::Resources => "resources",
            Self::Throttled => "throttled",
            Self::Signature => "signature",
            Self::UntypedNull => "untyped-null",
            Self::LostAfterSending => "lost",
        }
    }
}

impl SentFailure {
    /// Combines the failure of a sent call with that of a later attempt whose call was not sent.
    /// The call may still have been executed.
    pub(super) fn followed_by(self, next: NotSentFailure) -> Self {
        let mut error = self.error;
        if let BackendErrorKind::Mismatch { procedure, difference } = next.error.kind {
            error.kind = SentErrorKind::Mismatch { procedure, difference };
        }
        Self { error, retry: next.retry }
    }
}

/// The reason why a wait for the database ended early.
#[derive(Clone, Copy, Debug)]
pub(super) enum StopCause {
    /// The deadline passed.
    TimedOut,
    /// The call was cancelled, or the backend is being closed.
    Cancelled,
}

impl StopCause {
    /// Returns the metric label of a connection that is closed for this reason.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the error for a call that was not sent.
    pub(super) fn before_sending(self) -> BackendErrorKind {
        match self {
            Self::TimedOut => BackendErrorKind::TimedOut,
            Self::Cancelled => BackendErrorKind::Cancelled,
        }
    }

    /// Returns the error for a call that was sent.
    pub(super) fn after_sending(self) -> SentErrorKind {
        match self {
            Self::TimedOut => SentErrorKind::TimedOut,
            Self::Cancelled => SentErrorKind::Cancelled,
        }
    }
}

impl From<BackendError> for AttemptFailure {
    fn from(error: BackendError) -> Self {
        Self::NotSent(error.into())
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

impl From<SentError> for SentFailure {
    fn from(error: SentError) -> Self {
        Self { error, retry: None }
    }
}
