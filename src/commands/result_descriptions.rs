//! Describes the results of many procedures one after the other, with a time limit for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::catalogue::ProcedureName;
use crate::procedures::{Backend, BackendError, BackendErrorKind, ResultDescription};
use crate::telemetry::chain;

/// The maximum time to wait for the description of one procedure.
const PROCEDURE_LIMIT: Duration = Duration::from_secs(5);

/// The reason why the results of a procedure could not be described.
#[derive(Debug)]
pub(super) enum DescribeError {
    /// The database cannot be reached or does not respond in time.
    NoAnswer(String),
    /// The database answered with an error.
    Refused(String),
}

impl DescribeError {
    fn new(error: &BackendError) -> Self {
        let reason = chain(error);
        match error.kind {
            BackendErrorKind::TimedOut
            | BackendErrorKind::Cancelled
            | BackendErrorKind::PoolTimedOut
            | BackendErrorKind::Unavailable => Self::NoAnswer(reason),
            _ => Self::Refused(reason),
        }
    }
}

impl From<DescribeError> for ResultDescription {
    fn from(error: DescribeError) -> Self {
        let (DescribeError::NoAnswer(reason) | DescribeError::Refused(reason)) = error;
        Self::unknown(reason)
    }
}

/// Describes the results of procedures, in the given order. Returns `NoAnswer` for a procedure whose description takes
/// longer than `PROCEDURE_LIMIT` or is not finished by `deadline`. Cancel safe.
pub(super) async fn describe(
    backend: &Arc<dyn Backend>,
    procedures: &[ProcedureName],
    deadline: Instant,
) -> Vec<Result<ResultDescription, DescribeError>> {
    let mut descriptions = Vec::with_capacity(procedures.len());
    for procedure in procedures {
        let now = Instant::now();
        if now >= deadline {
            let reason = "the time limit for all procedures has passed".to_owned();
            descriptions.push(Err(DescribeError::NoAnswer(reason)));
            continue;
        }
        let end = deadline.min(now + PROCEDURE_LIMIT);
        let described = match timeout_at(end, backend.describe_result(procedure)).await {
            Ok(described) => described.map_err(|error| DescribeError::new(&error)),
            Err(_) => Err(DescribeError::NoAnswer(format!("no answer within {:.1?}", end - now))),
        };
        descriptions.push(described);
    }
    descriptions
}
