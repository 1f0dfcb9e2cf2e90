//! Promise: text is stored exactly as the caller sent it, or the call is refused before it is sent.
//! The length of a `varchar` is measured in bytes of its code page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{
    Argument, BackendErrorKind, BadArgument, OwnedCell, SentErrorKind, Transaction,
};
use http::Method;
use serde_json::json;

use super::{ProcedureCaller, given, sent_error, text, unsent_error};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::mssql_server::{SqlServer, fake_server, servers};
use crate::support::tds::PASSWORD;

/// The columns of `code_list` with UTF-8 collations.
const UTF_8: &str = "code varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL, kana varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL";

fn text_cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

/// Builds an argument with a table of text.
fn table<const N: usize>(name: &str, columns: [&str; N], rows: &[[&str; N]]) -> Argument {
    let columns = columns.map(|column| (column.into(), ParameterType::String));
    let value = |text: &&str| ParameterValue::Text((*text).to_owned().into());
    let rows: Vec<Vec<ParameterValue<'static>>> =
        rows.iter().map(|row| row.iter().map(value).collect()).collect();
    Argument { columns: Arc::new(columns), ..given(name, ParameterValue::Table(rows)) }
}

fn codes(rows: &[[&str; 2]]) -> Argument {
    table("codes", ["code", "kana"], rows)
}

fn bad(argument: &str, cell: Option<(usize, &str)>, reason: &str) -> BadArgument {
    let cell = cell.map(|(row, column)| (row, column.to_owned()));
    BadArgument { argument: argument.to_owned(), cell, reason: reason.to_owned() }
}

/// Returns the id of the connection that serves the next call.
async fn process(caller: &ProcedureCaller) -> OwnedCell {
    caller.call("process", &[]).await.expect("the call succeeds").cell().clone()
}

#[tokio::test]
async fn a_table_of_text_is_stored_unchanged_or_refused_as_a_whole() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let answer = caller.call("codes", &[codes(&[["é€abc", "日本a"]])]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        assert_eq!(answer.sets, [[[text_cell("é€abc"), text_cell("日本a")]]], "{}", server.name);
        let before = process(&caller).await;
        let asked = |server: &SqlServer| {
            let state = server.fake.as_ref().map(|one| &one.state);
            state.map(|state| state.column_reads.load(Ordering::Acquire))
        };
        let queries = asked(&server);
        let rows = [["ok", "ｶﾅ"], ["日本", "é"], ["abcdef", "日本語"]];
        let error = unsent_error(caller.call("codes", &[codes(&rows)]).await);
        let expected = vec![
            bad("codes", Some((1, "code")), "U+65E5 cannot be represented in code page 1252"),
            bad("codes", Some((1, "kana")), "U+00E9 cannot be represented in code page 932"),
            bad("codes", Some((2, "code")), "longer than varchar(5)"),
            bad("codes", Some((2, "kana")), "longer than varchar(5): 6 bytes in code page 932"),
        ];
        assert_eq!(error, BackendErrorKind::Arguments(expected), "{}", server.name);
        assert_eq!(queries, asked(&server), "{}: the driver queried the columns", server.name);
        assert_eq!(before, process(&caller).await, "{}: another connection", server.name);
    }
}

#[tokio::test]
async fn a_text_is_stored_unchanged_or_refused() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for value in ["é€abc", "ÿ“”–Š", ""] {
            let answer = caller.call("echo_varchar_5", &[text("v", value)]).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
            assert_eq!(
                (answer.cell(), answer.output("out")),
                (&text_cell(value), &text_cell(value))
            );
        }
        let before = process(&caller).await;
        for (procedure, value, reason) in [
            ("echo_varchar_5", "日本", "U+65E5 cannot be represented in code page 1252"),
            ("echo_varchar_5", "Āb", "U+0100 cannot be represented in code page 1252"),
            ("echo_varchar_5", "éabcde", "longer than varchar(5): 6 bytes in code page 1252"),
            ("echo_char_10", "\u{2212}1", "U+2212 cannot be represented in code page 1252"),
            ("echo_varchar_max", "long 𝄞", "U+1D11E cannot be represented in code page 1252"),
        ] {
            let error = unsent_error(caller.call(procedure, &[text("v", value)]).await);
            let expected = BackendErrorKind::Arguments(vec![bad("v", None, reason)]);
            assert_eq!(error, expected, "{}", server.name);
        }
        let arguments = [text("a", "seven"), text("b", &"x".repeat(21))];
        let error = unsent_error(caller.call("defaults", &arguments).await);
        let expected = vec![
            bad("a", None, "expected an integer for int"),
            bad("b", None, "longer than nvarchar(20)"),
        ];
        assert_eq!(error, BackendErrorKind::Arguments(expected), "{}", server.name);
        assert_eq!(before, process(&caller).await, "{}: another connection", server.name);
    }
}

#[tokio::test]
async fn a_parameter_has_the_code_page_of_its_database() {
    let cases = [
        (1252, "é€abc", "éabcde", "longer than varchar(5): 6 bytes in code page 1252"),
        (932, "日本a", "日本ab", "longer than varchar(5): 6 bytes in code page 932"),
        (65001, "é€", "é€a", "longer than varchar(5): 6 bytes in code page 65001"),
        (437, "Ω√éab", "Ω√éabc", "longer than varchar(5): 6 bytes in code page 437"),
        (437, "Ω", "€", "U+20AC cannot be represented in code page 437"),
        (
            0,
            "abcde",
            "é",
            "U+00E9 may be lost in varchar(5), whose code page is unknown: only ASCII is safe",
        ),
    ];
    for (page, fits, wrong, reason) in cases {
        let server = fake_server().await;
        server.state().code_page.store(page, Ordering::Release);
        let caller = ProcedureCaller::new(&server);
        let answer = caller.call("narrow", &[text("v", fits)]).await.expect("the call succeeds");
        assert_eq!(*answer.cell(), text_cell(fits), "{page}");
        let error = unsent_error(caller.call("narrow", &[text("v", wrong)]).await);
        assert_eq!(error, BackendErrorKind::Arguments(vec![bad("v", None, reason)]), "{page}");
    }
}

/// The driver would write "é" as E9 into a UTF-8 column.
#[tokio::test]
async fn a_table_of_text_is_not_sent_while_the_kind_of_server_is_unknown() {
    for (transaction, number) in [(Transaction::None, 701), (Transaction::Committed, 1222)] {
        let server = fake_server().await;
        server.state().recreate_type("code_list", UTF_8);
        server.state().probe_error.store(number, Ordering::Release);
        let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
        for _ in 0..2 {
            let error = unsent_error(caller.call("codes", &[codes(&[["é€", "a"]])]).await);
            assert_eq!(error, BackendErrorKind::Unavailable);
        }
        caller.call("nothing", &[]).await.expect("a call without such a table");
        server.state().probe_error.store(0, Ordering::Release);
        let answer =
            caller.call("codes", &[codes(&[["é€", "a"]])]).await.expect("the call succeeds");
        assert_eq!(answer.sets, [[[text_cell("é€"), text_cell("a")]]]);
        assert_eq!((server.state().logins(), server.state().runs("fjord_test.codes")), (1, 1));
    }
}

#[tokio::test]
async fn text_that_the_driver_would_change_is_not_sent_to_babelfish() {
    let server = fake_server().await;
    server.state().is_babelfish.store(true, Ordering::Release);
    server.state().recreate_type("code_list", UTF_8);
    let caller = ProcedureCaller::new(&server);
    let answer = caller.call("codes", &[codes(&[["abc", "a"]])]).await.expect("the call succeeds");
    assert_eq!(answer.sets, [[[text_cell("abc"), text_cell("a")]]]);
    let error = unsent_error(caller.call("codes", &[codes(&[["é", "a"]])]).await);
    let reason = "text of code page 65001 in a table must be ASCII on this server";
    let expected = vec![bad("codes", Some((0, "code")), reason)];
    assert_eq!(error, BackendErrorKind::Arguments(expected));
}

/// The driver would write UTF-8 text in the language's code page, would write 936 as GB 18030, and
/// could not write 437 at all.
#[tokio::test]
async fn a_table_can_contain_text_that_the_driver_cannot_write() {
    let server = fake_server().await;
    let columns = ["utf", "oem", "prc", "a]b"];
    let rows = [["é€", "Ω√éab", "日本€", "ｶﾅab"], ["", "", "", "日本"]];
    for transaction in [Transaction::None, Transaction::Committed] {
        let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
        let answer = caller
            .call("pages", &[table("pages", columns, &rows)])
            .await
            .expect("the call succeeds");
        let expected = rows.map(|row| row.map(text_cell).to_vec());
        assert_eq!(answer.sets, [expected]);
    }
    let wrong = [["é€a", "Ω√éabc", "日本語", "日本a"]];
    let error = unsent_error(
        ProcedureCaller::new(&server).call("pages", &[table("pages", columns, &wrong)]).await,
    );
    let BackendErrorKind::Arguments(bad) = error else { panic!("{error}") };
    let found: Vec<_> = bad.iter().map(|one| one.cell.clone().expect("a cell").1).collect();
    assert_eq!(found, columns);
}

/// Builds a row with a cell of the given length, in characters or bytes, for each `(max)` column.
fn longs([wide, narrow, bytes]: [usize; 3]) -> Argument {
    let columns = ["wide", "narrow", "bytes"].map(|one| (one.into(), ParameterType::String));
    let text = |length| ParameterValue::Text("x".repeat(length).into());
    let rows = vec![text(wide), text(narrow), ParameterValue::Binary(vec![7; bytes].into())];
    Argument { columns: Arc::new(columns), ..given("rows", ParameterValue::Table(vec![rows])) }
}

/// The driver mistakes 0xFFFF, the marker for `max`, for a length.
#[tokio::test]
async fn a_cell_that_is_too_long_for_the_driver_is_refused_before_the_call_is_sent() {
    let mut all = servers().await;
    let babelfish = SqlServer { name: "the fake server as Babelfish", ..fake_server().await };
    babelfish.state().is_babelfish.store(true, Ordering::Release);
    all.push(SqlServer { is_babelfish: true, ..babelfish });
    for server in all {
        let caller = ProcedureCaller::new(&server);
        let (narrow, unit) =
            if server.is_babelfish { (65_535, "bytes") } else { (32_767, "bytes of UTF-16") };
        let longest = [32_767, narrow, 65_535];
        let answer = caller.call("longs", &[longs(longest)]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        let sizes: Vec<usize> = answer.sets[0][0]
            .iter()
            .map(|cell| match cell {
                OwnedCell::Text(text) => text.len(),
                OwnedCell::Binary(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, longest, "{}", server.name);
        let before = process(&caller).await;
        let error =
            unsent_error(caller.call("longs", &[longs(longest.map(|most| most + 1))]).await);
        let reason = |unit| format!("65536 {unit}: a cell of a table can have at most 65535");
        let expected = vec![
            bad("rows", Some((0, "wide")), &reason("bytes of UTF-16")),
            bad("rows", Some((0, "narrow")), &reason(unit)),
            bad("rows", Some((0, "bytes")), &reason("bytes")),
        ];
        assert_eq!(error, BackendErrorKind::Arguments(expected), "{}", server.name);
        assert_eq!(before, process(&caller).await, "{}: another connection", server.name);
    }
}

/// A column of the table type becomes narrower after the signature has been read.
#[tokio::test]
async fn a_cell_is_checked_against_the_changed_column() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let names = |length: usize| {
        let columns: Arc<[_]> = Arc::new([("name".into(), ParameterType::String)]);
        let rows = vec![vec![ParameterValue::Text("x".repeat(length).into())]];
        Argument { columns, ..given("names", ParameterValue::Table(rows)) }
    };
    caller.call("names", &[names(100)]).await.expect("the call succeeds");
    server.state().recreate_type("name_list", "name nvarchar(10) NULL");
    let error = unsent_error(caller.call("names", &[names(100)]).await);
    let expected = bad("names", Some((0, "name")), "longer than nvarchar(10)");
    assert_eq!(error, BackendErrorKind::Arguments(vec![expected]));
    let logins = server.state().logins();
    caller.call("names", &[names(10)]).await.expect("the call succeeds");
    assert_eq!((server.state().logins(), server.state().runs("fjord_test.names")), (logins, 2));
}

/// The driver can read neither code page 437 nor UTF-8.
#[tokio::test]
async fn output_parameters_of_every_code_page_are_returned_unchanged() {
    for (page, value) in [(437, "Ω√"), (65001, "é€"), (932, "日本"), (1252, "é€")] {
        let server = fake_server().await;
        server.state().code_page.store(page, Ordering::Release);
        let answer = ProcedureCaller::new(&server).call("narrow_out", &[text("v", value)]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{page}: {error:?}"));
        assert_eq!(*answer.output("v"), text_cell(value), "{page}");
    }
}

#[tokio::test]
async fn a_column_that_the_driver_cannot_read_is_an_error() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let error = sent_error(caller.call("oem", &[]).await);
    assert!(matches!(error, SentErrorKind::Undecodable(_)), "{error}");
    caller.call("nothing", &[]).await.expect("the call succeeds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_document_names_every_bad_cell_by_the_callers_names() {
    const CATALOGUE: &str = r#"{
        "codes": { "route": "POST /v1/codes", "queue": "codes", "procedure": "fjord_test.codes",
            "result": "rows", "auth": "public",
            "parameters": { "a/b": { "in": "body", "as": "codes", "type": "table", "columns": {
                "latin": { "type": "string", "as": "code" }, "kana": { "type": "string" } } } } },
        "narrow": { "route": "POST /v1/narrow", "queue": "codes", "procedure": "fjord_test.narrow",
            "result": "value", "auth": "public",
            "parameters": { "v": { "in": "body", "type": "string" } } }
    }"#;
    let server = fake_server().await;
    server.state().code_page.store(20127, Ordering::Release);
    let fake = server.fake.as_ref().expect("this is the fake server");
    let worker_toml = format!(
        "[worker.queues.codes]\ndatabase = 'sql'\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        fake.address.port(),
        fake.ca.display(),
    );
    let catalogue = Some(("codes.json", CATALOGUE));
    let log_filter = "trace";
    let options = FleetOptions { log_filter, catalogue, worker_toml, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client = fleet.client();
    let fits = json!({ "a/b": [{ "latin": "é€abc", "kana": "日本a" }] });
    let answer = client.send(Method::POST, "/v1/codes", &fits).await;
    assert_eq!(answer.is(200).json(), json!([{ "code": "é€abc", "kana": "日本a" }]));
    let connections = server.state().logins();
    let wrong = json!({ "a/b": [{ "latin": "ok" }, { "latin": "日本", "kana": "日本語" }] });
    let answer = client.send(Method::POST, "/v1/codes", &wrong).await;
    let problem = answer.is_problem(400, "invalid-request");
    let errors = json!([
        { "in": "body", "pointer": "/a~1b/1/latin", "detail": "U+65E5 cannot be represented in code page 1252" },
        { "in": "body", "pointer": "/a~1b/1/kana",
            "detail": "longer than varchar(5): 6 bytes in code page 932" },
    ]);
    assert_eq!((&problem["errors"], &problem["effect"]), (&errors, &json!("not-executed")));
    assert_eq!(server.state().runs("fjord_test.codes"), 1);
    let answer = client.send(Method::POST, "/v1/narrow", &json!({ "v": "abc" })).await;
    assert_eq!(answer.is(200).json(), json!("abc"));
    client
        .send(Method::POST, "/v1/narrow", &json!({ "v": "é" }))
        .await
        .is_problem(400, "invalid-request");
    assert_eq!(server.state().logins(), connections);
    let log = fleet.workers[0].process.log();
    assert_eq!(log.matches("only ASCII is accepted").count(), 1, "logged more than once");
    assert!(!log.contains("U+65E5") && !log.contains("日本"), "a part of a value is in the log");
}
