//! Failures before any part of a call is sent.

use tiberius::error::Error;

use super::failure::{NotSentFailure, RetryReason, StopCause};
use crate::catalogue::violations::VIOLATIONS_MAX;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::pools::Lease;
use crate::procedures::{BackendError, BackendErrorKind};

/// Combines two steps that prepare a call. If both find bad arguments, the error lists those of both, up to
/// `VIOLATIONS_MAX`.
pub(super) fn combine<A, B>(
    first: Result<A, BackendError>,
    second: Result<B, BackendError>,
) -> Result<(A, B), BackendError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(mut error), Err(other)) => match (&mut error.kind, other.kind) {
            (BackendErrorKind::Arguments(bad), BackendErrorKind::Arguments(more)) => {
                bad.extend(more);
                bad.truncate(VIOLATIONS_MAX);
                Err(error)
            }
            // The caller cannot correct any other error.
            (BackendErrorKind::Arguments(_), kind) => {
                Err(BackendError { kind, source: other.source })
            }
            _ => Err(error),
        },
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

/// Handles a failure of one of fjord's own queries before the call.
pub(super) async fn preparation_failed(
    lease: Lease,
    result: Result<Result<(), Error>, StopCause>,
) -> NotSentFailure {
    match result {
        Ok(Err(Error::Server(token))) if !error_numbers::is_fatal(&token) => {
            lease.keep_rolled_back().await;
            error_numbers::before_sending(token).into()
        }
        Ok(Err(error)) => broken_before_sending(lease, error),
        Ok(Ok(())) => {
            lease.keep();
            unavailable().into()
        }
        Err(cause) => {
            lease.cancel(cause.as_str()).await;
            BackendError::new(cause.before_sending()).into()
        }
    }
}

/// Handles a connection that broke before any part of the call was sent.
pub(super) fn broken_before_sending(lease: Lease, error: Error) -> NotSentFailure {
    lease.discard("broken");
    NotSentFailure {
        error: BackendError::caused_by(BackendErrorKind::Unavailable, error),
        retry: Some(RetryReason::LostBeforeSending),
    }
}

/// Returns the error for a connection that is gone.
pub(super) fn unavailable() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable)
}
