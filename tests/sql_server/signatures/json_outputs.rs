//! Promise: a procedure with an OUTPUT parameter of the type `json` can be called and described. SQL
//! Server does not convert `json` to text implicitly. Babelfish has no such type.

use fjord::catalogue::ParameterValue;
use fjord::procedures::{OwnedCell, SentErrorKind, ServerErrorClass};

use super::super::{ProcedureCaller, given, name, sent_error, text};
use crate::support::mssql_server::fake_server;

/// Fails with 257 if the variable for the OUTPUT parameter has a text type.
#[tokio::test]
async fn a_json_output_is_returned_as_json() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (value, expected) in [
        (text("v", "{\"a\":[1]}"), OwnedCell::Json("{\"a\":[1]}".to_owned())),
        (given("v", ParameterValue::Null), OwnedCell::Null),
    ] {
        let answer = caller.call("echo_json", &[value]).await.expect("a call");
        assert_eq!(*answer.output("out"), expected);
    }
    let answer = caller.call("echo_json", &[text("v", "1"), text("out", "{\"b\":2}")]).await;
    assert_eq!(*answer.expect("an input value").output("out"), OwnedCell::Json("1".to_owned()));
}

/// SQL Server would continue with the call after the failed conversion.
#[tokio::test]
async fn a_json_that_the_server_refuses_does_not_run_the_procedure() {
    let server = fake_server().await;
    let many = format!("[{}0]", "0,".repeat(65_535));
    let arguments = [text("v", "1"), text("out", &many)];
    let error = sent_error(ProcedureCaller::new(&server).call("echo_json", &arguments).await);
    let class = ServerErrorClass::BadValue;
    assert_eq!(error, SentErrorKind::Server { number: 13647, class });
    assert_eq!(server.state().runs("fjord_test.echo_json"), 0);
}

/// Fails with 257 if the description of the call declares the OUTPUT parameter as text.
#[tokio::test]
async fn the_answer_of_a_procedure_with_a_json_output_is_described() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let described = caller.backend.describe_result(&name("echo_json")).await.expect("an answer");
    assert!(described.sets.is_ok(), "{:?}", described.sets);
    let outputs: Vec<&str> = described.outputs.iter().map(|one| one.declared.as_str()).collect();
    assert_eq!(outputs, ["json"]);
}
