//! Promise: an array for a `vector` is refused before the call is sent if it has another number of
//! numbers than the vector. Babelfish has no such type.

use std::sync::Arc;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{Argument, BackendErrorKind, BadArgument};

use super::super::{ProcedureCaller, given, text, unsent_error};
use crate::support::mssql_server::fake_server;

fn bad(argument: &str, cell: Option<(usize, String)>, reason: &str) -> BadArgument {
    BadArgument { argument: argument.to_owned(), cell, reason: reason.to_owned() }
}

/// Fails with 42204 from the server if the array is sent.
#[tokio::test]
async fn an_argument_has_as_many_numbers_as_the_vector() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (array, count) in [("[]", 0), ("[1,2]", 2), ("[1,2,3,4]", 4)] {
        let error = unsent_error(caller.call("echo_vector", &[text("v", array)]).await);
        let reason = format!("vector(3) has 3 numbers, or 6 in half precision, not {count}");
        assert_eq!(error, BackendErrorKind::Arguments(vec![bad("v", None, &reason)]));
    }
    caller.call("echo_vector", &[text("v", "[1,2,3]")]).await.expect("three numbers");
}

#[tokio::test]
async fn a_cell_of_a_table_has_as_many_numbers_as_the_vector() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let table = |arrays: &[&'static str]| {
        let row = |array: &&'static str| vec![ParameterValue::Json((*array).into())];
        let rows = ParameterValue::Table(arrays.iter().map(row).collect());
        let columns: Arc<[_]> = Arc::new([("v".into(), ParameterType::Json)]);
        Argument { columns, ..given("rows", rows) }
    };
    let wrong = table(&["[1,2]", "[1]", "[1,2,3]"]);
    let error = unsent_error(caller.call("vectors", &[wrong]).await);
    let bad = |row, count| {
        let reason = format!("vector(2) has 2 numbers, or 4 in half precision, not {count}");
        bad("rows", Some((row, "v".to_owned())), &reason)
    };
    assert_eq!(error, BackendErrorKind::Arguments(vec![bad(1, 1), bad(2, 3)]));
    caller.call("vectors", &[table(&["[1,2]"])]).await.expect("two numbers");
}
