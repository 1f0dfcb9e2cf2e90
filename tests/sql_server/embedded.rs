//! Promise: the embedded backend behaves like SQL Server. Each case runs on both, with the same
//! arguments. The fake server implements SQL Server's rules, and a real server confirms them.

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::config::procedures::SqliteConfig;
use fjord::procedures::{
    Argument, BackendErrorKind, CallError, OwnedCell, SentErrorKind, ServerErrorClass, sqlite,
};

use super::{CallAnswer, ProcedureCaller, given, int, text};
use crate::support::mssql_server::servers;

/// The procedures of `mssql.sql` for the embedded backend.
const PROCEDURES: [(&str, &str); 9] = [
    (
        "defaults",
        "CREATE PROCEDURE fjord_test.defaults @a int = 7, @b nvarchar(20) = 'seven' AS
         SELECT @a AS a, @b AS b",
    ),
    (
        "inserts_then_throws",
        "INSERT INTO kept VALUES (@word); SELECT throw(50422, 'no') AS \"@check\"",
    ),
    ("inserts_null", "INSERT INTO kept VALUES (NULL)"),
    ("kept_count", "SELECT count(*) AS n FROM kept WHERE word = @word"),
    ("same", "SELECT @a = @b COLLATE CI_AS AS v"),
    ("echo_datetime2_7", "SELECT @v AS v"),
    ("echo_numeric_9_2", "SELECT @v AS \"v:decimal(9, 2)\""),
    (
        "echo_nvarchar_50",
        "CREATE PROCEDURE fjord_test.echo_nvarchar_50 @v nvarchar(50) = NULL AS SELECT @v AS v",
    ),
    ("inserts_long", "INSERT INTO kept VALUES (@word)"),
];

/// Returns a caller for each backend. The directory of the embedded database must outlive its
/// caller.
async fn callers() -> (Vec<(&'static str, ProcedureCaller)>, tempfile::TempDir, impl Sized) {
    let directory = tempfile::tempdir().expect("a directory");
    let schema = directory.path().join("schema");
    std::fs::write(&schema, "CREATE TABLE kept (word NVARCHAR(20) NOT NULL);").expect("a file");
    for (name, sql) in PROCEDURES {
        let file = directory.path().join(format!("fjord_test.{name}.sql"));
        std::fs::write(file, sql).expect("a file");
    }
    let config = SqliteConfig {
        file: directory.path().join("kept.sqlite"),
        schema: Some(schema),
        procedures: directory.path().to_owned(),
        connections_max: 2,
    };
    let servers = servers().await;
    let mut callers: Vec<_> =
        servers.iter().map(|server| (server.name, ProcedureCaller::new(server))).collect();
    let backend = sqlite::connect(&config, "embedded").expect("a backend");
    let embedded = ProcedureCaller { backend, ..callers[0].1.clone() };
    callers.push(("the embedded backend", embedded));
    (callers, directory, servers)
}

fn typed(name: &str, kind: ParameterType, value: ParameterValue<'static>) -> Argument {
    Argument { kind, ..given(name, value) }
}

#[tokio::test]
async fn defaults_and_values_are_those_of_sql_server() {
    let (callers, _directory, _servers) = callers().await;
    let null = |name| given(name, ParameterValue::Null);
    let at = ParameterValue::Text("2026-01-02T03:04:05.120+02:00".into());
    let price = ParameterValue::Decimal("1.5".into());
    let word = |text: &str| OwnedCell::Text(text.to_owned());
    let cases: [(&str, Vec<Argument>, Vec<OwnedCell>); 8] = [
        ("defaults", vec![], vec![OwnedCell::Int(7), word("seven")]),
        ("defaults", vec![int("a", 8)], vec![OwnedCell::Int(8), word("seven")]),
        ("defaults", vec![null("a"), null("b")], vec![OwnedCell::Null, OwnedCell::Null]),
        (
            "echo_datetime2_7",
            vec![typed("v", ParameterType::Datetime, at)],
            vec![word("2026-01-02T01:04:05.12Z")],
        ),
        (
            "echo_numeric_9_2",
            vec![typed("v", ParameterType::Decimal, price)],
            vec![OwnedCell::Number("1.50".to_owned())],
        ),
        ("same", vec![text("a", "Aisha"), text("b", "AISHA  ")], vec![OwnedCell::Int(1)]),
        ("same", vec![text("a", "Aisha"), text("b", " Aisha")], vec![OwnedCell::Int(0)]),
        ("same", vec![text("a", "Aisha"), text("b", "Aïsha")], vec![OwnedCell::Int(0)]),
    ];
    for (backend, caller) in &callers {
        for (procedure, arguments, expected) in &cases {
            let answer = caller.call(procedure, arguments).await;
            let answer = answer.unwrap_or_else(|error| panic!("{backend}: {procedure}: {error}"));
            assert_eq!(answer.sets, [[expected.clone()]], "{backend}: {procedure} {arguments:?}");
        }
    }
}

#[tokio::test]
async fn an_error_after_an_insert_keeps_the_row() {
    let (callers, _directory, _servers) = callers().await;
    for (backend, caller) in &callers {
        let word = [text("word", "before an error")];
        let rows = async || match caller.call("kept_count", &word).await.expect("a count").cell() {
            OwnedCell::Int(rows) => *rows,
            other => panic!("{other:?}"),
        };
        let before = rows().await;
        let Err(CallError::Sent(error)) = caller.call("inserts_then_throws", &word).await else {
            panic!("{backend}: no error")
        };
        let message = "no".to_owned();
        assert_eq!(error.kind, SentErrorKind::User { number: 50422, message }, "{backend}");
        assert!(!error.is_rolled_back, "{backend}");
        assert_eq!(rows().await, before + 1, "{backend}");
    }
}

/// Returns the class of a call's error, and whether the call was sent.
fn class_of(result: Result<CallAnswer, CallError>) -> Option<(ServerErrorClass, bool)> {
    match result.expect_err("an error") {
        CallError::Sent(error) => match error.kind {
            SentErrorKind::Server { class, .. } => Some((class, true)),
            _ => None,
        },
        CallError::NotSent(_) => None,
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_stored_is_a_bad_value() {
    let (callers, _directory, _servers) = callers().await;
    for (backend, caller) in &callers {
        let stored = class_of(caller.call("inserts_null", &[]).await);
        assert_eq!(stored, Some((ServerErrorClass::BadValue, true)), "{backend}");
        let long = "x".repeat(21);
        let stored = class_of(caller.call("inserts_long", &[text("word", &long)]).await);
        assert_eq!(stored, Some((ServerErrorClass::BadValue, true)), "{backend}");
        // A parameter has a length too.
        let long = "x".repeat(51);
        let result = caller.call("echo_nvarchar_50", &[text("v", &long)]).await;
        let Err(CallError::NotSent(error)) = result else { panic!("{backend}: {result:?}") };
        let BackendErrorKind::Arguments(bad) = error.kind else { panic!("{backend}: {error}") };
        assert_eq!(bad.len(), 1, "{backend}");
        assert_eq!(bad[0].argument, "v", "{backend}");
    }
}

#[tokio::test]
async fn a_missing_parameter_is_a_mismatch() {
    let (callers, directory, _servers) = callers().await;
    let sql = "CREATE PROCEDURE fjord_test.returns @status int AS SELECT @status AS \"@return\"";
    std::fs::write(directory.path().join("fjord_test.returns.sql"), sql).expect("a file");
    for (backend, caller) in &callers {
        match caller.call("returns", &[]).await {
            Err(CallError::Sent(error)) => {
                let class = ServerErrorClass::Mismatch;
                assert_eq!(error.kind, SentErrorKind::Server { number: 201, class }, "{backend}");
            }
            Err(CallError::NotSent(error)) => {
                assert!(matches!(error.kind, BackendErrorKind::Mismatch { .. }), "{backend}");
            }
            Ok(answer) => panic!("{backend}: {answer:?}"),
        }
    }
}
