//! Tests the statuses, outcomes and effects of results and errors.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::catalogue::load::fixture::catalogue;
use crate::catalogue::parameter::Constraints;
use crate::catalogue::{Parameter, ParameterType, StatusMap};
use crate::envelope::{Reply, Request};
use crate::message::Subject;
use crate::procedures::{Cell, RowSink};

fn endpoint(result: ResultKind) -> Endpoint {
    let catalogue = catalogue(r#""horse-get": {"route":"GET /v1/horses", KEYS}"#);
    let status = StatusMap {
        returns: [(1, 404), (2, 422), (3, 202), (4, 204)].into(),
        errors: [(50001, 422), (60000, 418), (2067, 412)].into(),
    };
    Endpoint { result, status, ..Endpoint::clone(&catalogue.endpoints()[0]) }
}

fn job(endpoint: Endpoint, execution: Execution) -> Job {
    let request = Request {
        endpoint: endpoint.id.clone(),
        request_id: "r-1".into(),
        attempt: 1,
        timeout: Duration::from_secs(1),
        execution,
        dry_run: false,
        principal: None,
        waiting: 0,
        window: 0,
        idempotency_key: None,
        traceparent: None,
        tracestate: None,
        accept: None,
        payload: Bytes::new(),
    };
    Job { endpoint: Arc::new(endpoint), request, progress: Arc::default() }
}

/// Returns the status and body for the given RETURN status and `rows` rows.
fn answered(kind: ResultKind, rows: usize, return_status: i32) -> (u16, String) {
    let job = job(endpoint(kind), Execution::AtLeastOnce);
    let mut sink = AnswerSink::new(kind, 10_000);
    sink.begin_set(&["a".to_owned()]).unwrap();
    for _ in 0..rows {
        sink.row(&[Cell::Int(1)]).unwrap();
    }
    match map_result(&job, sink, Ok(ProcedureResult { outputs: Vec::new(), return_status })) {
        JobResult::Final(answer) => {
            assert_eq!(answer.content_type.is_empty(), answer.body.is_empty());
            (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
        }
        JobResult::Problem { problem, outcome } => {
            (problem.kind.status().as_u16(), outcome.to_string())
        }
        JobResult::NotExecuted { .. } | JobResult::Unanswered { .. } => panic!("executed"),
    }
}

#[test]
fn a_return_status_becomes_the_status_that_the_catalogue_maps_it_to() {
    let object = r#"{"a":1}"#.to_owned();
    let rejected = Outcome::SqlReturn.to_string();
    let cases = [
        (0, (200, object.clone())),
        (1, (404, rejected.clone())),
        (2, (422, rejected)),
        (3, (202, object.clone())),
        (4, (204, String::new())),
        (9, (200, object)),
    ];
    for (status, expected) in cases {
        assert_eq!(answered(ResultKind::Row, 1, status), expected, "{status}");
    }
    assert_eq!(answered(ResultKind::None, 1, 0), (204, String::new()));
    assert_eq!(answered(ResultKind::None, 0, 3), (202, String::new()));
    assert_eq!(answered(ResultKind::Row, 0, 3), (404, Outcome::NoRow.to_string()));
}

fn mapped(error: impl Into<CallError>, execution: Execution) -> JobResult {
    let job = job(endpoint(ResultKind::Row), execution);
    map_result(&job, AnswerSink::new(ResultKind::Row, 100), Err(error.into()))
}

fn sent_error(kind: SentErrorKind) -> SentError {
    SentError::caused_by(kind, "secret of the database")
}

/// Lists failures of calls that were sent, each with its problem, outcome and detail.
fn sent_errors() -> Vec<(SentErrorKind, ProblemKind, Outcome, Option<&'static str>)> {
    use SentErrorKind as K;
    use ServerErrorClass as C;
    let user = |number| K::User { number, message: "says why".to_owned() };
    let server = |class| K::Server { number: 1, class };
    let text = "x".to_owned();
    let mismatch = K::Mismatch { procedure: text.clone(), difference: text.clone() };
    let internal = ProblemKind::Internal;
    let shown = Some("says why");
    vec![
        (user(50400), ProblemKind::ProcedureError(400), Outcome::SqlUser, shown),
        (user(50404), ProblemKind::NoRow, Outcome::SqlUser, shown),
        (user(50409), ProblemKind::Conflict, Outcome::SqlUser, shown),
        (user(50503), ProblemKind::ProcedureError(500), Outcome::SqlUser, shown),
        (user(50599), ProblemKind::ProcedureError(599), Outcome::SqlUser, shown),
        (user(50001), ProblemKind::ProcedureError(422), Outcome::SqlUser, shown),
        (user(60000), ProblemKind::ProcedureError(418), Outcome::SqlUser, shown),
        (user(50399), internal, Outcome::SqlUser, None),
        (user(50600), internal, Outcome::SqlUser, None),
        (user(u32::MAX), internal, Outcome::SqlUser, None),
        (server(C::Conflict), ProblemKind::Conflict, Outcome::SqlConflict, None),
        (server(C::SnapshotConflict), ProblemKind::Conflict, Outcome::SqlConflict, None),
        (server(C::BadValue), ProblemKind::ProcedureError(400), Outcome::SqlBadValue, None),
        (server(C::Mismatch), internal, Outcome::SqlMismatch, None),
        (server(C::Permission), internal, Outcome::SqlPermission, None),
        (server(C::Deadlock), internal, Outcome::SqlDeadlock, None),
        (server(C::Transient), ProblemKind::AttemptTimedOut, Outcome::SqlError, None),
        (server(C::Other), internal, Outcome::SqlError, None),
        (
            K::Server { number: 2067, class: C::Conflict },
            ProblemKind::PreconditionFailed,
            Outcome::SqlConflict,
            None,
        ),
        (mismatch, internal, Outcome::SqlMismatch, None),
        (K::Undecodable(text), ProblemKind::BadAnswer, Outcome::SqlUndecodable, None),
        (K::Sink(SinkError::TooLarge), ProblemKind::BadAnswer, Outcome::AnswerTooLarge, None),
        (K::Sink(SinkError::Shape), ProblemKind::BadAnswer, Outcome::AnswerShape, None),
        (K::Sink(SinkError::Closed), ProblemKind::Cancelled, Outcome::Cancelled, None),
        (K::TimedOut, ProblemKind::AttemptTimedOut, Outcome::SqlTimeout, None),
        (K::Cancelled, ProblemKind::Cancelled, Outcome::Cancelled, None),
    ]
}

#[test]
fn every_error_is_mapped_to_its_problem_and_outcome() {
    for (kind, expected, expected_outcome, detail) in sent_errors() {
        match mapped(sent_error(kind.clone()), Execution::AtLeastOnce) {
            JobResult::Problem { problem, outcome } => {
                assert_eq!((problem.kind, outcome), (expected, expected_outcome), "{kind:?}");
                assert_eq!(problem.detail.as_deref(), detail, "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[test]
fn a_call_that_was_sent_never_becomes_a_refusal_or_a_503() {
    let kinds = sent_errors().into_iter().map(|(kind, ..)| kind).chain([SentErrorKind::Lost]);
    for kind in kinds {
        for execution in [Execution::AtLeastOnce, Execution::AtMostOnce] {
            for is_rolled_back in [false, true] {
                let error = SentError { is_rolled_back, ..sent_error(kind.clone()) };
                let result = mapped(error, execution);
                let is_refusal = matches!(result, JobResult::NotExecuted { .. });
                let answer = result.into_final("r");
                let status = answer.status;
                assert!(!is_refusal && status != 503, "{kind:?} {execution:?}: {status}");
                assert!(is_accepted(answer), "{kind:?} {execution:?}: {status}");
            }
        }
    }
}

/// Returns whether a gateway accepts an answer.
fn is_accepted(answer: Final) -> bool {
    let reply = Subject::new("_INBOX.r").unwrap();
    Reply::parse(Reply::Final(answer).into_message(reply).unwrap()).is_ok()
}

/// Returns the `effect` member of the problem document.
fn effect_of(result: JobResult) -> String {
    let body: serde_json::Value = serde_json::from_slice(&result.into_final("r").body).unwrap();
    body["effect"].as_str().unwrap().to_owned()
}

#[test]
fn a_database_error_has_an_unknown_effect_unless_the_whole_call_was_rolled_back() {
    use ServerErrorClass as C;
    let contention = [C::SnapshotConflict, C::Deadlock, C::Transient];
    let others = [C::Conflict, C::BadValue, C::Mismatch, C::Permission, C::Other];
    for class in contention.into_iter().chain(others) {
        for number in [1, 2067] {
            let error = sent_error(SentErrorKind::Server { number, class });
            for execution in [Execution::AtLeastOnce, Execution::AtMostOnce] {
                let error = SentError { source: None, ..SentError::new(error.kind.clone()) };
                assert_eq!(effect_of(mapped(error, execution)), "unknown", "{class:?}");
            }
            let error = SentError { is_rolled_back: true, ..error };
            let expected = if contention.contains(&class) { "unknown" } else { "executed" };
            assert_eq!(effect_of(mapped(error, Execution::AtMostOnce)), expected, "{class:?}");
        }
    }
    // An error that the procedure raises with a status counts as the procedure's answer.
    let thrown = SentErrorKind::User { number: 50409, message: "no".to_owned() };
    assert_eq!(effect_of(mapped(sent_error(thrown), Execution::AtMostOnce)), "executed");
}

#[test]
fn a_call_that_was_not_sent_was_not_executed() {
    use BackendErrorKind as K;
    let text = "x".to_owned();
    let kinds = [
        K::Server { number: 229, class: ServerErrorClass::Permission },
        K::Server { number: 701, class: ServerErrorClass::Transient },
        K::Server { number: 208, class: ServerErrorClass::Other },
        K::Arguments(vec![BadArgument {
            argument: text.clone(),
            cell: Some((1, text.clone())),
            reason: text.clone(),
        }]),
        K::Mismatch { procedure: text.clone(), difference: text },
        K::TimedOut,
        K::Cancelled,
        K::PoolTimedOut,
        K::Unavailable,
    ];
    for kind in kinds {
        let result = mapped(BackendError::new(kind.clone()), Execution::AtMostOnce);
        let is_refusal = matches!(result, JobResult::NotExecuted { .. });
        let answer = result.clone().into_final("r");
        if is_refusal || answer.status < 500 {
            assert_eq!(effect_of(result), "not-executed", "{kind:?}");
        }
        if !is_refusal {
            assert!(is_accepted(answer), "{kind:?}");
        }
    }
    let cases = [
        (K::TimedOut, ProblemKind::Expired, Outcome::Expired),
        (K::PoolTimedOut, ProblemKind::Busy, Outcome::PoolTimeout),
        (K::Unavailable, ProblemKind::BackendDown, Outcome::BackendDown),
        // A query that the worker sent before the call has failed for a temporary reason.
        (
            K::Server { number: 1222, class: ServerErrorClass::Transient },
            ProblemKind::BackendDown,
            Outcome::SqlError,
        ),
    ];
    for (kind, expected, outcome) in cases {
        let problem = Problem::new(expected);
        let result = mapped(BackendError::new(kind), Execution::AtMostOnce);
        assert_eq!(result, JobResult::NotExecuted { problem, outcome });
    }
}

#[test]
fn an_at_least_once_call_that_was_lost_gets_no_reply() {
    let result = mapped(sent_error(SentErrorKind::Lost), Execution::AtLeastOnce);
    let problem = Problem::new(ProblemKind::BadAnswer);
    assert_eq!(result, JobResult::Unanswered { problem, outcome: Outcome::SqlLost });
}

#[test]
fn an_at_most_once_call_with_an_unusable_answer_has_an_unknown_outcome() {
    for kind in [SentErrorKind::Lost, SentErrorKind::Sink(SinkError::TooLarge)] {
        match mapped(sent_error(kind), Execution::AtMostOnce) {
            JobResult::Problem { problem, .. } => {
                assert_eq!(problem.kind, ProblemKind::BadAnswerOutcomeUnknown);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bad_argument_is_reported_with_the_name_that_the_client_uses() {
    let parameter = |name: &str, argument: &str, source| Parameter {
        name: name.into(),
        argument: argument.into(),
        source,
        session_context: false,
        kind: ParameterType::String,
        required: false,
        default: None,
        constraints: Constraints::default(),
        description: None,
        columns: Vec::new(),
        table_type: None,
    };
    let cell = Some((3, "COL".to_owned()));
    let cases = [
        (ParameterSource::Body, None, Violation::in_body("/in~1put", "a date")),
        (ParameterSource::Body, cell, Violation::in_body("/in~1put/3/column", "a date")),
        (ParameterSource::Query, None, Violation::in_parameter("query", "in/put", "a date")),
    ];
    for (source, cell, expected) in cases {
        let mut endpoint = endpoint(ResultKind::Row);
        let columns = vec![parameter("column", "col", ParameterSource::Column)];
        endpoint.parameters =
            Arc::new([Parameter { columns, ..parameter("in/put", "arg", source) }]);
        let job = job(endpoint, Execution::AtLeastOnce);
        let bad = BadArgument { argument: "arg".into(), cell, reason: "a date".into() };
        let kind = BackendErrorKind::Arguments(vec![bad]);
        let result = map_result(&job, AnswerSink::new(ResultKind::Row, 100), Err(kind.into()));
        let problem = Problem::invalid(vec![expected]).with_effect(Effect::NotExecuted);
        assert_eq!(result, JobResult::Problem { problem, outcome: Outcome::BadArgument });
    }
}
