//! Logs failed calls, each cause once.

use std::error::Error;
use std::fmt::Write as _;

use crate::roles::worker::execution::handler::Job;
use crate::telemetry::conditions::{self, Condition};

use super::redact;

/// Every call of an endpoint fails until the catalogue, the database or its permissions are changed.
const MISFIT: Condition = Condition::new("a procedure does not fit");

/// The database refuses the queries that the worker makes before a call.
const QUERY_REFUSED: Condition = Condition::new("a query before a call fails");

/// Who has to act on a failure.
#[derive(Clone, Copy, Debug)]
pub(super) enum FailureLevel {
    /// An operator.
    Error,
    /// An operator: until then every call fails, because catalogue and database differ or a permission is missing.
    Misfit,
    /// An operator, if it lasts: the database lacks a resource, and the call was not sent.
    Query,
    /// Nobody now.
    Warn,
    /// The client.
    Debug,
}

/// Logs a failed call with its causes.
pub(super) fn log_failure(job: &Job, error: &dyn Error, level: FailureLevel) {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let written = write!(cause, ": {inner}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        source = inner.source();
    }
    let cause = redact::without_values(&cause, &job.request.payload);
    let endpoint = job.endpoint.id.as_str();
    match level {
        FailureLevel::Misfit if !conditions::begins(&MISFIT, endpoint) => {
            tracing::debug!(endpoint, cause, "the procedure failed");
        }
        FailureLevel::Query if conditions::begins(&QUERY_REFUSED, endpoint) => {
            tracing::warn!(endpoint, cause, "a call was not sent: a query before it failed");
        }
        FailureLevel::Query => {
            tracing::debug!(endpoint, cause, "a call was not sent: a query before it failed");
        }
        FailureLevel::Error | FailureLevel::Misfit => {
            tracing::error!(endpoint, cause, "the procedure failed");
        }
        FailureLevel::Warn => tracing::warn!(endpoint, cause, "the procedure failed"),
        FailureLevel::Debug => tracing::debug!(endpoint, cause, "the procedure failed"),
    }
}
