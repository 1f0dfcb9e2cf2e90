//! Promise: if the type of a table has generated columns, the table's rows are inserted before the
//! call. The procedure runs only with all of the rows.

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{Argument, BackendErrorKind, OwnedCell, SentErrorKind, Transaction};

use super::results::{text_cell, things};
use super::{ProcedureCaller, int, sent_error, unsent_error};
use crate::support::mssql_server::fake_server;

mod cell_limits;
mod required_columns;

fn lines(columns: &[(&str, ParameterType)], rows: Vec<Vec<ParameterValue<'static>>>) -> Argument {
    Argument { name: "rows".into(), ..things(columns, rows) }
}

const COLUMNS: [(&str, ParameterType); 2] =
    [("text", ParameterType::String), ("price", ParameterType::Decimal)];

fn row(text: &str, price: &str) -> Vec<ParameterValue<'static>> {
    let price = ParameterValue::Decimal(price.to_owned().into());
    vec![ParameterValue::Text(text.to_owned().into()), price]
}

/// SQL Server continues with the next statement after most errors, so the batch must end itself.
#[tokio::test]
async fn a_procedure_does_not_run_if_its_rows_cannot_be_inserted() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let rows = vec![row("a", "1"), row("refused", "1")];
    let error = sent_error(caller.call("lines", &[lines(&COLUMNS, rows)]).await);
    assert!(matches!(error, SentErrorKind::Server { number: 547, .. }), "{error:?}");
    assert_eq!(server.state().runs("fjord_test.lines"), 0, "the procedure ran without its rows");
    caller.call("lines", &[lines(&COLUMNS, vec![row("a", "1")])]).await.expect("the call succeeds");
    assert_eq!(server.state().runs("fjord_test.lines"), 1);
}

/// A table-valued parameter must have all columns of its type, but no value for generated columns.
#[tokio::test]
async fn rows_of_a_table_with_an_identity_are_inserted() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let rows = vec![row("é; --", "9999999.99"), vec![ParameterValue::Null, ParameterValue::Null]];
    let answer = caller.call("lines", &[lines(&COLUMNS, rows)]).await.expect("lines");
    let price = OwnedCell::Number("9999999.99".to_owned());
    let first = vec![OwnedCell::Int(1), text_cell("é; --"), price];
    let second = vec![OwnedCell::Int(2), OwnedCell::Null, OwnedCell::Null];
    assert_eq!(answer.sets, [[first, second]]);
    let wrong = vec![row("日", "1"), row("a", "0.001")];
    let error = caller.call("lines", &[lines(&COLUMNS, wrong)]).await;
    let BackendErrorKind::Arguments(bad) = unsent_error(error) else { panic!("another error") };
    let cells: Vec<_> = bad.into_iter().filter_map(|one| one.cell).collect();
    assert_eq!(cells, [(0, "text".to_owned()), (1, "price".to_owned())]);
    let generated = [("line", ParameterType::Int32)];
    let error = caller.call("lines", &[lines(&generated, Vec::new())]).await;
    let error = unsent_error(error).to_string();
    assert!(error.contains("line in the catalogue, but text, price in the database"), "{error}");
}

/// SQL Server permits 2,100 parameters, two of which `sp_executesql` needs. A NULL needs none.
#[tokio::test]
async fn all_values_of_a_call_count_towards_the_limit_of_a_request() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let half = || vec![ParameterValue::Text("a".into()), ParameterValue::Null];
    for (rows, fits) in [
        (vec![row("a", "1"); 1049], true),
        (vec![row("a", "1"); 1050], false),
        (vec![half(); 2098], true),
        (vec![half(); 2099], false),
    ] {
        let count = rows.len();
        let answer = caller.call("lines", &[lines(&COLUMNS, rows)]).await;
        if fits {
            assert_eq!(answer.expect("rows").sets[0].len(), count);
            continue;
        }
        let BackendErrorKind::Arguments(bad) = unsent_error(answer) else { panic!("{count}") };
        let reason = &bad[0].reason;
        assert!(reason.contains(" values that are not null, and at most 2098 can"), "{reason}");
    }
    let table = |name: &str, rows| Argument { name: name.into(), ..lines(&COLUMNS, rows) };
    let both = |rows| {
        let rows = vec![row("a", "1"); rows];
        [table("a", rows.clone()), table("b", rows), int("n", 1)]
    };
    caller.call("two_lines", &both(524)).await.expect("2,097 values");
    let BackendErrorKind::Arguments(bad) = unsent_error(caller.call("two_lines", &both(525)).await)
    else {
        panic!("another error")
    };
    let names: Vec<&str> = bad.iter().map(|one| one.argument.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// The columns of the new type may accept other values, or may store the same values with a loss.
#[tokio::test]
async fn rows_are_not_inserted_into_a_type_that_was_recreated() {
    let server = fake_server().await;
    let state = server.state();
    for transaction in [Transaction::None, Transaction::Committed] {
        let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
        let call = |price| [lines(&COLUMNS, vec![row("a", price)])];
        let original = "line int IDENTITY(1, 1), [text] varchar(20) NULL, price decimal(9, 2) NULL";
        state.recreate_type("line_list", original);
        caller.call("lines", &call("1.25")).await.expect("the call succeeds");
        let runs = state.runs("fjord_test.lines");
        let narrow = "line int IDENTITY(1, 1), [text] varchar(20) NULL, price decimal(9, 1) NULL";
        state.recreate_type("line_list", narrow);
        let BackendErrorKind::Arguments(bad) =
            unsent_error(caller.call("lines", &call("1.25")).await)
        else {
            panic!("another error")
        };
        let reason = "more than 1 digits after the decimal point of decimal(9, 1)";
        assert_eq!(bad[0].reason, reason);
        assert_eq!(state.runs("fjord_test.lines"), runs, "the procedure ran");
        caller.call("lines", &call("1.5")).await.expect("the call succeeds");
        assert_eq!(state.runs("fjord_test.lines"), runs + 1);
        assert!(state.logins() <= 2, "no connection was closed");
    }
}
