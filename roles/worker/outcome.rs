//! What a procedure's outcome means to the client: the answer, or which problem.

use std::error::Error as _;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::catalogue::{Endpoint, Execution, Place, ResultKind};
use crate::envelope::Final;
use crate::envelope::reply::JSON;
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind, Violation};
use crate::procedures::{BackendError, BackendErrorKind, Outcome, ServerErrorClass, SinkError};
use crate::telemetry::conditions::{self, Condition};

use super::{Ending, Job};

mod answer;
mod json;
mod struck;
#[cfg(test)]
mod tests;

pub use answer::Answer;
/// User errors that name an HTTP status by themselves: 50404 is 404.
const SELF_MAPPED: std::ops::RangeInclusive<u32> = 50_400..=50_599;
/// What stands before the status in such a number.
const SELF_MAPPED_BASE: u32 = 50_000;

/// Every call of an endpoint fails until somebody changes the catalogue, the database or the rights.
const MISFIT: Condition = Condition::new("a procedure does not fit");

/// Statuses by which the gateway itself says what became of a request (DESIGN §5): not for a procedure to use.
const OURS: std::ops::RangeInclusive<u16> = 502..=504;

/// The ending of a call: the only place where a backend's errors and a RETURN status become HTTP (DESIGN §7).
#[must_use]
pub fn conclude(job: &Job, answer: Answer, result: Result<Outcome, BackendError>) -> Ending {
    match result {
        Ok(outcome) => succeeded(job, answer, &outcome),
        Err(error) => failed(job, &error),
    }
}

fn succeeded(job: &Job, answer: Answer, outcome: &Outcome) -> Ending {
    let endpoint = &job.endpoint;
    let mapped = endpoint.status.returns.get(&outcome.return_status).copied();
    if let Some(status) = mapped.filter(|status| *status >= 400 || is_bodiless(*status)) {
        return refused(status, None, Word::SqlReturn);
    }
    let body = match answer.finish(&endpoint.outputs, outcome) {
        Ok(Some(body)) => body,
        Ok(None) => {
            return Ending::Problem {
                problem: Problem::new(ProblemKind::NoRow),
                outcome: Word::NoRow,
            };
        }
        Err(error) => return failed(job, &error.into()),
    };
    if endpoint.result == ResultKind::None {
        return Ending::Final(Final::whole(mapped.unwrap_or(204), "", Bytes::new(), Word::Ok));
    }
    Ending::Final(Final::whole(mapped.unwrap_or(200), JSON, body.into(), Word::Ok))
}

/// Statuses whose answers have no body (RFC 9110 §15).
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// The procedure said no in its own words: a status that it or the catalogue chose.
fn refused(status: u16, detail: Option<String>, outcome: Word) -> Ending {
    let kind = match status {
        ..400 => return Ending::Final(Final::whole(status, "", Bytes::new(), Word::Ok)),
        404 => ProblemKind::NoRow,
        409 => ProblemKind::Conflict,
        status => ProblemKind::Refused(status),
    };
    Ending::Problem { problem: Problem { detail, ..Problem::new(kind) }, outcome }
}

fn failed(job: &Job, error: &BackendError) -> Ending {
    let problem = |kind, outcome| Ending::Problem { problem: Problem::new(kind), outcome };
    let not_executed = |kind, outcome| Ending::NotExecuted { problem: Problem::new(kind), outcome };
    match &error.kind {
        BackendErrorKind::User { number, message } => user(job, error, *number, message),
        BackendErrorKind::Server { number, class } => server(job, error, *number, *class),
        BackendErrorKind::Argument { argument, expected } => {
            log(job, error, Level::Debug);
            let problem = Problem::invalid(vec![violation(&job.endpoint, argument, expected)]);
            Ending::Problem { problem, outcome: Word::BadArgument }
        }
        BackendErrorKind::Mismatch { .. } => {
            log(job, error, Level::Misfit);
            problem(ProblemKind::Internal, Word::SqlMismatch)
        }
        BackendErrorKind::Undecodable(_) => unusable(job, error, Word::SqlUndecodable),
        BackendErrorKind::Sink(SinkError::TooLarge) => unusable(job, error, Word::AnswerTooLarge),
        BackendErrorKind::Sink(SinkError::Shape) => unusable(job, error, Word::AnswerShape),
        BackendErrorKind::TimedOut => {
            log(job, error, Level::Debug);
            problem(ProblemKind::AttemptTimedOut, Word::SqlTimeout)
        }
        BackendErrorKind::Cancelled | BackendErrorKind::Sink(SinkError::Gone) => {
            log(job, error, Level::Debug);
            problem(ProblemKind::Cancelled, Word::Cancelled)
        }
        BackendErrorKind::PoolTimedOut => {
            log(job, error, Level::Debug);
            not_executed(ProblemKind::Busy, Word::PoolTimeout)
        }
        // Logged once for all of its calls, by who knows which database it is.
        BackendErrorKind::Unavailable => {
            log(job, error, Level::Debug);
            not_executed(ProblemKind::BackendDown, Word::BackendDown)
        }
        BackendErrorKind::Lost if job.request.execution == Execution::AtLeastOnce => {
            log(job, error, Level::Warn);
            let problem = Problem::new(ProblemKind::BadAnswer);
            Ending::Unanswered { problem, outcome: Word::SqlLost }
        }
        BackendErrorKind::Lost => unusable(job, error, Word::SqlLost),
    }
}

/// An error that the procedure raised: its message is for the caller only when a status is known for it.
fn user(job: &Job, error: &BackendError, number: u32, message: &str) -> Ending {
    let status = job.endpoint.status.errors.get(&number).copied().or_else(|| own_status(number));
    if let Some(status) = status {
        return refused(status, Some(message.to_owned()), Word::SqlUser);
    }
    log(job, error, Level::Error);
    Ending::Problem { problem: Problem::new(ProblemKind::Internal), outcome: Word::SqlUser }
}

/// The status that a number names by itself. One that is ours becomes 500, with the message.
fn own_status(number: u32) -> Option<u16> {
    let status = u16::try_from(number.checked_sub(SELF_MAPPED_BASE)?).ok()?;
    SELF_MAPPED.contains(&number).then_some(if OURS.contains(&status) { 500 } else { status })
}

/// An error of the database itself: its message never leaves.
fn server(job: &Job, error: &BackendError, number: u32, class: ServerErrorClass) -> Ending {
    let (level, kind, outcome) = match class {
        ServerErrorClass::Conflict => (Level::Debug, ProblemKind::Conflict, Word::SqlConflict),
        ServerErrorClass::BadValue => (Level::Warn, ProblemKind::Refused(400), Word::SqlBadValue),
        ServerErrorClass::Mismatch => (Level::Misfit, ProblemKind::Internal, Word::SqlMismatch),
        ServerErrorClass::Permission => (Level::Misfit, ProblemKind::Internal, Word::SqlPermission),
        ServerErrorClass::Deadlock => (Level::Warn, ProblemKind::Internal, Word::SqlDeadlock),
        ServerErrorClass::Other => (Level::Error, ProblemKind::Internal, Word::SqlError),
    };
    if let Some(status) = job.endpoint.status.errors.get(&number) {
        log(job, error, Level::Debug);
        return refused(*status, None, outcome);
    }
    log(job, error, level);
    Ending::Problem { problem: Problem::new(kind), outcome }
}

/// The procedure ran, or may have, and its answer cannot be passed on.
fn unusable(job: &Job, error: &BackendError, outcome: Word) -> Ending {
    log(job, error, Level::Error);
    let kind = match job.request.execution {
        Execution::AtLeastOnce => ProblemKind::BadAnswer,
        Execution::AtMostOnce => ProblemKind::BadAnswerOutcomeUnknown,
    };
    Ending::Problem { problem: Problem::new(kind), outcome }
}

/// The violation that an argument stands for, in the words of the request.
fn violation(endpoint: &Endpoint, argument: &str, expected: &str) -> Violation {
    match endpoint.parameters.iter().find(|parameter| &*parameter.argument == argument) {
        Some(parameter) if parameter.place == Place::Body => {
            let name = parameter.name.replace('~', "~0").replace('/', "~1");
            Violation::of_body(format!("/{name}"), expected)
        }
        Some(parameter) => {
            Violation::of_parameter(parameter.place.as_str(), &parameter.name, expected)
        }
        None => Violation::of_parameter("argument", argument, expected),
    }
}

/// Who has to do something about it.
#[derive(Clone, Copy)]
enum Level {
    /// Somebody here.
    Error,
    /// Somebody here, and until then every call fails: catalogue and database, or rights.
    Misfit,
    /// Nobody now.
    Warn,
    /// It is the caller's matter.
    Debug,
}

fn log(job: &Job, error: &BackendError, level: Level) {
    let mut cause = error.to_string();
    if let BackendErrorKind::User { message, .. } = &error.kind {
        append(&mut cause, message);
    }
    let mut source = error.source();
    while let Some(inner) = source {
        append(&mut cause, inner);
        source = inner.source();
    }
    let cause = struck::without_values(&cause, &job.request.payload);
    let endpoint = job.endpoint.id.as_str();
    match level {
        Level::Misfit if !conditions::begins(&MISFIT, endpoint) => {
            tracing::debug!(endpoint, cause, "the procedure failed");
        }
        Level::Error | Level::Misfit => tracing::error!(endpoint, cause, "the procedure failed"),
        Level::Warn => tracing::warn!(endpoint, cause, "the procedure failed"),
        Level::Debug => tracing::debug!(endpoint, cause, "the procedure failed"),
    }
}

fn append(cause: &mut String, more: impl std::fmt::Display) {
    // Writing into a string does not fail.
    let written = write!(cause, ": {more}");
    debug_assert!(written.is_ok(), "a string grows");
}
