//! Promise: the rows of a table whose type has generated columns are inserted before the call, and
//! the procedure runs only with all of them.

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{Argument, BackendErrorKind, OwnedCell, SentErrorKind};

use super::results::{text_cell, things};
use super::{ProcedureCaller, sent_error, unsent_error};
use crate::support::mssql_server::fake_server;

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

/// A table-valued parameter must have all columns of its type, and no value for generated ones.
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
    let most = caller.call("lines", &[lines(&COLUMNS, vec![row("a", "1"); 950])]).await;
    assert_eq!(most.expect("950 rows").sets[0].len(), 950);
    let error = caller.call("lines", &[lines(&COLUMNS, vec![row("a", "1"); 951])]).await;
    let BackendErrorKind::Arguments(bad) = unsent_error(error) else { panic!("another error") };
    assert!(bad[0].reason.starts_with("more than 950 rows: "), "{bad:?}");
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
