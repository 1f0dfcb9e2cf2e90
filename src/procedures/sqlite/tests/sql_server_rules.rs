//! Tests that values are compared, stored and returned as on SQL Server.

use super::*;
use crate::procedures::BadArgument;

#[tokio::test]
async fn text_in_ci_as_is_compared_without_case_and_trailing_blanks() {
    let database = TestDatabase::new(&[
        (
            "finds",
            "WITH stall (name) AS (SELECT 'Aisha ' COLLATE CI_AS)
             SELECT count(*) FROM stall WHERE name = @name COLLATE CI_AS",
        ),
        ("adds", "INSERT INTO breed (name) VALUES (@name)"),
        ("by_name", "SELECT id FROM breed WHERE name = @name"),
    ]);
    let named = |name: &str| [argument("name", ParameterType::String, text_value(name))];
    for (name, count) in [("AISHA", 1), ("aisha   ", 1), ("Aïsha", 0), (" Aisha", 0)] {
        let rows = database.rows("finds", &named(name)).await;
        assert_eq!(rows, [[OwnedCell::Int(count)]], "{name:?}");
    }
    database.rows("adds", &named("Haflinger")).await;
    let (result, _) = database.call("adds", &named("HAFLINGER ")).await;
    let kind = sent(result.unwrap_err()).kind;
    let class = ServerErrorClass::Conflict;
    assert_eq!(kind, SentErrorKind::Server { number: 2067, class });
    assert_eq!(database.rows("by_name", &named("haflinger")).await, [[OwnedCell::Int(1)]]);
}

fn text_value(text: &str) -> ParameterValue<'static> {
    ParameterValue::Text(text.to_owned().into())
}

#[tokio::test]
async fn a_decimal_has_the_digits_of_its_declared_scale() {
    let database = TestDatabase::new(&[
        ("adds", "INSERT INTO price (exact, stored, amount) VALUES (@v, @v, @v)"),
        ("all", "SELECT exact, stored, amount, 2.5 AS \"half:decimal(9, 3)\" FROM price"),
    ]);
    let value = ParameterValue::Decimal("1.5".into());
    database.rows("adds", &[argument("v", ParameterType::Decimal, value)]).await;
    let number = |text: &str| OwnedCell::Number(text.to_owned());
    let expected = [number("1.50"), number("1.50"), number("1.5000"), number("2.500")];
    assert_eq!(database.rows("all", &[]).await, [expected]);
}

#[tokio::test]
async fn a_date_and_time_is_stored_in_utc() {
    let database = TestDatabase::new(&[
        ("one", "SELECT @at AS at"),
        ("many", "SELECT value ->> 'at' AS at FROM json_each(@rows)"),
    ]);
    let at = text_value("2026-01-02T03:04:05.120+02:00");
    let expected = [[text("2026-01-02T01:04:05.12Z")]];
    let one = argument("at", ParameterType::Datetime, at.clone());
    assert_eq!(database.rows("one", &[one]).await, expected);
    let columns = [("at".into(), ParameterType::Datetime)];
    let rows = ParameterValue::Table(vec![vec![at]]);
    let many = argument("rows", ParameterType::Table, rows);
    let many = Argument { columns: columns.into(), ..many };
    assert_eq!(database.rows("many", &[many]).await, expected);
}

#[tokio::test]
async fn null_in_a_column_that_does_not_allow_it_is_a_bad_value() {
    let database = TestDatabase::new(&[("adds", "INSERT INTO horse (name) VALUES (@name)")]);
    let null = argument("name", ParameterType::String, ParameterValue::Null);
    let (result, _) = database.call("adds", &[null]).await;
    // SQL Server reports error 515.
    let class = ServerErrorClass::BadValue;
    assert_eq!(sent(result.unwrap_err()).kind, SentErrorKind::Server { number: 1299, class });
}

const DECLARED: &str = "CREATE PROCEDURE t.declared
    @code nvarchar(4), @a int = 7, @b nvarchar(20) = N'seven', @c int = NULL, @found bit OUTPUT
    AS SELECT 1 AS \"@found:boolean\"; SELECT @code AS code, @a AS a, @b AS b, @c AS c";

#[tokio::test]
async fn an_absent_argument_takes_its_default_and_null_stays_null() {
    let database = TestDatabase::new(&[("declared", DECLARED)]);
    let code = argument("code", ParameterType::String, text_value("K1"));
    let null = |name| argument(name, ParameterType::String, ParameterValue::Null);
    for (arguments, a, b) in [
        (vec![code.clone()], OwnedCell::Int(7), text("seven")),
        (vec![code.clone(), int("a", 8)], OwnedCell::Int(8), text("seven")),
        (vec![code.clone(), null("a"), null("b")], OwnedCell::Null, OwnedCell::Null),
    ] {
        let expected = [[text("K1"), a, b, OwnedCell::Null]];
        assert_eq!(database.rows("declared", &arguments).await, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_declared_output_that_is_not_set_keeps_its_argument_or_is_null() {
    let database = TestDatabase::new(&[(
        "partly",
        "CREATE OR ALTER PROCEDURE t.partly @set int OUTPUT, @given int OUTPUT, @unset int OUTPUT
         AS SELECT 1 AS \"@set\"",
    )]);
    let (result, _) = database.call("partly", &[int("given", 7)]).await;
    let mut outputs = result.unwrap().outputs;
    outputs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let expected =
        [("given", OwnedCell::Int(7)), ("set", OwnedCell::Int(1)), ("unset", OwnedCell::Null)];
    assert_eq!(outputs, expected.map(|(name, cell)| (name.to_owned(), cell)));
}

#[tokio::test]
async fn a_declared_parameter_without_a_default_must_be_passed_and_fit_its_length() {
    let database = TestDatabase::new(&[("declared", DECLARED)]);
    // SQL Server reports error 201 before any part of the procedure is executed.
    let (result, _) = database.call("declared", &[int("a", 1)]).await;
    let error = unsent(result.unwrap_err()).to_string();
    assert!(error.contains("it expects @code, which was not supplied"), "{error}");
    for (code, fits) in
        [("KWPN", true), ("KWPN2", false), ("\u{10ffff}\u{10ffff}", true), ("𝄞𝄞𝄞", false)]
    {
        let code = argument("code", ParameterType::String, text_value(code));
        let (result, _) = database.call("declared", &[code]).await;
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            let bad = BadArgument {
                argument: "code".to_owned(),
                cell: None,
                reason: "longer than nvarchar(4)".to_owned(),
            };
            assert_eq!(unsent(error), BackendErrorKind::Arguments(vec![bad]));
        }
    }
}

#[tokio::test]
async fn the_catalogue_may_leave_out_declared_parameters_with_a_default() {
    let database = TestDatabase::new(&[
        ("declared", DECLARED),
        ("typo", "CREATE PROCEDURE t.typo @name int AS SELECT @nmae AS name"),
    ]);
    let expected = |procedure: &str, arguments: &[&str]| ExpectedProcedure {
        queue: QueueName::new("q").unwrap(),
        procedure: ProcedureName::new(&format!("t.{procedure}")).unwrap(),
        arguments: arguments.iter().map(|name| ((*name).into(), ParameterType::String)).collect(),
        outputs: if procedure == "declared" { vec!["found".to_owned()] } else { Vec::new() },
        session_keys: Vec::new(),
    };
    verify(&database, expected("declared", &["code"])).await.unwrap();
    verify(&database, expected("declared", &["code", "a", "b", "c"])).await.unwrap();
    for (procedure, arguments, part) in [
        ("declared", ["a"], "the procedure needs @code"),
        ("declared", ["d"], "the catalogue passes @d"),
        ("typo", ["name"], "@nmae is used, but neither declared nor set before"),
    ] {
        let error = verify(&database, expected(procedure, &arguments)).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn an_import_reads_the_declaration() {
    let database =
        TestDatabase::new(&[("declared", DECLARED), ("plain", "SELECT @b AS b, @a AS a")]);
    let described = database.backend.describe("t.*").await.unwrap();
    let of = |at: usize| described[at].parameters.as_ref().unwrap();
    let kinds: Vec<_> =
        of(0).iter().map(|one| (one.name.as_str(), one.kind, one.length_max)).collect();
    assert_eq!(
        kinds,
        [
            ("code", Some(ParameterType::String), Some(4)),
            ("a", Some(ParameterType::Int32), None),
            ("b", Some(ParameterType::String), Some(20)),
            ("c", Some(ParameterType::Int32), None),
            ("found", Some(ParameterType::Boolean), None),
        ]
    );
    assert!(of(0)[4].is_output);
    let defaults: Vec<_> = of(0).iter().map(|one| one.has_default).collect();
    assert_eq!(defaults, [Some(false), Some(true), Some(true), Some(true), Some(false)]);
    assert_eq!(of(1)[0].has_default, None);
    let names: Vec<_> = of(1).iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[tokio::test]
async fn text_that_is_longer_than_its_column_is_a_bad_value() {
    let database = TestDatabase::with_connections(
        &[
            ("adds", "INSERT INTO [odd \"table] ([the code], note) VALUES (@code, @note)"),
            ("changes", "UPDATE [odd \"table] SET note = @note"),
            ("count", "SELECT count(*) FROM [odd \"table]"),
        ],
        1,
    );
    let given = |name, value: Option<&str>| {
        let value = value.map_or(ParameterValue::Null, text_value);
        argument(name, ParameterType::String, value)
    };
    let class = ServerErrorClass::BadValue;
    let too_long = SentErrorKind::Server { number: 2628, class };
    for (code, note, fits) in [
        (Some("KWPN"), Some("ab"), true),
        (Some("KWPN2"), Some("ab"), false),
        (Some("KWPN   "), None, true),
        (None, Some("abc"), false),
        (None, Some("𝄞"), true),
        (None, Some("𝄞a"), false),
    ] {
        let (result, _) = database.call("adds", &[given("code", code), given("note", note)]).await;
        match result {
            Ok(_) => assert!(fits, "{code:?} {note:?}"),
            Err(error) => {
                assert_eq!(sent(error).kind, too_long);
                assert!(!fits, "{code:?} {note:?}");
            }
        }
    }
    assert_eq!(database.rows("count", &[]).await, [[OwnedCell::Int(3)]]);
    let (result, _) = database.call("changes", &[given("note", Some("abc"))]).await;
    assert_eq!(sent(result.unwrap_err()).kind, too_long);
    // The next call on the connection does not fail.
    database.rows("changes", &[given("note", Some("b"))]).await;
}
