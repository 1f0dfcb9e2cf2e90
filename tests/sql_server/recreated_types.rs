//! Promise: a recreated table type receives the sent values in its new columns, or receives no
//! values at all.

use std::sync::atomic::Ordering;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{
    Argument, BackendErrorKind, OwnedCell, SentErrorKind, ServerErrorClass, Transaction,
};

use super::{CallAnswer, ProcedureCaller, given, sent_error, unsent_error};
use crate::support::mssql_server::{SqlServer, direct, fake_server, servers};

const ORIGINAL: &str = "code varchar(5) NULL, kana varchar(5) COLLATE Japanese_CI_AS NULL";
const UTF_8: &str = "code varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL, kana varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL";
const WESTERN: &str = "code varchar(5) NULL, kana varchar(5) NULL";
const REORDERED: &str = "kana varchar(5) COLLATE Japanese_CI_AS NULL, code varchar(5) NULL";
const MORE: &str =
    "code varchar(5) NULL, kana varchar(5) COLLATE Japanese_CI_AS NULL, more int NULL";
const LESS: &str = "code varchar(5) NULL";

fn text_cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

fn texts(name: &str, columns: &[&str], row: &[&str]) -> Argument {
    let columns = columns.iter().map(|column| ((*column).into(), ParameterType::String)).collect();
    let row = row.iter().map(|text| ParameterValue::Text((*text).to_owned().into())).collect();
    Argument { columns, ..given(name, ParameterValue::Table(vec![row])) }
}

fn codes(row: [&str; 2]) -> Argument {
    texts("codes", &["code", "kana"], &row)
}

/// Starts two fake servers, one of which behaves like SQL Server and the other like Babelfish.
async fn fake_servers() -> [SqlServer; 2] {
    let babelfish = SqlServer {
        name: "the fake server as Babelfish",
        is_babelfish: true,
        ..fake_server().await
    };
    babelfish.state().is_babelfish.store(true, Ordering::Release);
    [fake_server().await, babelfish]
}

#[track_caller]
fn rows(answer: &CallAnswer) -> &[Vec<OwnedCell>] {
    &answer.sets[0]
}

#[tokio::test]
async fn the_columns_of_a_recreated_type_are_read_again() {
    for server in fake_servers().await {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
            for columns in [ORIGINAL, UTF_8, REORDERED, MORE, WESTERN, REORDERED, ORIGINAL] {
                server.state().recreate_type("code_list", columns);
                let before = server.state().signature_reads.load(Ordering::Acquire);
                for row in [["abc", "a"], ["xyz", "b"]] {
                    let answer = caller.call("codes", &[codes(row)]).await;
                    let answer =
                        answer.unwrap_or_else(|e| panic!("{}: {columns}: {e:?}", server.name));
                    assert_eq!(rows(&answer), [row.map(text_cell)], "{}: {columns}", server.name);
                }
                let reads = server.state().signature_reads.load(Ordering::Acquire) - before;
                assert_eq!(reads, 2, "the parameters and the columns, once");
            }
            assert_eq!(
                server.state().logins(),
                if transaction == Transaction::None { 1 } else { 2 }
            );
        }
    }
}

#[tokio::test]
async fn text_is_checked_against_the_new_code_page() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (columns, fits) in [(ORIGINAL, true), (UTF_8, true), (WESTERN, false), (UTF_8, true)] {
        server.state().recreate_type("code_list", columns);
        // ASCII fits the old columns, so this call detects the new type. A call with refused text
        // does not detect it.
        caller.call("codes", &[codes(["a", "a"])]).await.expect("the call succeeds");
        let result = caller.call("codes", &[codes(["é", "日"])]).await;
        if fits {
            assert_eq!(
                rows(&result.expect("the call succeeds")),
                [["é", "日"].map(text_cell)],
                "{columns}"
            );
        } else {
            let BackendErrorKind::Arguments(bad) = unsent_error(result) else {
                panic!("{columns}")
            };
            assert_eq!(bad[0].reason, "U+65E5 cannot be represented in code page 1252");
        }
    }
    // No call has detected the new type yet, so the old signature is still in use.
    server.state().recreate_type("code_list", WESTERN);
    let ran = server.state().runs("fjord_test.codes");
    let BackendErrorKind::Arguments(bad) =
        unsent_error(caller.call("codes", &[codes(["é", "日"])]).await)
    else {
        panic!("another error")
    };
    assert_eq!(bad[0].reason, "U+65E5 cannot be represented in code page 1252");
    assert_eq!((server.state().runs("fjord_test.codes"), server.state().logins()), (ran, 1));
}

/// Regression test: the driver panicked on a cell that had no column.
#[tokio::test]
async fn a_removed_column_is_a_mismatch_and_costs_no_connection() {
    for server in fake_servers().await {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
            server.state().recreate_type("code_list", ORIGINAL);
            caller.call("codes", &[codes(["abc", "a"])]).await.expect("the call succeeds");
            let (ran, logins) = (server.state().runs("fjord_test.codes"), server.state().logins());
            server.state().recreate_type("code_list", LESS);
            for _ in 0..2 {
                let error = unsent_error(caller.call("codes", &[codes(["abc", "a"])]).await);
                let BackendErrorKind::Mismatch { difference, .. } = error else {
                    panic!("{error}")
                };
                assert!(difference.contains("the column kana"), "{difference}");
            }
            assert_eq!(server.state().runs("fjord_test.codes"), ran);
            // A call that does not use the removed column succeeds.
            let less = texts("codes", &["code"], &["abc"]);
            let answer = caller.call("codes", &[less]).await.expect("the call succeeds");
            assert_eq!(rows(&answer), [[text_cell("abc"), OwnedCell::Null]]);
            assert_eq!(server.state().logins(), logins, "{}", server.name);
        }
    }
}

/// Without `char` and `varchar` columns, fjord's replacement for the driver's query selects `*`.
#[tokio::test]
async fn a_type_without_narrow_text_is_checked_too() {
    for server in fake_servers().await {
        let caller = ProcedureCaller::new(&server);
        let name = || texts("names", &["name"], &["Ā"]);
        for columns in [
            "name nvarchar(9) NULL",
            "id int NULL, name nvarchar(9) NULL",
            "name nvarchar(9) NULL, id int NULL",
        ] {
            server.state().recreate_type("name_list", columns);
            let answer = caller.call("names", &[name()]).await.expect("the call succeeds");
            assert_eq!(rows(&answer), [[text_cell("Ā")]], "{}: {columns}", server.name);
        }
        server.state().recreate_type("name_list", "id int NULL");
        let error = unsent_error(caller.call("names", &[name()]).await);
        assert!(matches!(error, BackendErrorKind::Mismatch { .. }), "{error}");
        assert_eq!(server.state().logins(), 1, "{}", server.name);
    }
}

/// The type is recreated between the driver's query for its columns and the call.
#[tokio::test]
async fn a_type_recreated_during_a_call_fails_one_call() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    caller.call("codes", &[codes(["abc", "a"])]).await.expect("the call succeeds");
    *server.state().recreate_later.lock().expect("not poisoned") = Some(("code_list", MORE));
    let error = sent_error(caller.call("codes", &[codes(["abc", "a"])]).await);
    assert_eq!(error, SentErrorKind::Server { number: 500, class: ServerErrorClass::Other });
    let reads = server.state().signature_reads.load(Ordering::Acquire);
    let answer =
        caller.call("codes", &[codes(["abc", "a"])]).await.expect("the columns were read again");
    assert_eq!(rows(&answer), [["abc", "a"].map(text_cell)]);
    assert_eq!(server.state().signature_reads.load(Ordering::Acquire), reads);
    assert_eq!(server.state().logins(), 1);
}

/// Shows on a real server that the system views identify a recreated type.
#[tokio::test]
async fn a_recreated_type_is_detected_on_every_server() {
    for server in servers().await.into_iter().filter(|server| server.fake.is_none()) {
        let caller = ProcedureCaller::new(&server);
        let mut direct = direct(&server.config).await;
        let names = || texts("names", &["id", "name"], &["1", "abc"]);
        for columns in [
            "id int NULL, name nvarchar(9) NULL",
            "name nvarchar(9) NULL, id int NULL",
            "id int NULL, name nvarchar(9) NULL, more int NULL",
        ] {
            for batch in [
                "DROP PROCEDURE IF EXISTS fjord_test.recreated",
                "DROP TYPE IF EXISTS fjord_test.recreated_list",
                &format!("CREATE TYPE fjord_test.recreated_list AS TABLE ({columns})"),
                "CREATE PROCEDURE fjord_test.recreated @names fjord_test.recreated_list READONLY AS SELECT name FROM @names",
            ] {
                direct.simple_query(batch).await.expect(batch).into_results().await.expect(batch);
            }
            for _ in 0..2 {
                let answer = caller.call("recreated", &[names()]).await;
                let answer = answer.unwrap_or_else(|e| panic!("{columns}: {e:?}"));
                assert_eq!(rows(&answer), [[text_cell("abc")]], "{columns}");
            }
        }
    }
}
