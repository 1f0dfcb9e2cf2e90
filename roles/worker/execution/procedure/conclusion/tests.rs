//! Tables of cases: rows to text, errors to statuses.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::catalogue::endpoint::{Auth, OnDisconnect};
use crate::catalogue::parameter::Constraints;
use crate::catalogue::{EndpointId, Parameter, ParameterType, QueueName, StatusMap};
use crate::envelope::{Reply, Request};
use crate::message::Subject;
use crate::procedures::{Cell, OwnedCell, RowSink};

fn endpoint(result: ResultKind, outputs: &[&str]) -> Endpoint {
    Endpoint {
        id: EndpointId::new("horse-get").unwrap(),
        method: http::Method::GET,
        path: "/v1/horses".into(),
        summary: None,
        description: None,
        tags: Vec::new(),
        deprecated: false,
        queue: QueueName::new("horse-get").unwrap(),
        handler: "procedure".into(),
        procedure: None,
        parameters: Arc::new([]),
        result,
        outputs: outputs.iter().map(ToString::to_string).collect(),
        status: StatusMap {
            returns: [(1, 404), (2, 422), (3, 202), (4, 204)].into(),
            errors: [(50001, 422), (60000, 418), (2067, 412)].into(),
        },
        execution: Execution::AtLeastOnce,
        transaction: false,
        dry_run: false,
        timeout: Duration::from_secs(1),
        session: Duration::from_secs(1),
        attempts: 1,
        on_disconnect: OnDisconnect::Finish,
        auth: Auth::Public,
        body_bytes_max: 1024,
        rate_limit: None,
        cache_control: None,
        cors: None,
    }
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
        payload: Bytes::new(),
    };
    Job { endpoint: Arc::new(endpoint), request, times: Arc::default() }
}

type Case<'a> = (ResultKind, &'a [&'a str], &'a [Set<'a>], (u16, String));
type Set<'a> = (&'a [&'a str], &'a [&'a [Cell<'a>]]);

fn feed(answer: &mut Answer, sets: &[Set<'_>]) -> Result<(), SinkError> {
    for (columns, rows) in sets {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        answer.begin_set(&columns)?;
        for row in *rows {
            answer.row(row)?;
        }
    }
    Ok(())
}

fn outcome(return_status: i32) -> Outcome {
    Outcome {
        outputs: vec![
            ("id".to_owned(), OwnedCell::Int(7)),
            ("a".to_owned(), OwnedCell::Number("1.50".to_owned())),
        ],
        return_status,
    }
}

/// What a procedure with these sets and outputs is answered with: the status and the text.
fn answered(result: ResultKind, outputs: &[&str], sets: &[Set<'_>], status: i32) -> (u16, String) {
    let job = job(endpoint(result, outputs), Execution::AtLeastOnce);
    let mut answer = Answer::new(result, 10_000);
    feed(&mut answer, sets).unwrap();
    match conclude(&job, answer, Ok(outcome(status))) {
        Ending::Final(answer) => {
            assert_eq!(answer.content_type.is_empty(), answer.body.is_empty());
            (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
        }
        Ending::Problem { problem, outcome } => {
            (problem.kind.status().as_u16(), outcome.to_string())
        }
        Ending::NotExecuted { .. } | Ending::Unanswered { .. } => panic!("executed"),
    }
}

const ONE: &[Cell<'_>] = &[Cell::Int(1), Cell::Text("x")];
const TWO: &[Cell<'_>] = &[Cell::Null, Cell::Bool(true)];
const NO_ROWS: Set<'_> = (&["a", "b"], &[]);
const ROWS: Set<'_> = (&["a", "b"], &[ONE, TWO]);
const OTHER: Set<'_> = (&["", "c", "c"], &[&[Cell::Float(0.5), Cell::Null, Cell::Binary(b"abc")]]);
const TEXT: Set<'_> = (&["j"], &[&[Cell::Text("[1,")], &[Cell::Null], &[Cell::Text("2]")]]);

#[test]
fn every_result_kind_has_its_shape() {
    use ResultKind as R;
    let object = r#"{"a":1,"b":"x"}"#;
    let both = r#"[{"a":1,"b":"x"},{"a":null,"b":true}]"#;
    let other = r#"[{"column_1":0.5,"c":null,"c_2":"YWJj"}]"#;
    let full = |sets: &str, outputs: &str| {
        (200, format!(r#"{{"sets":{sets},"outputs":{outputs},"return":0}}"#))
    };
    let ok = |text: &str| (200, text.to_owned());
    let no_row = (404, Word::NoRow.to_string());
    let cases: [Case<'_>; 25] = [
        (R::Rows, &[], &[], ok("[]")),
        (R::Rows, &[], &[NO_ROWS], ok("[]")),
        (R::Rows, &[], &[ROWS, OTHER], ok(both)),
        (R::Rows, &[], &[NO_ROWS, OTHER], ok("[]")),
        (R::Row, &[], &[], no_row.clone()),
        (R::Row, &[], &[NO_ROWS, OTHER], no_row.clone()),
        (R::Row, &["id"], &[NO_ROWS], no_row.clone()),
        (R::Row, &[], &[ROWS, OTHER], ok(object)),
        (R::Row, &["id", "a"], &[ROWS], ok(r#"{"a":1,"b":"x","id":7,"a_2":1.50}"#)),
        (R::Row, &["id", "gone"], &[], ok(r#"{"id":7,"gone":null}"#)),
        (R::Value, &[], &[ROWS], ok("1")),
        (R::Value, &[], &[(&["v"], &[&[Cell::Null]])], ok("null")),
        (R::Value, &[], &[NO_ROWS], no_row),
        (R::Value, &["id"], &[ROWS], ok(r#"{"value":1,"id":7}"#)),
        (R::Value, &["id"], &[], ok(r#"{"value":null,"id":7}"#)),
        (R::Sets, &[], &[], ok("[]")),
        (R::Sets, &[], &[NO_ROWS], ok("[[]]")),
        (R::Sets, &[], &[ROWS, NO_ROWS, OTHER], ok(&format!("[{both},[],{other}]"))),
        (R::Json, &[], &[], ok("null")),
        (R::Json, &[], &[TEXT, ROWS], ok("[1,2]")),
        (R::Json, &[], &[ROWS], ok("1")),
        (R::None, &[], &[ROWS], (204, String::new())),
        (R::Full, &[], &[], full("[]", r#"{"id":7,"a":1.50}"#)),
        (R::Full, &["id"], &[ROWS, OTHER], full(&format!("[{both},{other}]"), r#"{"id":7}"#)),
        (R::Full, &["id"], &[NO_ROWS], full("[[]]", r#"{"id":7}"#)),
    ];
    for (result, outputs, sets, expected) in cases {
        assert_eq!(answered(result, outputs, sets, 0), expected, "{result:?} {outputs:?} {sets:?}");
    }
}

#[test]
fn a_return_status_becomes_the_status_that_the_catalogue_gives_it() {
    let object = r#"{"a":1,"b":"x"}"#.to_owned();
    let refused = Word::SqlReturn.to_string();
    let cases = [
        (0, (200, object.clone())),
        (1, (404, refused.clone())),
        (2, (422, refused)),
        (3, (202, object.clone())),
        (4, (204, String::new())),
        (9, (200, object)),
    ];
    for (status, expected) in cases {
        assert_eq!(answered(ResultKind::Row, &[], &[ROWS], status), expected, "{status}");
    }
    assert_eq!(answered(ResultKind::None, &[], &[], 3), (202, String::new()));
    assert_eq!(answered(ResultKind::Row, &[], &[NO_ROWS], 3), (404, Word::NoRow.to_string()));
}

#[test]
fn an_answer_stops_at_its_limit() {
    for shape in [ResultKind::Rows, ResultKind::Sets, ResultKind::Full, ResultKind::Json] {
        let mut answer = Answer::new(shape, 40);
        let text = "x".repeat(20);
        let row: &[Cell<'_>] = &[Cell::Text(&text)];
        assert_eq!(feed(&mut answer, &[(&["t"], &[row])]), Ok(()), "{shape:?}");
        assert_eq!(answer.row(row).and_then(|()| answer.row(row)), Err(SinkError::TooLarge));
        assert!(answer.restart());
        assert_eq!(feed(&mut answer, &[(&["t"], &[row])]), Ok(()), "{shape:?}");
    }
    let mut answer = Answer::new(ResultKind::None, 0);
    assert_eq!(feed(&mut answer, &[ROWS]), Ok(()));
}

#[test]
fn what_json_text_cannot_be_is_refused() {
    let mut answer = Answer::new(ResultKind::Json, 100);
    assert_eq!(feed(&mut answer, &[(&["j"], &[&[Cell::Binary(b"x")]])]), Err(SinkError::Shape));
    let mut answer = Answer::new(ResultKind::Rows, 100);
    assert_eq!(feed(&mut answer, &[(&["a"], &[ONE])]), Err(SinkError::Shape));
}

fn concluded(error: impl Into<CallError>, execution: Execution) -> Ending {
    let job = job(endpoint(ResultKind::Row, &[]), execution);
    conclude(&job, Answer::new(ResultKind::Row, 100), Err(error.into()))
}

fn of_sent(kind: SentErrorKind) -> SentError {
    SentError::caused_by(kind, "secret of the database")
}

/// Every failure of a call that was sent: its problem, its word, its detail.
fn sent_errors() -> Vec<(SentErrorKind, ProblemKind, Word, Option<&'static str>)> {
    use SentErrorKind as K;
    use ServerErrorClass as C;
    let user = |number| K::User { number, message: "says why".to_owned() };
    let server = |class| K::Server { number: 1, class };
    let text = "x".to_owned();
    let mismatch = K::Mismatch { procedure: text.clone(), difference: text.clone() };
    let internal = ProblemKind::Internal;
    let shown = Some("says why");
    vec![
        (user(50400), ProblemKind::Refused(400), Word::SqlUser, shown),
        (user(50404), ProblemKind::NoRow, Word::SqlUser, shown),
        (user(50409), ProblemKind::Conflict, Word::SqlUser, shown),
        (user(50503), ProblemKind::Refused(500), Word::SqlUser, shown),
        (user(50599), ProblemKind::Refused(599), Word::SqlUser, shown),
        (user(50001), ProblemKind::Refused(422), Word::SqlUser, shown),
        (user(60000), ProblemKind::Refused(418), Word::SqlUser, shown),
        (user(50399), internal, Word::SqlUser, None),
        (user(50600), internal, Word::SqlUser, None),
        (user(u32::MAX), internal, Word::SqlUser, None),
        (server(C::Conflict), ProblemKind::Conflict, Word::SqlConflict, None),
        (server(C::BadValue), ProblemKind::Refused(400), Word::SqlBadValue, None),
        (server(C::Mismatch), internal, Word::SqlMismatch, None),
        (server(C::Permission), internal, Word::SqlPermission, None),
        (server(C::Deadlock), internal, Word::SqlDeadlock, None),
        (server(C::Other), internal, Word::SqlError, None),
        (
            K::Server { number: 2067, class: C::Conflict },
            ProblemKind::Refused(412),
            Word::SqlConflict,
            None,
        ),
        (mismatch, internal, Word::SqlMismatch, None),
        (K::Undecodable(text), ProblemKind::BadAnswer, Word::SqlUndecodable, None),
        (K::Sink(SinkError::TooLarge), ProblemKind::BadAnswer, Word::AnswerTooLarge, None),
        (K::Sink(SinkError::Shape), ProblemKind::BadAnswer, Word::AnswerShape, None),
        (K::Sink(SinkError::Gone), ProblemKind::Cancelled, Word::Cancelled, None),
        (K::TimedOut, ProblemKind::AttemptTimedOut, Word::SqlTimeout, None),
        (K::Cancelled, ProblemKind::Cancelled, Word::Cancelled, None),
    ]
}

#[test]
fn every_error_has_its_problem() {
    for (kind, expected, word, detail) in sent_errors() {
        match concluded(of_sent(kind.clone()), Execution::AtLeastOnce) {
            Ending::Problem { problem, outcome } => {
                assert_eq!((problem.kind, outcome), (expected, word), "{kind:?}");
                assert_eq!(problem.detail.as_deref(), detail, "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[test]
fn nothing_that_was_sent_becomes_a_refusal_or_a_503() {
    let kinds = sent_errors().into_iter().map(|(kind, ..)| kind).chain([SentErrorKind::Lost]);
    for kind in kinds {
        for execution in [Execution::AtLeastOnce, Execution::AtMostOnce] {
            for is_rolled_back in [false, true] {
                let error = SentError { is_rolled_back, ..of_sent(kind.clone()) };
                let ending = concluded(error, execution);
                let is_refusal = matches!(ending, Ending::NotExecuted { .. });
                let answer = ending.into_final("r");
                let status = answer.status;
                assert!(!is_refusal && status != 503, "{kind:?} {execution:?}: {status}");
                assert!(is_taken(answer), "{kind:?} {execution:?}: {status}");
            }
        }
    }
}

/// Whether a gateway takes an answer.
fn is_taken(answer: Final) -> bool {
    let reply = Subject::new("_INBOX.r").unwrap();
    Reply::parse(Reply::Final(answer).into_message(reply).unwrap()).is_ok()
}

/// What a problem document says of the procedure.
fn effect_of(ending: Ending) -> String {
    let body: serde_json::Value = serde_json::from_slice(&ending.into_final("r").body).unwrap();
    body["effect"].as_str().unwrap().to_owned()
}

#[test]
fn an_error_of_the_database_has_an_unknown_effect_unless_all_of_it_was_rolled_back() {
    use ServerErrorClass as C;
    let contention = [C::SnapshotConflict, C::Deadlock];
    let others = [C::Conflict, C::BadValue, C::Mismatch, C::Permission, C::Other];
    for class in contention.into_iter().chain(others) {
        for number in [1, 2067] {
            let error = of_sent(SentErrorKind::Server { number, class });
            for execution in [Execution::AtLeastOnce, Execution::AtMostOnce] {
                let error = SentError { source: None, ..SentError::new(error.kind.clone()) };
                assert_eq!(effect_of(concluded(error, execution)), "unknown", "{class:?}");
            }
            let error = SentError { is_rolled_back: true, ..error };
            let expected = if contention.contains(&class) { "unknown" } else { "executed" };
            assert_eq!(effect_of(concluded(error, Execution::AtMostOnce)), expected, "{class:?}");
        }
    }
    // The procedure's own word is its answer.
    let thrown = SentErrorKind::User { number: 50409, message: "no".to_owned() };
    assert_eq!(effect_of(concluded(of_sent(thrown), Execution::AtMostOnce)), "executed");
}

#[test]
fn what_was_not_sent_was_not_executed() {
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
        let ending = concluded(BackendError::new(kind.clone()), Execution::AtMostOnce);
        let is_refusal = matches!(ending, Ending::NotExecuted { .. });
        let answer = ending.clone().into_final("r");
        if is_refusal || answer.status < 500 {
            assert_eq!(effect_of(ending), "not-executed", "{kind:?}");
        }
        if !is_refusal {
            assert!(is_taken(answer), "{kind:?}");
        }
    }
    let cases = [
        (K::TimedOut, ProblemKind::Expired, Word::Expired),
        (K::PoolTimedOut, ProblemKind::Busy, Word::PoolTimeout),
        (K::Unavailable, ProblemKind::BackendDown, Word::BackendDown),
        // One of the worker's own queries before the call failed for now.
        (
            K::Server { number: 1222, class: ServerErrorClass::Transient },
            ProblemKind::BackendDown,
            Word::SqlError,
        ),
    ];
    for (kind, expected, outcome) in cases {
        let problem = Problem::new(expected);
        let ending = concluded(BackendError::new(kind), Execution::AtMostOnce);
        assert_eq!(ending, Ending::NotExecuted { problem, outcome });
    }
}

#[test]
fn a_call_that_may_be_repeated_and_was_lost_is_not_answered() {
    let ending = concluded(of_sent(SentErrorKind::Lost), Execution::AtLeastOnce);
    let problem = Problem::new(ProblemKind::BadAnswer);
    assert_eq!(ending, Ending::Unanswered { problem, outcome: Word::SqlLost });
}

#[test]
fn a_granted_call_whose_answer_is_unusable_has_an_unknown_outcome() {
    for kind in [SentErrorKind::Lost, SentErrorKind::Sink(SinkError::TooLarge)] {
        match concluded(of_sent(kind), Execution::AtMostOnce) {
            Ending::Problem { problem, .. } => {
                assert_eq!(problem.kind, ProblemKind::BadAnswerOutcomeUnknown);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_argument_that_does_not_fit_is_named_as_the_client_knows_it() {
    let parameter = |name: &str, argument: &str, place| Parameter {
        name: name.into(),
        argument: argument.into(),
        place,
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
        (Place::Body, None, Violation::of_body("/in~1put", "a date")),
        (Place::Body, cell, Violation::of_body("/in~1put/3/column", "a date")),
        (Place::Query, None, Violation::of_parameter("query", "in/put", "a date")),
    ];
    for (place, cell, expected) in cases {
        let mut endpoint = endpoint(ResultKind::Row, &[]);
        let columns = vec![parameter("column", "col", Place::Column)];
        endpoint.parameters =
            Arc::new([Parameter { columns, ..parameter("in/put", "arg", place) }]);
        let job = job(endpoint, Execution::AtLeastOnce);
        let bad = BadArgument { argument: "arg".into(), cell, reason: "a date".into() };
        let kind = BackendErrorKind::Arguments(vec![bad]);
        let ending = conclude(&job, Answer::new(ResultKind::Row, 100), Err(kind.into()));
        let problem = Problem::invalid(vec![expected]).with_effect(Effect::NotExecuted);
        assert_eq!(ending, Ending::Problem { problem, outcome: Word::BadArgument });
    }
}

/// The most memory that an answer of so many rows takes until it is whole.
fn memory(shape: ResultKind, rows: i64) -> u64 {
    let outcome = Outcome::default();
    let counted = allocation_counter::measure(|| {
        let mut answer = Answer::new(shape, usize::MAX);
        answer.begin_set(&["number".to_owned()]).unwrap();
        for number in 0..rows {
            answer.row(&[Cell::Int(number)]).unwrap();
        }
        assert!(answer.finish(&[], &outcome).unwrap().is_some());
    });
    counted.bytes_max
}

#[test]
fn no_shape_holds_the_result_a_second_time() {
    let rows = 100_000;
    let least = memory(ResultKind::Rows, rows);
    for shape in [ResultKind::Sets, ResultKind::Full] {
        let used = memory(shape, rows);
        assert!(used < least + least / 10, "{shape:?}: {used} bytes, rows take {least}");
    }
}

/// The text of an answer whose pieces leave while it is written, each taken as soon as it is there.
async fn in_pieces(shape: ResultKind, sets: &[Set<'_>]) -> (usize, String) {
    let times = Arc::<crate::roles::worker::Times>::default();
    times.parts.open(7);
    let mut answer = Answer::new(shape, 1 << 20).leaving(&times);
    let (mut pieces, mut text) = (0, Vec::new());
    for (columns, rows) in sets {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        answer.begin_set(&columns).unwrap();
        for row in *rows {
            answer.row(row).unwrap();
            while answer.is_full() {
                times.parts.want();
                tokio::select! {
                    biased;
                    piece = times.parts.next() => {
                        assert_eq!(piece.len(), 7);
                        pieces += 1;
                        text.extend_from_slice(&piece);
                    }
                    drained = answer.drain() => drained.unwrap(),
                }
            }
        }
    }
    text.extend_from_slice(&times.parts.take().unwrap_or_default());
    assert_eq!(answer.restart(), pieces == 0, "what has gone cannot be taken back");
    if pieces > 0 {
        text.extend(answer.finish(&[], &outcome(0)).unwrap().unwrap());
    }
    (pieces, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn an_answer_in_pieces_is_the_same_answer() {
    let long = [Cell::Int(1), Cell::Text("a longer text, for more than one piece of it")];
    let sets: [Set<'_>; 3] = [
        (&["a", "b"], &[&long, &[Cell::Null, Cell::Text("")], &long]),
        (&["c"], &[]),
        (&["a", "b"], &[&long]),
    ];
    for shape in [ResultKind::Rows, ResultKind::Sets, ResultKind::Full] {
        let mut whole = Answer::new(shape, 1 << 20);
        feed(&mut whole, &sets).unwrap();
        let whole = String::from_utf8(whole.finish(&[], &outcome(0)).unwrap().unwrap()).unwrap();
        let (pieces, text) = in_pieces(shape, &sets).await;
        assert!(pieces > 10, "{shape:?}");
        assert_eq!(text, whole, "{shape:?}");
    }
    let json: [Set<'_>; 1] = [(&["x"], &[&[Cell::Text("[1,2,3,4,5,6,7,")], &[Cell::Text("8,9]")]])];
    let text = "[1,2,3,4,5,6,7,8,9]".to_owned();
    let (pieces, found) = in_pieces(ResultKind::Json, &json).await;
    assert_eq!((pieces > 0, found), (true, text));
    assert_eq!(in_pieces(ResultKind::Rows, &[]).await, (0, String::new()));
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_never_whole() {
    let times = Arc::<crate::roles::worker::Times>::default();
    times.parts.open(7);
    let mut answer = Answer::new(ResultKind::Rows, 1 << 20).leaving(&times);
    feed(&mut answer, &[(&["a"], &[&[Cell::Text("longer than a piece")]])]).unwrap();
    times.parts.close();
    assert_eq!(answer.drain().await, Err(SinkError::Gone));
    assert_eq!(answer.finish(&[], &outcome(0)), Err(SinkError::Gone));
}
