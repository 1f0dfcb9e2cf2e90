//! Promise: a null in a NOT NULL column of a table is refused before the call is sent, with its row and
//! column.

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{BackendErrorKind, BadArgument, OwnedCell};

use super::super::results::text_cell;
use super::super::{ProcedureCaller, unsent_error};
use super::{COLUMNS, lines, row};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::mssql_server::{fake_server, servers};

const REQUIRED: [(&str, ParameterType); 2] =
    [("id", ParameterType::Int32), ("note", ParameterType::String)];

fn null_in(row: usize, column: &str) -> BadArgument {
    let (cell, reason) = (Some((row, column.to_owned())), "a value other than null is required");
    BadArgument { argument: "rows".to_owned(), cell, reason: reason.to_owned() }
}

/// Fails with 515 from the server if the rows are sent.
#[tokio::test]
async fn every_null_in_a_not_null_column_is_refused_with_its_place() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let row = |id, note: &str| vec![id, ParameterValue::Text(note.to_owned().into())];
        let whole = ParameterValue::Integer;
        let wrong = vec![
            row(whole(1), "a"),
            row(ParameterValue::Null, "b"),
            row(whole(2), "longer than twenty characters"),
            row(ParameterValue::Null, "c"),
        ];
        let error = unsent_error(caller.call("requires", &[lines(&REQUIRED, wrong)]).await);
        let reason = "longer than nvarchar(20)".to_owned();
        let expected =
            vec![null_in(1, "id"), BadArgument { reason, ..null_in(2, "note") }, null_in(3, "id")];
        assert_eq!(error, BackendErrorKind::Arguments(expected), "{}", server.name);
        let right = vec![row(whole(1), "a"), vec![whole(2), ParameterValue::Null]];
        let answer = caller.call("requires", &[lines(&REQUIRED, right)]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        let first = vec![OwnedCell::Int(1), text_cell("a")];
        let second = vec![OwnedCell::Int(2), OwnedCell::Null];
        assert_eq!(answer.sets, [[first, second]], "{}", server.name);
    }
}

/// The caller cannot pass a value for a column that the catalogue does not name.
#[tokio::test]
async fn a_catalogue_without_a_not_null_column_does_not_match_the_table() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let notes = |rows| lines(&REQUIRED[1..], rows);
        let rows = vec![vec![ParameterValue::Text("a".into())]];
        let error = unsent_error(caller.call("requires", &[notes(rows)]).await);
        let BackendErrorKind::Mismatch { difference, .. } = error else { panic!("{error}") };
        let expected = "the table @rows has the column id (NOT NULL) in the database, but not in the \
            catalogue";
        assert_eq!(difference, expected, "{}", server.name);
        let answer = caller.call("requires", &[notes(Vec::new())]).await;
        answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
    }
}

/// Fails with 515 from the server if the rows are inserted.
#[tokio::test]
async fn a_null_in_a_not_null_column_is_not_inserted() {
    let server = fake_server().await;
    let required = "line int IDENTITY(1, 1), [text] varchar(20) NOT NULL, price decimal(9, 2) NULL";
    server.state().recreate_type("line_list", required);
    let caller = ProcedureCaller::new(&server);
    let null = || vec![ParameterValue::Null, ParameterValue::Decimal("1".into())];
    let error = caller.call("lines", &[lines(&COLUMNS, vec![row("a", "1"), null()])]).await;
    assert_eq!(unsent_error(error), BackendErrorKind::Arguments(vec![null_in(1, "text")]));
    assert_eq!(server.state().runs("fjord_test.lines"), 0);
    caller.call("lines", &[lines(&COLUMNS, vec![row("a", "1")])]).await.expect("a row");
}

/// A refused call does not reach the server, which would report that the type was recreated.
#[tokio::test]
async fn a_type_that_was_recreated_is_read_again_after_a_refusal() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let null = || vec![vec![ParameterValue::Null, ParameterValue::Text("a".into())]];
    let notes = || lines(&REQUIRED[1..], vec![vec![ParameterValue::Text("a".into())]]);
    let error = unsent_error(caller.call("requires", &[lines(&REQUIRED, null())]).await);
    assert!(matches!(error, BackendErrorKind::Arguments(_)), "{error}");
    server.state().recreate_type("required_list", "id int NULL, note nvarchar(20) NULL");
    // The signature is read again once it is a second old.
    eventually_some("the new columns are known", SOON, async || {
        caller.call("requires", &[notes()]).await.ok()
    })
    .await;
    server.state().recreate_type("required_list", "id int NOT NULL, note nvarchar(20) NULL");
    caller.call("requires", &[lines(&REQUIRED, null())]).await.expect_err("a null");
    server.state().recreate_type("required_list", "id int NULL, note nvarchar(20) NULL");
    eventually_some("the new columns are known", SOON, async || {
        caller.call("requires", &[lines(&REQUIRED, null())]).await.ok()
    })
    .await;
}
