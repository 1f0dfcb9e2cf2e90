//! Promise: a value of every type in docs/TYPES.md is returned as it was sent, as a column and as an OUTPUT parameter.

use fjord::catalogue::ParameterValue;
use fjord::procedures::{BackendErrorKind, BadArgument, CallError, OwnedCell, SentErrorKind};

use super::{ProcedureCaller, given, text, unsent_error};
use crate::support::mssql_server::servers;

fn words(text: &str) -> ParameterValue<'static> {
    ParameterValue::Text(text.to_owned().into())
}

fn digits(text: &str) -> ParameterValue<'static> {
    ParameterValue::Decimal(text.to_owned().into())
}

fn binary(bytes: &[u8]) -> ParameterValue<'static> {
    ParameterValue::Binary(bytes.to_vec().into())
}

fn number(text: &str) -> OwnedCell {
    OwnedCell::Number(text.to_owned())
}

fn text_cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

/// Procedures that return their value only as a column.
const WITHOUT_OUTPUT: [&str; 2] = ["time_0", "datetime2_3"];

/// A test case: the type that names the procedure, the value to send, and the expected cell.
type TypeCase = (&'static str, ParameterValue<'static>, OwnedCell);

fn numbers() -> Vec<TypeCase> {
    vec![
        ("bit", ParameterValue::Boolean(true), OwnedCell::Bool(true)),
        ("bit", ParameterValue::Integer(0), OwnedCell::Bool(false)),
        ("tinyint", ParameterValue::Integer(255), OwnedCell::Int(255)),
        ("smallint", ParameterValue::Integer(-32768), OwnedCell::Int(-32768)),
        ("int", ParameterValue::Integer(-2_147_483_648), OwnedCell::Int(-2_147_483_648)),
        ("int", words("42"), OwnedCell::Int(42)),
        ("bigint", ParameterValue::Integer(i64::MAX), OwnedCell::Int(i64::MAX)),
        (
            "bigint",
            ParameterValue::Integer(9_007_199_254_740_993),
            OwnedCell::Int(9_007_199_254_740_993),
        ),
        (
            "decimal_38_10",
            digits("-1234567890123456789012345678.0123456789"),
            number("-1234567890123456789012345678.0123456789"),
        ),
        ("decimal_38_10", ParameterValue::Integer(7), number("7.0000000000")),
        ("numeric_9_2", digits("1.5"), number("1.50")),
        ("money", digits("-922337203.6854"), number("-922337203.6854")),
        ("money", digits("1234567890.1"), number("1234567890.1000")),
        ("smallmoney", digits("214748.3647"), number("214748.3647")),
        ("real", ParameterValue::Number(0.1), number("0.1")),
        ("float", ParameterValue::Number(0.1), OwnedCell::Float(0.1)),
        ("float", ParameterValue::Number(-1.797e308), OwnedCell::Float(-1.797e308)),
    ]
}

fn texts() -> Vec<TypeCase> {
    vec![
        ("char_10", words("abc"), text_cell("abc       ")),
        ("varchar_50", words("abc"), text_cell("abc")),
        ("varchar_50", words(""), text_cell("")),
        ("varchar_max", words("abc"), text_cell("abc")),
        ("nchar_10", words("äé€"), text_cell("äé€       ")),
        ("nvarchar_50", words("ä €𝄞 漢字"), text_cell("ä €𝄞 漢字")),
        ("nvarchar_max", words("ä €𝄞 漢字"), text_cell("ä €𝄞 漢字")),
        ("nvarchar_max", ParameterValue::Json("{\"a\":[1,2]}".into()), text_cell("{\"a\":[1,2]}")),
        ("nvarchar_50", ParameterValue::Integer(12), text_cell("12")),
        ("binary_4", binary(&[1, 2]), OwnedCell::Binary(vec![1, 2, 0, 0])),
        ("varbinary_50", binary(&[0, 255]), OwnedCell::Binary(vec![0, 255])),
        ("varbinary_max", binary(&[0, 255]), OwnedCell::Binary(vec![0, 255])),
        ("varbinary_max", binary(&[]), OwnedCell::Binary(Vec::new())),
        (
            "uniqueidentifier",
            words("6F9619FF-8B86-D011-B42D-00C04FC964FF"),
            text_cell("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ),
        ("xml", words("<a b=\"1\">ä</a>"), text_cell("<a b=\"1\">ä</a>")),
    ]
}

fn moments() -> Vec<TypeCase> {
    vec![
        ("date", words("0001-01-01"), text_cell("0001-01-01")),
        ("date", words("9999-12-31"), text_cell("9999-12-31")),
        ("time_7", words("23:59:59.123456"), text_cell("23:59:59.123456")),
        ("time_0", words("23:59:58.4"), text_cell("23:59:58")),
        ("datetime", words("2024-02-29T12:34:56.123Z"), text_cell("2024-02-29T12:34:56.123Z")),
        ("smalldatetime", words("2024-02-29T12:34:00Z"), text_cell("2024-02-29T12:34:00Z")),
        (
            "datetime2_7",
            words("2024-02-29T12:34:56.123456Z"),
            text_cell("2024-02-29T12:34:56.123456Z"),
        ),
        ("datetime2_7", words("2024-02-29T12:34:56+02:00"), text_cell("2024-02-29T10:34:56Z")),
        ("datetime2_3", words("2024-02-29T23:59:59.9996Z"), text_cell("2024-03-01T00:00:00Z")),
        (
            "datetimeoffset_6",
            words("2024-02-29T12:34:56.123456+05:30"),
            text_cell("2024-02-29T12:34:56.123456+05:30"),
        ),
        (
            "datetimeoffset_6",
            words("2024-01-01T00:30:00-08:00"),
            text_cell("2024-01-01T00:30:00-08:00"),
        ),
    ]
}

#[tokio::test]
async fn a_value_of_every_type_is_returned_as_it_was_sent() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (name, value, cell) in [numbers(), texts(), moments()].concat() {
            let arguments = [given("v", value.clone())];
            let answer = caller.call(&format!("echo_{name}"), &arguments).await;
            let answer = answer.unwrap_or_else(|error| {
                panic!("{}: {name} {value:?}: {error} {error:?}", server.name)
            });
            assert_eq!(*answer.cell(), cell, "{}: {name} as a column", server.name);
            if !WITHOUT_OUTPUT.contains(&name) {
                assert_eq!(*answer.output("out"), cell, "{}: {name} as OUTPUT", server.name);
            }
        }
    }
}

/// Cells that need formatting are set after the others.
#[tokio::test]
async fn each_cell_of_a_wide_row_is_in_its_place() {
    for server in servers().await {
        let answer = ProcedureCaller::new(&server).call("wide", &[]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        let cell = |n: i64| match n % 2 {
            1 => OwnedCell::Int(n),
            _ => OwnedCell::Number(format!("{n}.00")),
        };
        let expected: Vec<OwnedCell> = (1..=20).map(cell).collect();
        assert_eq!(answer.sets, [[expected]], "{}", server.name);
    }
}

#[tokio::test]
async fn null_is_returned_as_null_for_every_type() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (name, _, _) in [numbers(), texts(), moments()].concat() {
            let answer =
                caller.call(&format!("echo_{name}"), &[given("v", ParameterValue::Null)]).await;
            let answer =
                answer.unwrap_or_else(|error| panic!("{}: {name}: {error} {error:?}", server.name));
            assert_eq!(*answer.cell(), OwnedCell::Null, "{}: {name}", server.name);
            if !WITHOUT_OUTPUT.contains(&name) {
                assert_eq!(*answer.output("out"), OwnedCell::Null, "{}: {name}", server.name);
            }
        }
    }
}

#[tokio::test]
async fn a_sql_variant_is_either_read_or_reported_as_an_error() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        match caller.call("variant", &[]).await {
            Ok(answer) => assert_eq!(*answer.cell(), OwnedCell::Int(7), "{}", server.name),
            Err(error) => {
                let is_clear = matches!(&error, CallError::Sent(error)
                    if matches!(error.kind, SentErrorKind::Undecodable(_)));
                assert!(is_clear, "{}: {error}", server.name);
            }
        }
        assert!(caller.call("nothing", &[]).await.is_ok(), "{}", server.name);
    }
}

#[tokio::test]
async fn a_sql_variant_has_the_type_of_the_json_value() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (value, expected) in [(ParameterValue::Integer(7), "7"), (words("seven"), "seven")] {
            let answer = caller.call("takes_variant", &[given("v", value)]).await;
            let answer = answer
                .unwrap_or_else(|error| panic!("{}: {expected}: {error} {error:?}", server.name));
            assert_eq!(*answer.cell(), text_cell(expected), "{}", server.name);
        }
    }
}

#[tokio::test]
async fn an_error_names_the_parameter() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for (name, value) in [
            ("int", words("1; DROP TABLE x")),
            ("tinyint", ParameterValue::Integer(256)),
            ("numeric_9_2", digits("1.234")),
            ("money", digits("922337203685477.5808")),
            ("nvarchar_50", words(&"x".repeat(51))),
            ("varbinary_50", binary(&[0; 51])),
            ("date", words("2023-02-29")),
            ("uniqueidentifier", words("x")),
        ] {
            let error =
                unsent_error(caller.call(&format!("echo_{name}"), &[given("v", value)]).await);
            let BackendErrorKind::Arguments(bad) = error else {
                panic!("{}: {name}: {error}", server.name)
            };
            let [BadArgument { argument, reason, .. }] = bad.as_slice() else { panic!("{bad:?}") };
            assert_eq!(argument, "v");
            let (kind, _) = name.split_once('_').unwrap_or((name, ""));
            assert!(reason.contains(kind), "{reason}");
        }
    }
}

#[tokio::test]
async fn hostile_text_arrives_as_data() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        for hostile in [
            "'; DROP TABLE fjord_test.things; --",
            "\"]] [x] /* */ \\ % _ @P1 @v",
            "\u{1}\u{7f}\u{200b}\u{feff}x\u{202e}",
            "\u{e000}\u{10000}\u{1f600}\u{2ffff}\u{e0001}\u{10ffff}",
            "line\r\nline\ttab",
        ] {
            let answer = caller.call("echo_nvarchar_max", &[text("v", hostile)]).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", server.name));
            assert_eq!(*answer.cell(), text_cell(hostile), "{}", server.name);
        }
    }
}

#[tokio::test]
async fn five_megabytes_are_passed_and_returned() {
    const BYTES: usize = 5 * 1024 * 1024;
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let long = "äb".repeat(BYTES / 3);
        let answer = caller.call("echo_nvarchar_max", &[text("v", &long)]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", server.name));
        assert!(*answer.cell() == text_cell(&long), "{}: text changed", server.name);
        let bytes: Vec<u8> =
            (0..BYTES).map(|n| u8::try_from(n % 251).expect("the remainder fits u8")).collect();
        let answer = caller.call("echo_varbinary_max", &[given("v", binary(&bytes))]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", server.name));
        assert!(*answer.cell() == OwnedCell::Binary(bytes), "{}: bytes changed", server.name);
    }
}
