//! Promise: the smallest and largest values of each SQL type are converted in both directions. A
//! value outside these limits is refused before the call is sent, with the reason.

use std::sync::Arc;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{Argument, BackendErrorKind, BadArgument, OwnedCell};

use super::{ProcedureCaller, given, unsent_error};
use crate::support::mssql_server::{fake_server, servers};

mod longest_values;
mod money;
mod seven_digits;
mod table_cells;
mod type_limits;

use type_limits::{
    TypeLimits, doubles, fractions, integers, long_moments, moments, numbers, texts, variants,
    wide_variants, words,
};

async fn walk(caller: &ProcedureCaller, server: &str, all: Vec<TypeLimits>) {
    for TypeLimits { procedure, fits, refused } in all {
        for (value, cell) in fits {
            let answer = caller.call(procedure, &[given("v", value.clone())]).await;
            let answer =
                answer.unwrap_or_else(|error| panic!("{server}: {procedure} {value:?}: {error:?}"));
            assert_eq!(*answer.cell(), cell, "{server}: {procedure} as a column");
            assert_eq!(*answer.output("out"), cell, "{server}: {procedure} as OUTPUT");
        }
        for (value, reason) in refused {
            let error = unsent_error(caller.call(procedure, &[given("v", value.clone())]).await);
            let (argument, reason) = ("v".to_owned(), reason.to_owned());
            let bad = BadArgument { argument, cell: None, reason };
            let expected = BackendErrorKind::Arguments(vec![bad]);
            assert_eq!(error, expected, "{server}: {procedure} {value:?}");
        }
        let null = caller.call(procedure, &[given("v", ParameterValue::Null)]).await.expect("NULL");
        assert_eq!(*null.cell(), OwnedCell::Null, "{server}: {procedure}");
    }
}

#[tokio::test]
async fn every_type_takes_its_limits_and_refuses_what_is_beyond() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let all = [
            integers(),
            numbers(),
            fractions(),
            doubles(),
            texts(),
            variants(),
            moments(),
            long_moments(),
        ]
        .into_iter()
        .flatten()
        .collect();
        walk(&caller, server.name, all).await;
        if !server.is_babelfish {
            walk(&caller, server.name, wide_variants()).await;
        }
    }
}

/// Babelfish has no such types. The fake server exchanges them as text, as SQL Server 2025 does with
/// drivers that do not support them.
#[tokio::test]
async fn json_and_vectors_are_passed_as_json() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (procedure, sent, reason) in [
        ("echo_json", "{\"a\":[1,null]}", "expected JSON for json"),
        ("echo_vector", "[0.1,-2,3e1]", "expected an array of numbers for vector"),
    ] {
        for value in [words(sent), ParameterValue::Json(sent.to_owned().into())] {
            let answer = caller.call(procedure, &[given("v", value)]).await.expect(procedure);
            assert_eq!(*answer.output("out"), OwnedCell::Json(sent.to_owned()), "{procedure}");
        }
        let error = unsent_error(caller.call(procedure, &[given("v", words("[1,"))]).await);
        let (argument, reason) = ("v".to_owned(), reason.to_owned());
        let bad = BadArgument { argument, cell: None, reason };
        assert_eq!(error, BackendErrorKind::Arguments(vec![bad]), "{procedure}");
    }
}

/// Builds an argument that is a table with one row of documents.
fn document(xml: &str, json: &str) -> Argument {
    let columns = [("x".into(), ParameterType::String), ("j".into(), ParameterType::String)];
    let rows = vec![vec![words(xml), words(json)]];
    Argument { columns: Arc::new(columns), ..given("rows", ParameterValue::Table(rows)) }
}

/// The driver ends an empty `xml` too early.
#[tokio::test]
async fn an_empty_xml_is_refused_in_a_table() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let answer = caller.call("documents", &[document("<a/>", "{\"ä\":\"日\"}")]).await;
    let row = answer.expect("documents").sets.remove(0).remove(0);
    let texts = ["<a/>", "{\"ä\":\"日\"}"].map(|text| OwnedCell::Text(text.to_owned()));
    assert_eq!(row, texts);
    let error = unsent_error(caller.call("documents", &[document("", "{")]).await);
    let bad = |column: &str, reason: &str| BadArgument {
        argument: "rows".to_owned(),
        cell: Some((0, column.to_owned())),
        reason: reason.to_owned(),
    };
    let expected = vec![
        bad("x", "an empty xml cannot be passed in a table"),
        bad("j", "expected JSON for json"),
    ];
    assert_eq!(error, BackendErrorKind::Arguments(expected));
}
