//! What a procedure's outcome means to the client: the answer, or which problem.

use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::catalogue::findings::Pointer;
use crate::catalogue::{Endpoint, Execution, Place, ResultKind};
use crate::envelope::Final;
use crate::envelope::reply::JSON;
use crate::outcome::Word;
use crate::problem::{Effect, Problem, ProblemKind, Violation};
use crate::procedures::{
    BackendError, BackendErrorKind, BadArgument, CallError, Outcome, SentError, SentErrorKind,
    ServerErrorClass, SinkError,
};
use crate::telemetry::conditions::{self, Condition};

use crate::roles::worker::execution::job_result::SentEnding;
use crate::roles::worker::{Ending, Job};

#[cfg(test)]
mod tests;

use super::json_sink::Answer;
use super::redact;
/// User errors that name an HTTP status by themselves: 50404 is 404.
const SELF_MAPPED: std::ops::RangeInclusive<u32> = 50_400..=50_599;
/// What stands before the status in such a number.
const SELF_MAPPED_BASE: u32 = 50_000;

/// Every call of an endpoint fails until somebody changes the catalogue, the database or the rights.
const MISFIT: Condition = Condition::new("a procedure does not fit");

/// The database refuses the queries that the worker makes before a call.
const QUERY_REFUSED: Condition = Condition::new("a query before a call fails");

/// Statuses by which the gateway itself says what became of a request (DESIGN §5): not for a procedure to use.
const OURS: std::ops::RangeInclusive<u16> = 502..=504;

/// The ending of a call: the only place where a backend's errors and a RETURN status become HTTP (DESIGN §7).
#[must_use]
pub fn conclude(job: &Job, answer: Answer, result: Result<Outcome, CallError>) -> Ending {
    match result {
        Ok(outcome) => succeeded(job, answer, &outcome).into(),
        Err(CallError::NotSent(error)) => not_sent(job, &error),
        Err(CallError::Sent(error)) => sent(job, &error).into(),
    }
}

fn succeeded(job: &Job, answer: Answer, outcome: &Outcome) -> SentEnding {
    let endpoint = &job.endpoint;
    let mapped = endpoint.status.returns.get(&outcome.return_status).copied();
    if let Some(status) = mapped.filter(|status| *status >= 400 || is_bodiless(*status)) {
        return refused(status, None, (Word::SqlReturn, None));
    }
    let body = match answer.finish(&endpoint.outputs, outcome) {
        Ok(Some(body)) => body,
        Ok(None) => {
            return problem(ProblemKind::NoRow, Word::NoRow);
        }
        Err(error) => return sent(job, &SentErrorKind::Sink(error).into()),
    };
    if endpoint.result == ResultKind::None {
        return SentEnding::Final(Final::whole(mapped.unwrap_or(204), "", Bytes::new(), Word::Ok));
    }
    SentEnding::Final(Final::whole(mapped.unwrap_or(200), JSON, body.into(), Word::Ok))
}

fn problem(kind: ProblemKind, outcome: Word) -> SentEnding {
    SentEnding::Problem { problem: Problem::new(kind), outcome }
}

/// Statuses whose answers have no body (RFC 9110 §15).
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// The procedure said no in its own words: a status that it or the catalogue chose.
fn refused(
    status: u16,
    detail: Option<String>,
    (outcome, effect): (Word, Option<Effect>),
) -> SentEnding {
    let kind = match status {
        ..400 => return SentEnding::Final(Final::whole(status, "", Bytes::new(), Word::Ok)),
        404 => ProblemKind::NoRow,
        409 => ProblemKind::Conflict,
        status => ProblemKind::Refused(status),
    };
    SentEnding::Problem { problem: Problem { detail, effect, ..Problem::new(kind) }, outcome }
}

/// Nothing of the call was sent: whatever the client is told, the procedure did not run.
fn not_sent(job: &Job, error: &BackendError) -> Ending {
    // A reply of 500 or more cannot claim `not-executed`: the gateway does not trust it (`envelope::promise`).
    let told = |problem: Problem, outcome| {
        let may_say = problem.kind.status().as_u16() < 500;
        let effect = if may_say { Effect::NotExecuted } else { Effect::Unknown };
        Ending::Problem { problem: problem.with_effect(effect), outcome }
    };
    let not_executed = |kind, outcome| Ending::NotExecuted { problem: Problem::new(kind), outcome };
    let (level, ending) = match &error.kind {
        // One of the worker's own queries before the call failed: another attempt may succeed.
        BackendErrorKind::Server {
            class: class @ (ServerErrorClass::Transient | ServerErrorClass::Deadlock),
            ..
        } => (Level::Query, not_executed(ProblemKind::BackendDown, word_of(*class))),
        BackendErrorKind::Server { class, .. } => {
            (Level::Error, told(Problem::new(ProblemKind::Internal), word_of(*class)))
        }
        BackendErrorKind::Arguments(bad) => {
            let violations = bad.iter().map(|one| violation(&job.endpoint, one)).collect();
            let problem = Problem::invalid(violations);
            (Level::Debug, told(problem, Word::BadArgument))
        }
        BackendErrorKind::Mismatch { .. } => {
            (Level::Misfit, told(Problem::new(ProblemKind::Internal), Word::SqlMismatch))
        }
        BackendErrorKind::TimedOut => {
            (Level::Debug, not_executed(ProblemKind::Expired, Word::Expired))
        }
        BackendErrorKind::Cancelled => {
            (Level::Debug, told(Problem::new(ProblemKind::Cancelled), Word::Cancelled))
        }
        BackendErrorKind::PoolTimedOut => {
            (Level::Debug, not_executed(ProblemKind::Busy, Word::PoolTimeout))
        }
        // Logged once for all of its calls, by who knows which database it is.
        BackendErrorKind::Unavailable => {
            (Level::Debug, not_executed(ProblemKind::BackendDown, Word::BackendDown))
        }
    };
    log(job, error, None, level);
    ending
}

/// The call was sent: there is no way from here to a refusal.
fn sent(job: &Job, error: &SentError) -> SentEnding {
    match &error.kind {
        SentErrorKind::User { number, message } => user(job, error, *number, message),
        SentErrorKind::Server { number, class } => server(job, error, *number, *class),
        SentErrorKind::Mismatch { .. } => {
            log(job, error, None, Level::Misfit);
            let problem = Problem::new(ProblemKind::Internal).with_effect(effect(job, error));
            SentEnding::Problem { problem, outcome: Word::SqlMismatch }
        }
        SentErrorKind::Undecodable(_) => unusable(job, error, Word::SqlUndecodable),
        SentErrorKind::Sink(SinkError::TooLarge) => unusable(job, error, Word::AnswerTooLarge),
        SentErrorKind::Sink(SinkError::Shape) => unusable(job, error, Word::AnswerShape),
        SentErrorKind::TimedOut => {
            log(job, error, None, Level::Debug);
            problem(ProblemKind::AttemptTimedOut, Word::SqlTimeout)
        }
        SentErrorKind::Cancelled | SentErrorKind::Sink(SinkError::Gone) => {
            log(job, error, None, Level::Debug);
            problem(ProblemKind::Cancelled, Word::Cancelled)
        }
        SentErrorKind::Lost if job.request.execution == Execution::AtLeastOnce => {
            log(job, error, None, Level::Warn);
            let problem = Problem::new(ProblemKind::BadAnswer);
            SentEnding::Unanswered { problem, outcome: Word::SqlLost }
        }
        SentErrorKind::Lost => unusable(job, error, Word::SqlLost),
    }
}

/// What an error of the database leaves behind. Without a transaction of ours the statements before it may have been
/// committed, whatever its number says.
fn effect(job: &Job, error: &SentError) -> Effect {
    // It lost against another call, and may well succeed when it is sent again. An answer cannot say `not-executed`: only a
    // refusal can. A dry run that is proved to leave nothing was executed: to send it again does no harm.
    let may_succeed = !job.request.dry_run
        && matches!(
            error.kind,
            SentErrorKind::Server {
                class: ServerErrorClass::Deadlock | ServerErrorClass::SnapshotConflict,
                ..
            }
        );
    if error.is_rolled_back && !may_succeed { Effect::Executed } else { Effect::Unknown }
}

/// An error that the procedure raised: its message is for the caller only when a status is known for it.
fn user(job: &Job, error: &SentError, number: u32, message: &str) -> SentEnding {
    let status = job.endpoint.status.errors.get(&number).copied().or_else(|| own_status(number));
    if let Some(status) = status {
        // In a transaction it is the answer only when nothing of the call stays.
        let is_open = job.endpoint.transaction && !error.is_rolled_back;
        let effect = is_open.then_some(Effect::Unknown);
        return refused(status, Some(message.to_owned()), (Word::SqlUser, effect));
    }
    log(job, error, Some(message), Level::Error);
    let problem = Problem::new(ProblemKind::Internal).with_effect(effect(job, error));
    SentEnding::Problem { problem, outcome: Word::SqlUser }
}

/// The status that a number names by itself. One that is ours becomes 500, with the message.
fn own_status(number: u32) -> Option<u16> {
    let status = u16::try_from(number.checked_sub(SELF_MAPPED_BASE)?).ok()?;
    SELF_MAPPED.contains(&number).then_some(if OURS.contains(&status) { 500 } else { status })
}

/// An error of the database itself: its message never leaves.
fn server(job: &Job, error: &SentError, number: u32, class: ServerErrorClass) -> SentEnding {
    let (level, kind) = match class {
        ServerErrorClass::Conflict | ServerErrorClass::SnapshotConflict => {
            (Level::Debug, ProblemKind::Conflict)
        }
        ServerErrorClass::BadValue => (Level::Warn, ProblemKind::Refused(400)),
        ServerErrorClass::Deadlock => (Level::Warn, ProblemKind::Internal),
        ServerErrorClass::Mismatch | ServerErrorClass::Permission => {
            (Level::Misfit, ProblemKind::Internal)
        }
        ServerErrorClass::Transient | ServerErrorClass::Other => {
            (Level::Error, ProblemKind::Internal)
        }
    };
    let outcome = word_of(class);
    if let Some(status) = job.endpoint.status.errors.get(&number) {
        log(job, error, None, Level::Debug);
        return refused(*status, None, (outcome, Some(effect(job, error))));
    }
    log(job, error, None, level);
    let problem = Problem::new(kind).with_effect(effect(job, error));
    SentEnding::Problem { problem, outcome }
}

fn word_of(class: ServerErrorClass) -> Word {
    match class {
        ServerErrorClass::Conflict | ServerErrorClass::SnapshotConflict => Word::SqlConflict,
        ServerErrorClass::BadValue => Word::SqlBadValue,
        ServerErrorClass::Mismatch => Word::SqlMismatch,
        ServerErrorClass::Permission => Word::SqlPermission,
        ServerErrorClass::Deadlock => Word::SqlDeadlock,
        ServerErrorClass::Transient | ServerErrorClass::Other => Word::SqlError,
    }
}

/// The procedure ran, or may have, and its answer cannot be passed on.
fn unusable(job: &Job, error: &SentError, outcome: Word) -> SentEnding {
    log(job, error, None, Level::Error);
    let kind = match job.request.execution {
        Execution::AtLeastOnce => ProblemKind::BadAnswer,
        Execution::AtMostOnce => ProblemKind::BadAnswerOutcomeUnknown,
    };
    problem(kind, outcome)
}

/// The violation that a bad argument stands for, in the words of the request.
fn violation(endpoint: &Endpoint, bad: &BadArgument) -> Violation {
    let BadArgument { argument, cell, reason } = bad;
    let Some(parameter) = endpoint.parameters.iter().find(|one| *one.argument == **argument) else {
        return Violation::of_parameter("argument", argument, reason);
    };
    if parameter.place != Place::Body {
        return Violation::of_parameter(parameter.place.as_str(), &parameter.name, reason);
    }
    let pointer = Pointer::ROOT.key(&parameter.name);
    let Some((row, column)) = cell else {
        return Violation::of_body(pointer.to_string(), reason);
    };
    let mut columns = parameter.columns.iter();
    let named = columns.find(|one| one.argument.eq_ignore_ascii_case(column));
    let name = named.map_or(column.as_str(), |one| &*one.name);
    Violation::of_body(pointer.index(*row).key(name).to_string(), reason)
}

/// Who has to do something about it.
#[derive(Clone, Copy)]
enum Level {
    /// Somebody here.
    Error,
    /// Somebody here, and until then every call fails: catalogue and database, or rights.
    Misfit,
    /// Somebody here, if it lasts: the database lacks something, and the call was not sent.
    Query,
    /// Nobody now.
    Warn,
    /// It is the caller's matter.
    Debug,
}

fn log(job: &Job, error: &dyn Error, message: Option<&str>, level: Level) {
    let mut cause = error.to_string();
    if let Some(message) = message {
        append(&mut cause, message);
    }
    let mut source = error.source();
    while let Some(inner) = source {
        append(&mut cause, inner);
        source = inner.source();
    }
    let cause = redact::without_values(&cause, &job.request.payload);
    let endpoint = job.endpoint.id.as_str();
    match level {
        Level::Misfit if !conditions::begins(&MISFIT, endpoint) => {
            tracing::debug!(endpoint, cause, "the procedure failed");
        }
        Level::Query if conditions::begins(&QUERY_REFUSED, endpoint) => {
            tracing::warn!(endpoint, cause, "a call was not sent: a query before it failed");
        }
        Level::Query => {
            tracing::debug!(endpoint, cause, "a call was not sent: a query before it failed");
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
