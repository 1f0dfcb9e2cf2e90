//! Promise: every procedure that SQL Server allows can be called, regardless of its name. If an
//! object is not a procedure, the error names its kind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjord::catalogue::{ParameterType, ParameterValue, QueueName};
use fjord::procedures::{Argument, BackendErrorKind, ExpectedProcedure, OwnedCell};

use super::{ProcedureCaller, given, int, name, text, unsent_error};
use crate::support::mssql_server::{fake_server, servers};

fn cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

fn expected(procedure: &str, arguments: &[(&str, ParameterType)]) -> ExpectedProcedure {
    let arguments = arguments.iter().map(|(name, kind)| ((*name).into(), *kind)).collect();
    let queue = QueueName::new("suite").expect("a name");
    let (outputs, session_keys) = (Vec::new(), Vec::new());
    ExpectedProcedure { queue, procedure: name(procedure), arguments, outputs, session_keys }
}

#[tokio::test]
async fn a_procedure_and_its_parameters_can_have_any_name() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let year = caller.call("[Sales by Year]", &[int("größe", 7)]).await;
        let year = year.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        assert_eq!((year.cell(), &*year.columns[0][0]), (&OwnedCell::Int(7), "größe"));
        // Case is ignored, as in the collation of the database.
        let year = caller.call("[Sales by Year]", &[int("GRÖßE", 8)]).await.expect("a year");
        assert_eq!(*year.cell(), OwnedCell::Int(8), "{}", server.name);
        let sum = caller.call("[a.b]", &[int("1", 2), int("a$b", 3)]).await;
        assert_eq!(*sum.expect("a sum").cell(), OwnedCell::Int(5), "{}", server.name);
        let letter = caller.call("größe_lesen", &[]).await.expect("a letter");
        assert_eq!(*letter.cell(), cell("ß"), "{}", server.name);
        // A call with such an OUTPUT parameter is sent as a statement.
        let out = caller.call("[it's; -- out]", &[]).await.expect("a statement");
        assert_eq!(*out.output("text"), cell("out"), "{}", server.name);
    }
}

/// Babelfish can create neither of these names.
#[tokio::test]
async fn a_name_can_contain_brackets_and_a_parameter_number_signs() {
    let server = fake_server().await;
    let answer = ProcedureCaller::new(&server).call("[a]]b[c]", &[int("a#b@c", 4)]).await;
    assert_eq!(*answer.expect("a call").cell(), OwnedCell::Int(4));
}

#[tokio::test]
async fn a_table_type_and_its_columns_can_be_reserved_words_or_have_blanks() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let columns: Arc<[_]> = Arc::new([
            ("größe".into(), ParameterType::String),
            ("Sort Order".into(), ParameterType::Int32),
        ]);
        let rows = vec![vec![ParameterValue::Text("XL".into()), ParameterValue::Integer(3)]];
        let rows = Argument { columns, ..given("rows", ParameterValue::Table(rows)) };
        let answer = caller.call("[order by]", &[rows]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        assert_eq!(answer.sets, [[[OwnedCell::Int(3), cell("XL")]]], "{}", server.name);
    }
}

/// Babelfish needs seconds to read the kinds of objects, so they are not queried there.
#[tokio::test]
async fn an_object_that_is_not_a_procedure_is_refused_with_its_kind() {
    for server in servers().await.into_iter().filter(|server| !server.is_babelfish) {
        let caller = ProcedureCaller::new(&server);
        let reason = "fjord_test.things is a table, expected a procedure";
        let error = caller.verify(expected("things", &[])).await.expect_err("a table").to_string();
        assert!(error.contains(reason), "{}: {error}", server.name);
        let error = unsent_error(caller.call("things", &[]).await);
        let BackendErrorKind::Mismatch { difference, .. } = error else { panic!("{error}") };
        assert_eq!(difference, reason, "{}", server.name);
    }
    let server = fake_server().await;
    for (object, reason) in [
        ("a_view", "fjord_test.a_view is a view, expected a procedure"),
        ("a_function", "fjord_test.a_function is a scalar function, expected a procedure"),
        ("table_synonym", "is a synonym of fjord_test.things, a table, expected a procedure"),
        ("elsewhere", "is a synonym of [other].[dbo].[returns], which is not in this database"),
        ("nowhere_synonym", "is a synonym of fjord_test.not_there, which is not in this database"),
    ] {
        let caller = ProcedureCaller::new(&server);
        let error = caller.verify(expected(object, &[])).await.expect_err(object).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Babelfish has no synonyms.
#[tokio::test]
async fn a_synonym_is_called_with_the_parameters_of_its_procedure() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let parameters = [("größe", ParameterType::Int32)];
    caller.verify(expected("[other name]", &parameters)).await.expect("a synonym of a procedure");
    let wrong = [("größe", ParameterType::Int32), ("x", ParameterType::Int32)];
    caller.verify(expected("[other name]", &wrong)).await.expect_err("an unknown parameter");
    let answer = caller.call("[other name]", &[int("größe", 9)]).await.expect("a synonym");
    assert_eq!(*answer.cell(), OwnedCell::Int(9));
    // The query for servers without synonyms does not follow synonyms.
    let state = &server.fake.as_ref().expect("the fake server").state;
    state.lacks_parameters_view.store(true, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    let error = caller.verify(expected("[other name]", &parameters)).await.expect_err("a synonym");
    assert!(error.to_string().contains("has no parameters"), "{error}");
}

/// The driver sends the name of a table type unchanged, and refuses most special characters.
#[tokio::test]
async fn a_table_type_that_the_driver_cannot_name_is_refused_when_the_queue_starts() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let expected = expected("quoted_type", &[("rows", ParameterType::Table)]);
    let error = caller.verify(expected).await.expect_err("a mismatch").to_string();
    assert!(error.contains("@rows has the table type fjord_test.[my list]"), "{error}");
    let rows = given("rows", ParameterValue::Table(Vec::new()));
    let error = unsent_error(caller.call("quoted_type", &[rows]).await);
    assert!(matches!(error, BackendErrorKind::Mismatch { .. }), "{error}");
}

/// The base type of a CLR type has no name.
#[tokio::test]
async fn a_clr_type_is_named_with_the_way_to_pass_its_value() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let arguments = [("at", ParameterType::String), ("under", ParameterType::String)];
    let error = caller.verify(expected("places", &arguments)).await.expect_err("a mismatch");
    let error = error.to_string();
    let way = "the procedure can take text or binary data and convert it";
    for kind in ["geography", "hierarchyid"] {
        let expected = format!("declares {kind}, which cannot be passed: {way}");
        assert!(error.contains(&expected), "{error}");
    }
    let error = unsent_error(caller.call("places", &[text("at", "POINT (1 2)")]).await);
    let BackendErrorKind::Arguments(bad) = error else { panic!("{error}") };
    assert_eq!(bad[0].reason, format!("no value can be passed as geography: {way}"));
}
