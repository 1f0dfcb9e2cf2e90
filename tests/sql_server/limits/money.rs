//! Promise: every value of `money` is passed exactly. A value in a result is returned exactly, or is an
//! error that names its place.

use fjord::procedures::{OwnedCell, SentErrorKind};

use super::super::{ProcedureCaller, given, sent_error};
use super::type_limits::{digits, number};
use crate::support::mssql_server::servers;

/// The largest values that the driver reads exactly: 0.0001 below 2^39.
const EXACT: [&str; 2] = ["549755813887.9999", "-549755813887.9999"];
/// The smallest and the largest values that the driver does not read exactly.
const INEXACT: [&str; 6] = [
    "549755813888.0000",
    "-549755813888.0000",
    "549755813888.0001",
    "1234567890123.4567",
    "922337203685477.5807",
    "-922337203685477.5808",
];

/// Fails if an argument is converted to a double on its way to the server.
#[tokio::test]
async fn every_money_argument_is_passed_exactly() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for text in EXACT.into_iter().chain(INEXACT) {
            let (value, cell) = number(text);
            let answer = caller.call("money_as_decimal", &[given("v", value)]).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
            assert_eq!(*answer.cell(), cell, "{}", server.name);
        }
    }
}

/// Fails if a digit can be wrong without an error, in a column, an OUTPUT parameter or a `sql_variant`,
/// or if the connection cannot be used after the error.
#[tokio::test]
async fn money_that_cannot_be_read_exactly_is_an_error_that_names_its_place() {
    for mut server in servers().await {
        server.config.connections_max = 1;
        let caller = ProcedureCaller::new(&server);
        for text in INEXACT {
            for (procedure, place) in
                [("echo_money", "'v'"), ("money_as_output", "'out'"), ("money_in_variant", "'v'")]
            {
                let error = sent_error(caller.call(procedure, &[given("v", digits(text))]).await);
                let reason = format!("{place} has a value that JSON cannot represent exactly");
                let expected = SentErrorKind::Undecodable(reason);
                assert_eq!(error, expected, "{}: {procedure} {text}", server.name);
            }
        }
        caller.call("nothing", &[]).await.expect("another call");
    }
}

/// The driver reads `money` in a `sql_variant` as a double. Fails if fjord refuses a value whose digits
/// the double still has, or changes one of them.
#[tokio::test]
async fn money_in_a_variant_keeps_its_digits_up_to_the_limit() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (text, number) in [
            ("0.0001", 0.0001),
            ("-123456.7891", -123_456.789_1),
            ("549755813887.9999", 549_755_813_887.999_9),
            ("-549755813887.9999", -549_755_813_887.999_9),
        ] {
            let answer = caller.call("money_in_variant", &[given("v", digits(text))]).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
            assert_eq!(*answer.cell(), OwnedCell::Float(number), "{}", server.name);
            assert_eq!(number.to_string(), text, "the shortest digits of the double");
        }
    }
}
