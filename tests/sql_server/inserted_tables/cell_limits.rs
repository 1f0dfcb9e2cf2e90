//! Promise: a small body with many empty rows does not become a large statement, or a large table.

use fjord::catalogue::ParameterValue;
use fjord::procedures::{Argument, BackendErrorKind, BadArgument, OwnedCell};

use super::super::results::things;
use super::super::{ProcedureCaller, unsent_error};
use super::{COLUMNS, lines};
use crate::support::mssql_server::fake_server;

/// Returns rows in which every value is absent.
fn empty_rows(count: usize) -> Vec<Vec<ParameterValue<'static>>> {
    vec![Vec::new(); count]
}

fn refusal(argument: &str, reason: &str) -> BackendErrorKind {
    let (argument, reason) = (argument.to_owned(), reason.to_owned());
    BackendErrorKind::Arguments(vec![BadArgument { argument, cell: None, reason }])
}

/// The statement contains each NULL as text. The table has two columns that are not generated.
#[tokio::test]
async fn rows_of_nulls_are_inserted_up_to_a_number_of_cells() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let answer = caller.call("lines", &[lines(&COLUMNS, empty_rows(10_000))]).await;
    let rows = answer.expect("rows of NULL").sets.remove(0);
    assert_eq!(
        (rows.len(), &rows[9999]),
        (10_000, &vec![OwnedCell::Int(10_000), OwnedCell::Null, OwnedCell::Null,])
    );
    let error = caller.call("lines", &[lines(&COLUMNS, empty_rows(10_001))]).await;
    let reason = "the table has 10001 rows of 2 columns; at most 20000 cells can be passed, which \
        is 10000 rows";
    assert_eq!(unsent_error(error), refusal("rows", reason));
    assert_eq!(server.state().runs("fjord_test.lines"), 1);
}

/// The driver keeps each cell in memory. The table has four columns.
#[tokio::test]
async fn a_table_of_the_driver_has_a_limited_number_of_cells() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let table = Argument { name: "things".into(), ..things(&[], empty_rows(250_001)) };
    let error = unsent_error(caller.call("lists", &[table]).await);
    let reason = "the table has 250001 rows of 4 columns; at most 1000000 cells can be passed, \
        which is 250000 rows";
    assert_eq!(error, refusal("things", reason));
    assert_eq!(server.state().runs("fjord_test.lists"), 0);
}
