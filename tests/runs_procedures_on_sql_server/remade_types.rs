//! Promise: a table type that was made anew under its name gets what was sent, in the columns that it has now, or nothing.

use std::sync::atomic::Ordering;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{
    Argument, BackendErrorKind, OwnedCell, SentErrorKind, ServerErrorClass, Transaction,
};

use super::{Answer, Caller, given, kind, unsent};
use crate::support::mssql_server::{Server, direct, endpoint, servers};
use crate::support::tds::State;

const AT_FIRST: &str = "code varchar(5) NULL, kana varchar(5) COLLATE Japanese_CI_AS NULL";
const UTF_8: &str = "code varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL, kana varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL";
const WESTERN: &str = "code varchar(5) NULL, kana varchar(5) NULL";
const TURNED: &str = "kana varchar(5) COLLATE Japanese_CI_AS NULL, code varchar(5) NULL";
const MORE: &str =
    "code varchar(5) NULL, kana varchar(5) COLLATE Japanese_CI_AS NULL, more int NULL";
const LESS: &str = "code varchar(5) NULL";

fn state(server: &Server) -> &State {
    &server.endpoint.as_ref().expect("the endpoint").state
}

fn said(text: &str) -> OwnedCell {
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

/// The endpoint, as SQL Server and as Babelfish.
async fn endpoints() -> [Server; 2] {
    let babelfish =
        Server { name: "the endpoint as Babelfish", is_babelfish: true, ..endpoint().await };
    state(&babelfish).is_babelfish.store(true, Ordering::Release);
    [endpoint().await, babelfish]
}

#[track_caller]
fn rows(answer: &Answer) -> &[Vec<OwnedCell>] {
    &answer.sets[0]
}

#[tokio::test]
async fn the_columns_of_a_type_made_anew_are_read_once_more() {
    for server in endpoints().await {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = Caller { transaction, ..Caller::of(&server) };
            for columns in [AT_FIRST, UTF_8, TURNED, MORE, WESTERN, TURNED, AT_FIRST] {
                state(&server).remake("code_list", columns);
                let before = state(&server).signature_reads.load(Ordering::Acquire);
                for row in [["abc", "a"], ["xyz", "b"]] {
                    let answer = caller.call("codes", &[codes(row)]).await;
                    let answer =
                        answer.unwrap_or_else(|e| panic!("{}: {columns}: {e:?}", server.name));
                    assert_eq!(rows(&answer), [row.map(said)], "{}: {columns}", server.name);
                }
                let reads = state(&server).signature_reads.load(Ordering::Acquire) - before;
                assert_eq!(reads, 2, "the parameters and the columns, once");
            }
            assert_eq!(
                state(&server).logins(),
                if transaction == Transaction::None { 1 } else { 2 }
            );
        }
    }
}

#[tokio::test]
async fn text_is_judged_by_the_code_page_that_the_column_has_now() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    for (columns, fits) in [(AT_FIRST, true), (UTF_8, true), (WESTERN, false), (UTF_8, true)] {
        state(&server).remake("code_list", columns);
        // What is refused by the columns that were read before is not asked about.
        caller.call("codes", &[codes(["a", "a"])]).await.expect("ASCII");
        let result = caller.call("codes", &[codes(["é", "日"])]).await;
        if fits {
            assert_eq!(rows(&result.expect("it fits")), [["é", "日"].map(said)], "{columns}");
        } else {
            let BackendErrorKind::Arguments(bad) = unsent(result) else { panic!("{columns}") };
            assert_eq!(bad[0].reason, "U+65E5 cannot be represented in code page 1252");
        }
    }
    // Nothing is asked in between: what was read is of UTF-8.
    state(&server).remake("code_list", WESTERN);
    let ran = state(&server).runs("fjord_test.codes");
    let BackendErrorKind::Arguments(bad) =
        unsent(caller.call("codes", &[codes(["é", "日"])]).await)
    else {
        panic!("another error")
    };
    assert_eq!(bad[0].reason, "U+65E5 cannot be represented in code page 1252");
    assert_eq!((state(&server).runs("fjord_test.codes"), state(&server).logins()), (ran, 1));
}

/// The driver wrote a cell without a column to it, and panicked.
#[tokio::test]
async fn a_column_that_is_gone_is_a_mismatch_and_costs_no_connection() {
    for server in endpoints().await {
        for transaction in [Transaction::None, Transaction::Committed] {
            let caller = Caller { transaction, ..Caller::of(&server) };
            state(&server).remake("code_list", AT_FIRST);
            caller.call("codes", &[codes(["abc", "a"])]).await.expect("codes");
            let (ran, logins) = (state(&server).runs("fjord_test.codes"), state(&server).logins());
            state(&server).remake("code_list", LESS);
            for _ in 0..2 {
                let error = unsent(caller.call("codes", &[codes(["abc", "a"])]).await);
                let BackendErrorKind::Mismatch { difference, .. } = error else {
                    panic!("{error}")
                };
                assert!(difference.contains("the column kana"), "{difference}");
            }
            assert_eq!(state(&server).runs("fjord_test.codes"), ran);
            // One whose caller does not name it.
            let less = texts("codes", &["code"], &["abc"]);
            let answer = caller.call("codes", &[less]).await.expect("codes");
            assert_eq!(rows(&answer), [[said("abc"), OwnedCell::Null]]);
            assert_eq!(state(&server).logins(), logins, "{}", server.name);
        }
    }
}

/// Also a type without text in a code page, of which the driver asks for all columns.
#[tokio::test]
async fn a_type_without_narrow_text_is_checked_too() {
    for server in endpoints().await {
        let caller = Caller::of(&server);
        let name = || texts("names", &["name"], &["Ā"]);
        for columns in [
            "name nvarchar(9) NULL",
            "id int NULL, name nvarchar(9) NULL",
            "name nvarchar(9) NULL, id int NULL",
        ] {
            state(&server).remake("name_list", columns);
            let answer = caller.call("names", &[name()]).await.expect("names");
            assert_eq!(rows(&answer), [[said("Ā")]], "{}: {columns}", server.name);
        }
        state(&server).remake("name_list", "id int NULL");
        let error = unsent(caller.call("names", &[name()]).await);
        assert!(matches!(error, BackendErrorKind::Mismatch { .. }), "{error}");
        assert_eq!(state(&server).logins(), 1, "{}", server.name);
    }
}

/// Between the question about its columns and the call.
#[tokio::test]
async fn a_type_made_anew_in_the_middle_of_a_call_is_refused_once() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    caller.call("codes", &[codes(["abc", "a"])]).await.expect("codes");
    *state(&server).remade_late.lock().expect("not poisoned") = Some(("code_list", MORE));
    let error = kind(caller.call("codes", &[codes(["abc", "a"])]).await);
    assert_eq!(error, SentErrorKind::Server { number: 500, class: ServerErrorClass::Other });
    let reads = state(&server).signature_reads.load(Ordering::Acquire);
    let answer = caller.call("codes", &[codes(["abc", "a"])]).await.expect("it was read again");
    assert_eq!(rows(&answer), [["abc", "a"].map(said)]);
    assert_eq!(state(&server).signature_reads.load(Ordering::Acquire), reads);
    assert_eq!(state(&server).logins(), 1);
}

/// On each server: what the check asks is what the server has.
#[tokio::test]
async fn a_server_tells_a_type_that_was_made_anew() {
    for server in servers().await.into_iter().filter(|server| server.endpoint.is_none()) {
        let caller = Caller::of(&server);
        let mut direct = direct(&server.config).await;
        let names = || texts("names", &["id", "name"], &["1", "abc"]);
        for columns in [
            "id int NULL, name nvarchar(9) NULL",
            "name nvarchar(9) NULL, id int NULL",
            "id int NULL, name nvarchar(9) NULL, more int NULL",
        ] {
            for batch in [
                "DROP PROCEDURE IF EXISTS fjord_test.remade",
                "DROP TYPE IF EXISTS fjord_test.remade_list",
                &format!("CREATE TYPE fjord_test.remade_list AS TABLE ({columns})"),
                "CREATE PROCEDURE fjord_test.remade @names fjord_test.remade_list READONLY AS SELECT name FROM @names",
            ] {
                direct.simple_query(batch).await.expect(batch).into_results().await.expect(batch);
            }
            for _ in 0..2 {
                let answer = caller.call("remade", &[names()]).await;
                let answer = answer.unwrap_or_else(|e| panic!("{columns}: {e:?}"));
                assert_eq!(rows(&answer), [[said("abc")]], "{columns}");
            }
        }
    }
}
