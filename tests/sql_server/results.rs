//! Promise: the caller receives result sets, OUTPUT parameters, the RETURN status and errors, and
//! the procedure receives tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, ResultKind};
use fjord::lifecycle::Cancel;
use fjord::procedures::{
    Argument, BackendErrorKind, BadArgument, Call, ExpectedProcedure, OwnedCell, SentErrorKind,
    ServerErrorClass, SessionContext, Transaction,
};
use fjord::roles::worker::JobProgress;
use fjord::roles::worker::execution::procedure::answer_sink::AnswerSink;
use tokio::time::Instant;

use super::{LONG, ProcedureCaller, given, int, name, sent_error, text, unsent_error};
use crate::support::mssql_server::servers;

pub(super) fn text_cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

#[tokio::test]
async fn the_default_applies_to_an_absent_argument_and_not_to_null() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let answer = caller.call("defaults", &[]).await.expect("the call succeeds");
        assert_eq!(answer.sets, [[[OwnedCell::Int(7), text_cell("seven")]]], "{}", server.name);
        let nulls = [given("a", ParameterValue::Null), given("B", ParameterValue::Null)];
        let answer = caller.call("defaults", &nulls).await.expect("the call succeeds");
        assert_eq!(answer.sets, [[[OwnedCell::Null, OwnedCell::Null]]], "{}", server.name);
    }
}

#[tokio::test]
async fn the_return_status_is_signed() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for status in [0, -5, 404, i32::MIN + 1, i32::MAX] {
            let answer = caller.call("returns", &[int("status", status.into())]).await;
            let result = answer.expect("the call succeeds").result;
            assert_eq!(result.return_status, status, "{}", server.name);
        }
        let answer = caller.call("nothing", &[]).await.expect("the call succeeds");
        assert!(answer.sets.is_empty(), "{}", server.name);
    }
}

#[tokio::test]
async fn output_parameters_are_not_truncated() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let answer = caller.call("outputs", &[int("given", 41)]).await.expect("the call succeeds");
        assert_eq!(*answer.output("given"), OwnedCell::Int(42), "{}", server.name);
        assert!(*answer.output("text") == text_cell(&"ab".repeat(5000)), "{}", server.name);
        let amount = OwnedCell::Number("1234567890123456.7890".to_owned());
        assert_eq!(*answer.output("amount"), amount, "{}", server.name);
        assert_eq!(*answer.output("untouched"), OwnedCell::Null, "{}", server.name);
        assert_eq!(answer.result.return_status, -3, "{}", server.name);
        assert!(answer.sets.is_empty(), "{}: {:?}", server.name, answer.sets);
    }
}

#[tokio::test]
async fn every_result_set_is_returned_with_its_column_names() {
    for server in servers().await {
        let answer =
            ProcedureCaller::new(&server).call("sets", &[]).await.expect("the call succeeds");
        let names: [&[&str]; 3] = [&["a", "a"], &["id", "name"], &[""]];
        if server.fake.is_some() {
            assert_eq!(answer.columns, names);
        }
        let first = vec![vec![OwnedCell::Int(1), OwnedCell::Int(2)]];
        assert_eq!(answer.sets, [first, vec![], vec![vec![OwnedCell::Int(3)]]], "{}", server.name);
    }
}

#[tokio::test]
async fn rows_are_returned_in_order() {
    for server in servers().await {
        let answer = ProcedureCaller::new(&server)
            .call("many", &[int("count", 5000)])
            .await
            .expect("the call succeeds");
        let cells = answer.sets.first().expect("a set").iter().flatten();
        assert!(
            cells.eq((0..5000).map(OwnedCell::Int).collect::<Vec<_>>().iter()),
            "{}",
            server.name
        );
    }
}

#[tokio::test]
async fn rows_stay_in_the_database_until_the_client_reads_them() {
    for server in servers().await {
        let (caller, procedure) = (ProcedureCaller::new(&server), name("many"));
        let arguments = [int("count", 5000)];
        let progress = Arc::<JobProgress>::default();
        progress.chunks.enable(1024);
        let mut answer = AnswerSink::new(ResultKind::Rows, 1 << 20).with_chunks(&progress);
        let deadline = Instant::now() + LONG;
        let (queue, procedure, arguments) = (&caller.queue, &procedure, &arguments[..]);
        let transaction = Transaction::None;
        let session = SessionContext::default();
        let may_repeat = false;
        let call = Call { queue, procedure, arguments, session, deadline, may_repeat, transaction };
        let (mut pieces, cancel) = (Vec::new(), Cancel::new());
        let mut call = caller.backend.call(call, &mut answer, &cancel);
        let early = tokio::time::timeout(Duration::from_millis(500), &mut call).await;
        assert!(early.is_err(), "{}: {early:?} before its rows were read", server.name);
        loop {
            progress.chunks.demand();
            tokio::select! {
                biased;
                piece = progress.chunks.receive() => pieces.extend_from_slice(&piece),
                ended = &mut call => break drop(ended.expect("the call succeeds")),
            }
        }
        pieces.extend_from_slice(&progress.chunks.try_receive().unwrap_or_default());
        let numbers = String::from_utf8(pieces).expect("text").replace('[', ",");
        let numbers = numbers.split("},").filter_map(|row| row.split(':').nth(1)?.parse().ok());
        let mut numbers: Vec<usize> = numbers.collect();
        // The answer is not complete yet, so the last number can be truncated.
        numbers.pop();
        assert!(numbers.len() > 4900, "{}: {}", server.name, numbers.len());
        assert!(numbers.iter().enumerate().all(|(at, number)| at == *number), "{}", server.name);
    }
}

#[tokio::test]
async fn the_rows_of_for_json_text_can_be_joined() {
    for server in servers().await {
        let answer = ProcedureCaller::new(&server)
            .call("json", &[int("count", 500)])
            .await
            .expect("the call succeeds");
        let parts = answer.sets.first().expect("a set").iter().flatten().map(|cell| match cell {
            OwnedCell::Text(text) => text.as_str(),
            other => panic!("{other:?}"),
        });
        let whole: serde_json::Value =
            serde_json::from_str(&parts.collect::<String>()).expect("JSON");
        let rows = whole.as_array().expect("an array");
        assert_eq!(rows.len(), 500, "{}", server.name);
        assert_eq!(rows[499], serde_json::json!({"n": 499, "name": "a \"quoted\" name"}));
    }
}

pub(super) fn things(
    columns: &[(&str, ParameterType)],
    rows: Vec<Vec<ParameterValue<'static>>>,
) -> Argument {
    let columns: Vec<(Arc<str>, ParameterType)> =
        columns.iter().map(|(name, kind)| ((*name).into(), *kind)).collect();
    Argument { columns: columns.into(), ..given("things", ParameterValue::Table(rows)) }
}

#[tokio::test]
async fn a_table_is_passed_by_column_name() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let columns = [
            ("name", ParameterType::String),
            ("price", ParameterType::Decimal),
            ("id", ParameterType::Int32),
        ];
        let word = |text: &str| ParameterValue::Text(text.to_owned().into());
        let rows = vec![
            vec![
                word("o'ne; --"),
                ParameterValue::Decimal("1.25".into()),
                ParameterValue::Integer(1),
            ],
            vec![ParameterValue::Null, ParameterValue::Null, ParameterValue::Integer(2)],
        ];
        let answer = caller.call("lists", &[things(&columns, rows)]).await;
        let answer = answer.unwrap_or_else(|e| panic!("{}: {e} {e:?}", server.name));
        let price = OwnedCell::Number("1.25".to_owned());
        let first = vec![OwnedCell::Int(1), text_cell("o'ne; --"), price, OwnedCell::Null];
        let second = vec![OwnedCell::Int(2), OwnedCell::Null, OwnedCell::Null, OwnedCell::Null];
        assert_eq!(answer.sets, [[first, second]], "{}", server.name);
        let none =
            caller.call("lists", &[things(&columns, vec![])]).await.expect("the call succeeds");
        assert_eq!(none.sets, [Vec::<Vec<OwnedCell>>::new()], "{}", server.name);

        let unknown = things(&[("colour", ParameterType::String)], vec![vec![word("red")]]);
        let error = unsent_error(caller.call("lists", &[unknown]).await).to_string();
        assert!(error.contains("colour") && error.contains("id, name, price, at"), "{error}");
        let bad = things(&[("id", ParameterType::String)], vec![vec![word("x")]]);
        let error = unsent_error(caller.call("lists", &[bad]).await);
        let expected = "expected an integer for int".to_owned();
        assert_eq!(
            error,
            BackendErrorKind::Arguments(vec![BadArgument {
                argument: "things".into(),
                cell: Some((0, "id".into())),
                reason: expected
            }])
        );
    }
}

/// This test does not run on Babelfish 4, which copies a table's `nvarchar` cells into SQL text
/// unchanged.
#[tokio::test]
async fn hostile_text_in_a_table_is_data() {
    for server in servers().await.into_iter().filter(|server| !server.is_babelfish) {
        let hostile = "o'ne \"𝄞\"; -- \u{10ffff}";
        let columns: Arc<[_]> = Arc::new([("name".into(), ParameterType::String)]);
        let rows =
            vec![vec![ParameterValue::Text(hostile.to_owned().into())], vec![ParameterValue::Null]];
        let names = Argument { columns, ..given("names", ParameterValue::Table(rows)) };
        let answer =
            ProcedureCaller::new(&server).call("names", &[names]).await.expect("the call succeeds");
        assert_eq!(answer.sets, [[[text_cell(hostile)], [OwnedCell::Null]]], "{}", server.name);
    }
}

#[tokio::test]
async fn a_raised_error_has_its_number_and_message() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (number, expected) in [(50404, 50404), (50001, 50001), (0, 50000)] {
            let arguments = [int("number", number), text("message", "no such horse: 'x'")];
            let error = sent_error(caller.call("throws", &arguments).await);
            let message = "no such horse: 'x'".to_owned();
            let user = SentErrorKind::User { number: expected, message };
            assert_eq!(error, user, "{}", server.name);
        }
    }
}

#[tokio::test]
async fn an_error_after_rows_fails_the_call() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let error = sent_error(caller.call("rows_then_error", &[]).await);
        assert!(matches!(error, SentErrorKind::User { number: 50500, .. }), "{error}");
        assert!(caller.call("nothing", &[]).await.is_ok(), "{}", server.name);
    }
}

#[tokio::test]
async fn a_database_error_has_its_class() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let error = sent_error(caller.call("doubles", &[]).await);
        let conflict = SentErrorKind::Server { number: 2627, class: ServerErrorClass::Conflict };
        assert_eq!(error, conflict, "{}", server.name);
        let error = sent_error(caller.call("divides", &[int("by", 0)]).await);
        let other = SentErrorKind::Server { number: 8134, class: ServerErrorClass::Other };
        assert_eq!(error, other, "{}", server.name);
    }
}

#[tokio::test]
async fn a_missing_procedure_is_a_mismatch() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let error = unsent_error(caller.call("is_not_there", &[]).await);
        assert!(matches!(error, BackendErrorKind::Mismatch { .. }), "{}: {error}", server.name);
        let error = unsent_error(caller.call("returns", &[int("state", 1)]).await).to_string();
        assert!(error.contains("@state") && error.contains("@status"), "{error}");
    }
}

#[tokio::test]
async fn a_mismatch_names_what_catalogue_and_database_declare() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let expected = |procedure: &str, arguments: &[(&str, ParameterType)], outputs: &[&str]| {
            ExpectedProcedure {
                queue: caller.queue.clone(),
                procedure: name(procedure),
                arguments: arguments.iter().map(|(name, kind)| ((*name).into(), *kind)).collect(),
                outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
                session_keys: Vec::new(),
            }
        };
        let matching = expected("outputs", &[("given", ParameterType::Int32)], &["text", "amount"]);
        assert!(caller.verify(matching).await.is_ok(), "{}", server.name);
        let lists = expected("lists", &[("things", ParameterType::Table)], &[]);
        assert!(caller.verify(lists).await.is_ok(), "{}", server.name);
        let wrong = expected(
            "outputs",
            &[("given", ParameterType::Binary), ("more", ParameterType::String)],
            &["nothing"],
        );
        let error = caller.verify(wrong).await.expect_err("a mismatch").to_string();
        for part in ["@given", "as binary", "int", "@more", "@text", "@nothing"] {
            assert!(error.contains(part), "{}: {part} in {error}", server.name);
        }
        let missing = expected("is_not_there", &[], &[]);
        let error = caller.verify(missing).await.expect_err("a mismatch").to_string();
        assert!(
            error.contains("is_not_there") && error.contains(&server.config.database),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_procedures_of_many_queues_are_verified_with_few_queries() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let expected = |procedure: &str, argument: (&str, ParameterType), output: Option<&str>| {
            ExpectedProcedure {
                queue: caller.queue.clone(),
                procedure: name(procedure),
                arguments: vec![(argument.0.into(), argument.1)],
                outputs: output.map(ToOwned::to_owned).into_iter().collect(),
                session_keys: Vec::new(),
            }
        };
        let v = |kind| ("v", kind);
        let all = [
            expected("lists", ("things", ParameterType::Table), None),
            expected("names", ("names", ParameterType::Table), None),
            expected("echo_int", v(ParameterType::Int32), Some("out")),
            expected("echo_int", v(ParameterType::Binary), Some("out")),
            expected("is_not_there", v(ParameterType::String), None),
            expected("echo_decimal_38_10", v(ParameterType::Decimal), Some("out")),
            expected("echo_time_0", v(ParameterType::Time), Some("out")),
            expected("nothing", v(ParameterType::String), None),
        ];
        let mut results = caller.verify_all(&all).await;
        results.sort_by_key(|(index, _)| *index);
        let mismatches: Vec<usize> =
            results.iter().filter(|(_, one)| one.is_err()).map(|(index, _)| *index).collect();
        assert_eq!(mismatches, [3, 4, 6, 7], "{}: {results:?}", server.name);
        assert_eq!(results.len(), all.len(), "{}", server.name);
        for (index, parts) in [
            (3, ["@v as binary", "declares int"]),
            (4, ["is_not_there", "no such procedure"]),
            (6, ["@out", "has @v"]),
            (7, ["@v as string", "no parameters"]),
        ] {
            let error = results[index].1.as_ref().expect_err("a mismatch").to_string();
            for part in parts {
                assert!(error.contains(part), "{}: {part} in {error}", server.name);
            }
        }
        if let Some(fake) = &server.fake {
            let reads = fake.state.signature_reads.load(Ordering::Acquire);
            assert_eq!(reads, 2, "one query for parameters, one for columns of table types");
            assert_eq!(fake.state.logins.lock().expect("not poisoned").len(), 1);
        }
        // The call uses the signature that was read with the others.
        let answer = caller.call("echo_int", &[int("v", 7)]).await.expect("the call succeeds");
        assert_eq!(*answer.output("out"), OwnedCell::Int(7), "{}", server.name);
    }
}

/// The driver declares an OUTPUT parameter only as wide as its value. Text would therefore be
/// truncated at 4,000 characters, and a decimal would overflow. Babelfish does not pass a table to
/// `sp_executesql`.
#[tokio::test]
async fn a_procedure_with_a_table_returns_its_outputs_completely() {
    for server in servers().await.into_iter().filter(|server| !server.is_babelfish) {
        let caller = ProcedureCaller::new(&server);
        let columns = [("id", ParameterType::Int32), ("price", ParameterType::Decimal)];
        let row = |id, price: &str| {
            let price = ParameterValue::Decimal(price.to_owned().into());
            vec![ParameterValue::Integer(id), price]
        };
        let rows = things(&columns, vec![row(1, "9999999.99"), row(2, "0.02")]);
        let rows = Argument { name: "rows".into(), ..rows };
        for note in [ParameterValue::Text("é".into()), ParameterValue::Null] {
            let expected = match &note {
                ParameterValue::Null => OwnedCell::Null,
                _ => text_cell("é"),
            };
            let answer = caller.call("sums", &[rows.clone(), given("note", note)]).await;
            let answer = answer.unwrap_or_else(|e| panic!("{}: {e} {e:?}", server.name));
            assert_eq!(answer.sets, [[[OwnedCell::Int(2), expected]]], "{}", server.name);
            assert_eq!(answer.result.return_status, 5, "{}", server.name);
            assert_eq!(*answer.output("text"), text_cell(&"ab".repeat(5000)), "{}", server.name);
            let total = OwnedCell::Number("10000000.0100".to_owned());
            assert_eq!(*answer.output("total"), total, "{}", server.name);
        }
    }
}
