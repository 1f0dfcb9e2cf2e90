//! Maps the results of procedures (RETURN status, raised errors, database errors) to HTTP statuses.
//! `src/procedures/mssql/error_numbers.rs` defines the meaning of SQL error numbers.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;

use crate::catalogue::endpoint::is_bodiless;
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::violations::JsonPointer;
use crate::catalogue::{Endpoint, Execution, ParameterSource, Representation, ResultKind};
use crate::envelope::Final;
use crate::envelope::reply::JSON;
use crate::outcome::Outcome;
use crate::problem::{Effect, Problem, ProblemKind, Violation};
use crate::procedures::{
    BackendError, BackendErrorKind, BadArgument, CallError, ProcedureResult, SentError,
    SentErrorKind, ServerErrorClass, SinkError,
};
use crate::roles::worker::execution::handler::Job;
use crate::roles::worker::execution::job_result::{JobResult, SentCallResult};

use super::answer_sink::AnswerSink;
use super::failure_log::{FailureKind, log_failure};
use super::response_headers::response_headers;

/// The error numbers that contain an HTTP status. For example, 50404 becomes 404.
const STATUS_NUMBERS: std::ops::RangeInclusive<u32> = 50_400..=50_599;
/// The difference between an error number in `STATUS_NUMBERS` and its HTTP status.
const STATUS_NUMBERS_BASE: u32 = 50_000;

/// Statuses that only the gateway may use, to report the outcome of a request.
const GATEWAY_STATUSES: std::ops::RangeInclusive<u16> = 502..=504;

/// Maps the result of a call. No other function maps backend errors or a RETURN status to HTTP.
#[must_use]
pub fn map_result(
    job: &Job,
    sink: AnswerSink,
    result: Result<ProcedureResult, CallError>,
) -> JobResult {
    match result {
        Ok(outcome) => map_success(job, sink, &outcome).into(),
        Err(CallError::NotSent(error)) => map_unsent(job, &error),
        Err(CallError::Sent(error)) => map_sent(job, &error).into(),
    }
}

fn map_success(job: &Job, sink: AnswerSink, outcome: &ProcedureResult) -> SentCallResult {
    let endpoint = &job.endpoint;
    let mapped = endpoint.status.returns.get(&outcome.return_status).copied();
    if let Some(status) = mapped.filter(|status| *status >= 400) {
        return with_status(status, None, (Outcome::SqlReturn, None));
    }
    let headers = match response_headers(endpoint, outcome) {
        Ok(headers) => headers,
        Err(error) => return unusable(job, &error, Outcome::AnswerShape),
    };
    let final_of = |status, content_type, body| {
        let answer = Final::whole(status, "", body, Outcome::Ok);
        SentCallResult::Final(Final { content_type, headers, ..answer })
    };
    if let Some(status) = mapped.filter(|status| is_bodiless(*status)) {
        return final_of(status, Cow::Borrowed(""), Bytes::new());
    }
    let body = match sink.finish(&endpoint.outputs, outcome) {
        Ok(Some(body)) => body,
        Ok(None) => return problem(ProblemKind::NoRow, Outcome::NoRow),
        Err(error) => return map_sent(job, &SentErrorKind::Sink(error).into()),
    };
    if endpoint.result == ResultKind::None {
        final_of(mapped.unwrap_or(204), Cow::Borrowed(""), Bytes::new())
    } else {
        let content_type =
            job.representation().map_or(Cow::Borrowed(JSON), Representation::content_type);
        final_of(mapped.unwrap_or(200), content_type, body.into())
    }
}

fn problem(kind: ProblemKind, outcome: Outcome) -> SentCallResult {
    SentCallResult::Problem { problem: Problem::new(kind), outcome }
}

/// Returns the result of a call for which the procedure or the catalogue has chosen a status.
fn with_status(
    status: u16,
    detail: Option<String>,
    (outcome, effect): (Outcome, Option<Effect>),
) -> SentCallResult {
    let kind = match status {
        ..400 => return SentCallResult::Final(Final::whole(status, "", Bytes::new(), Outcome::Ok)),
        404 => ProblemKind::NoRow,
        409 => ProblemKind::Conflict,
        412 => ProblemKind::PreconditionFailed,
        status => ProblemKind::ProcedureError(status),
    };
    SentCallResult::Problem { problem: Problem { detail, effect, ..Problem::new(kind) }, outcome }
}

/// Maps the error of a call that was not sent to the database. The procedure certainly did not run.
fn map_unsent(job: &Job, error: &BackendError) -> JobResult {
    // The gateway rejects an answer with `not-executed` and a status of 500 or more (`reply::effect`).
    let reported = |problem: Problem, outcome| {
        let is_trusted = problem.kind.status().as_u16() < 500;
        let effect = if is_trusted { Effect::NotExecuted } else { Effect::Unknown };
        JobResult::Problem { problem: problem.with_effect(effect), outcome }
    };
    let not_executed =
        |kind, outcome| JobResult::NotExecuted { problem: Problem::new(kind), outcome };
    let (level, result) = match &error.kind {
        // A query that the worker sent before the call has failed. Another attempt may succeed.
        BackendErrorKind::Server {
            class: class @ (ServerErrorClass::Transient | ServerErrorClass::Deadlock),
            ..
        } => (FailureKind::Query, not_executed(ProblemKind::BackendDown, outcome_of(*class))),
        BackendErrorKind::Server { class, .. } => {
            let problem = Problem::new(ProblemKind::Internal);
            (FailureKind::Error, reported(problem, outcome_of(*class)))
        }
        BackendErrorKind::Arguments(bad) => {
            let violations = bad.iter().map(|one| violation(&job.endpoint, one)).collect();
            (FailureKind::Debug, reported(Problem::invalid(violations), Outcome::BadArgument))
        }
        BackendErrorKind::Mismatch { .. } => {
            let problem = Problem::new(ProblemKind::Internal);
            (FailureKind::Mismatch, reported(problem, Outcome::SqlMismatch))
        }
        BackendErrorKind::TimedOut => {
            (FailureKind::Debug, not_executed(ProblemKind::Expired, Outcome::Expired))
        }
        BackendErrorKind::Cancelled => {
            let problem = Problem::new(ProblemKind::Cancelled);
            (FailureKind::Debug, reported(problem, Outcome::Cancelled))
        }
        BackendErrorKind::PoolTimedOut => {
            (FailureKind::Debug, not_executed(ProblemKind::Busy, Outcome::PoolTimeout))
        }
        // This failure is logged only at `debug`, because `Database` logs the condition once.
        BackendErrorKind::Unavailable => {
            (FailureKind::Debug, not_executed(ProblemKind::BackendDown, Outcome::BackendDown))
        }
    };
    log_failure(job, error, level);
    result
}

/// Maps the error of a call that was sent to the database. The result is never a refusal.
fn map_sent(job: &Job, error: &SentError) -> SentCallResult {
    match &error.kind {
        SentErrorKind::User { number, message } => map_user_error(job, error, *number, message),
        SentErrorKind::Server { number, class } => map_server_error(job, error, *number, *class),
        SentErrorKind::Mismatch { .. } => {
            log_failure(job, error, FailureKind::Mismatch);
            let problem = Problem::new(ProblemKind::Internal).with_effect(effect(job, error));
            SentCallResult::Problem { problem, outcome: Outcome::SqlMismatch }
        }
        SentErrorKind::Undecodable(_) => unusable(job, error, Outcome::SqlUndecodable),
        SentErrorKind::Sink(SinkError::TooLarge) => unusable(job, error, Outcome::AnswerTooLarge),
        SentErrorKind::Sink(SinkError::Shape) => unusable(job, error, Outcome::AnswerShape),
        SentErrorKind::TimedOut => {
            log_failure(job, error, FailureKind::Debug);
            problem(ProblemKind::AttemptTimedOut, Outcome::SqlTimeout)
        }
        SentErrorKind::Cancelled | SentErrorKind::Sink(SinkError::Closed) => {
            log_failure(job, error, FailureKind::Debug);
            problem(ProblemKind::Cancelled, Outcome::Cancelled)
        }
        SentErrorKind::Lost if job.request.execution == Execution::AtLeastOnce => {
            log_failure(job, error, FailureKind::Warn);
            let problem = Problem::new(ProblemKind::BadAnswer);
            SentCallResult::Unanswered { problem, outcome: Outcome::SqlLost }
        }
        SentErrorKind::Lost => unusable(job, error, Outcome::SqlLost),
    }
}

/// Returns the effect of a call that ended with a database error. Unless the whole call was rolled
/// back, statements before the error may have been committed, regardless of the error number.
fn effect(job: &Job, error: &SentError) -> Effect {
    // A call that lost a conflict or lacked resources may succeed if it is sent again, so it does not count as
    // executed. Its effect is unknown, because only a refusal can report `not-executed`. A dry run
    // that was rolled back counts as executed even after a conflict: sending it again does no harm.
    let may_succeed = !job.request.dry_run
        && matches!(
            error.kind,
            SentErrorKind::Server {
                class: ServerErrorClass::Deadlock
                    | ServerErrorClass::SnapshotConflict
                    | ServerErrorClass::Transient,
                ..
            }
        );
    if error.is_rolled_back && !may_succeed { Effect::Executed } else { Effect::Unknown }
}

/// Maps an error that the procedure raised. The client gets the error's message only if the error has a
/// status.
fn map_user_error(job: &Job, error: &SentError, number: u32, message: &str) -> SentCallResult {
    let status = job.endpoint.status.errors.get(&number).copied().or_else(|| own_status(number));
    if let Some(status) = status {
        log_failure(job, error, FailureKind::Debug);
        // Within a transaction, the error is the answer only if the whole call was rolled back.
        let is_open = job.endpoint.transaction && !error.is_rolled_back;
        let effect = is_open.then_some(Effect::Unknown);
        return with_status(status, Some(message.to_owned()), (Outcome::SqlUser, effect));
    }
    log_failure(job, error, FailureKind::Error);
    let problem = Problem::new(ProblemKind::Internal).with_effect(effect(job, error));
    SentCallResult::Problem { problem, outcome: Outcome::SqlUser }
}

/// Returns the status in an error number. A status that is reserved for the gateway becomes 500, but the
/// message is kept.
fn own_status(number: u32) -> Option<u16> {
    let status = u16::try_from(number.checked_sub(STATUS_NUMBERS_BASE)?).ok()?;
    let status = if GATEWAY_STATUSES.contains(&status) { 500 } else { status };
    STATUS_NUMBERS.contains(&number).then_some(status)
}

/// Maps a database error. The client never gets the error's message.
fn map_server_error(
    job: &Job,
    error: &SentError,
    number: u32,
    class: ServerErrorClass,
) -> SentCallResult {
    let (level, kind) = match class {
        ServerErrorClass::Conflict | ServerErrorClass::SnapshotConflict => {
            (FailureKind::Debug, ProblemKind::Conflict)
        }
        ServerErrorClass::BadValue => (FailureKind::Warn, ProblemKind::ProcedureError(400)),
        ServerErrorClass::Deadlock => (FailureKind::Warn, ProblemKind::Internal),
        ServerErrorClass::Mismatch | ServerErrorClass::Permission => {
            (FailureKind::Mismatch, ProblemKind::Internal)
        }
        // As after a deadlock, a 504 would say that the effect is unknown.
        ServerErrorClass::Transient if job.request.dry_run && error.is_rolled_back => {
            (FailureKind::Warn, ProblemKind::Internal)
        }
        // The call may succeed later, but it may already have had effects.
        ServerErrorClass::Transient => match job.request.execution {
            Execution::AtLeastOnce => (FailureKind::Warn, ProblemKind::AttemptTimedOut),
            Execution::AtMostOnce => (FailureKind::Warn, ProblemKind::OutcomeUnknown),
        },
        ServerErrorClass::Other => (FailureKind::Error, ProblemKind::Internal),
    };
    let outcome = outcome_of(class);
    if let Some(status) = job.endpoint.status.errors.get(&number) {
        log_failure(job, error, FailureKind::Debug);
        return with_status(*status, None, (outcome, Some(effect(job, error))));
    }
    log_failure(job, error, level);
    let problem = Problem::new(kind).with_effect(effect(job, error));
    SentCallResult::Problem { problem, outcome }
}

fn outcome_of(class: ServerErrorClass) -> Outcome {
    match class {
        ServerErrorClass::Conflict | ServerErrorClass::SnapshotConflict => Outcome::SqlConflict,
        ServerErrorClass::BadValue => Outcome::SqlBadValue,
        ServerErrorClass::Mismatch => Outcome::SqlMismatch,
        ServerErrorClass::Permission => Outcome::SqlPermission,
        ServerErrorClass::Deadlock => Outcome::SqlDeadlock,
        ServerErrorClass::Transient | ServerErrorClass::Other => Outcome::SqlError,
    }
}

/// Returns the result of a call that may have run, but whose answer cannot be forwarded.
fn unusable(job: &Job, error: &dyn Error, outcome: Outcome) -> SentCallResult {
    log_failure(job, error, FailureKind::Error);
    let kind = match job.request.execution {
        Execution::AtLeastOnce => ProblemKind::BadAnswer,
        Execution::AtMostOnce => ProblemKind::BadAnswerOutcomeUnknown,
    };
    problem(kind, outcome)
}

/// Returns the violation for a bad argument, with the names that the client uses.
fn violation(endpoint: &Endpoint, bad: &BadArgument) -> Violation {
    let BadArgument { argument, cell, reason } = bad;
    let Some(parameter) = endpoint.parameters.iter().find(|one| *one.argument == **argument) else {
        return Violation::in_parameter("argument", argument, reason);
    };
    if parameter.source != ParameterSource::Body {
        return Violation::in_parameter(parameter.source.as_str(), &parameter.name, reason);
    }
    let pointer = JsonPointer::ROOT.key(&parameter.name);
    let Some((row, column)) = cell else {
        return Violation::in_body(pointer.to_string(), reason);
    };
    let mut columns = parameter.columns.iter();
    let named = columns.find(|one| eq_ignore_case(&one.argument, column));
    let name = named.map_or(column.as_str(), |one| &*one.name);
    Violation::in_body(pointer.index(*row).key(name).to_string(), reason)
}

#[cfg(test)]
mod tests;
