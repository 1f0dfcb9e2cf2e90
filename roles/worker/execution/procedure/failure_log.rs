//! Logs failed calls, and the messages that procedures send. A persistent cause is logged once for
//! each endpoint, and after that only at `debug`. Database messages are omitted unless the operator
//! has enabled them, because they can contain values from requests ("The duplicate key value is
//! (…)").

use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::procedures::DatabaseError;
use crate::roles::worker::execution::handler::Job;
use crate::telemetry::conditions::{self, ConditionKind};

/// The condition in which every call to an endpoint fails until the catalogue, the database or the
/// permissions change.
const MISMATCH: ConditionKind = ConditionKind::new("a procedure does not match its endpoint");

/// The condition in which the worker's own queries, which precede a call, fail.
const QUERY_REFUSED: ConditionKind =
    ConditionKind::new("the worker's own queries, which precede calls, fail");

/// The value of the setting `log.database_messages`.
static LOGS_DATABASE_MESSAGES: AtomicBool = AtomicBool::new(false);

/// The severity of a failure. It depends on who has to act on the failure.
#[derive(Clone, Copy, Debug)]
pub(super) enum FailureKind {
    /// An operator has to act.
    Error,
    /// An operator has to act: every call fails because of the catalogue or a permission.
    Mismatch,
    /// An operator has to act if a query before the call keeps failing. The call was not sent.
    Query,
    /// Nobody has to act for now.
    Warn,
    /// The client has to act.
    Debug,
}

/// Sets whether the messages of databases are logged.
pub fn log_database_messages(are_logged: bool) {
    LOGS_DATABASE_MESSAGES.store(are_logged, Ordering::Relaxed);
}

/// Logs a failed call with its causes.
pub(super) fn log_failure(job: &Job, error: &dyn Error, kind: FailureKind) {
    if matches!(kind, FailureKind::Debug) && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let cause = cause(error, LOGS_DATABASE_MESSAGES.load(Ordering::Relaxed));
    let endpoint = job.endpoint.id.as_str();
    match kind {
        FailureKind::Mismatch if !conditions::raise(&MISMATCH, endpoint) => {
            tracing::debug!(endpoint, cause, "the procedure failed");
        }
        FailureKind::Query if conditions::raise(&QUERY_REFUSED, endpoint) => {
            tracing::warn!(endpoint, cause, "a call was not sent: a query before it failed");
        }
        FailureKind::Query => {
            tracing::debug!(endpoint, cause, "a call was not sent: a query before it failed");
        }
        FailureKind::Error | FailureKind::Mismatch => {
            tracing::error!(endpoint, cause, "the procedure failed");
        }
        FailureKind::Warn => tracing::warn!(endpoint, cause, "the procedure failed"),
        FailureKind::Debug => tracing::debug!(endpoint, cause, "the procedure failed"),
    }
}

/// Logs a message that a procedure sent. Its text can contain values from requests.
pub(super) fn log_message(message: &DatabaseError) {
    if LOGS_DATABASE_MESSAGES.load(Ordering::Relaxed) {
        let text = message.message();
        tracing::debug!(origin = %message, text, "the procedure sent a message");
    } else {
        tracing::debug!(origin = %message, "the procedure sent a message");
    }
}

/// Formats an error and its sources as one line.
fn cause(error: &dyn Error, with_messages: bool) -> String {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let message = inner.downcast_ref().filter(|_| with_messages).map(DatabaseError::message);
        let written = match message {
            Some(message) => write!(cause, ": {inner}: {message}"),
            None => write!(cause, ": {inner}"),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        source = inner.source();
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedures::{SentError, SentErrorKind, ServerErrorClass};

    #[test]
    fn a_database_message_is_in_the_cause_only_if_database_messages_are_enabled() {
        let reported = DatabaseError::new(
            "error 2627, severity 14, state 1, procedure dbo.horse_create, line 12",
            "The duplicate key value is (528003000004000).",
        );
        let kind = SentErrorKind::Server { number: 2627, class: ServerErrorClass::Conflict };
        let error = SentError::caused_by(kind, reported);
        let without = cause(&error, false);
        for part in ["2627", "severity 14", "dbo.horse_create", "line 12"] {
            assert!(without.contains(part), "{without}");
        }
        assert!(!without.contains("duplicate"), "{without}");
        assert!(!format!("{error:?}").contains("duplicate"), "{error:?}");
        let with = cause(&error, true);
        assert_eq!(with, format!("{without}: The duplicate key value is (528003000004000)."));
    }
}
