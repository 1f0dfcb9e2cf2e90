//! The reasons why a value cannot be converted to a SQL type, in the caller's terms. A reason never
//! contains the value.

use super::SqlType;
use super::date_time::{self, ParsedDateTime};
use super::decimal::{self, NumberProblem};
use crate::catalogue::ParameterValue;

/// The last day of the types that have four digits for the year.
const LAST_DAY: &str = "9999-12-31";

/// The way to pass a value for which no SQL type can be passed, such as a CLR type.
pub(crate) const CONVERT_IN_PROCEDURE: &str =
    "the procedure can take text or binary data and convert it";

/// Returns the reason why `encode` refused a value.
pub(super) fn reason(value: &ParameterValue<'_>, sql: &SqlType) -> String {
    match sql {
        SqlType::Bit => "expected true, false, 0 or 1 for bit".to_owned(),
        SqlType::TinyInt => integer(value, sql, ["0", "255"]),
        SqlType::SmallInt => integer(value, sql, ["-32768", "32767"]),
        SqlType::Int => integer(value, sql, ["-2147483648", "2147483647"]),
        SqlType::BigInt => integer(value, sql, ["-9223372036854775808", "9223372036854775807"]),
        SqlType::Decimal { precision, scale, .. } => {
            let whole = precision.saturating_sub(*scale);
            let range = format!("at most {whole} digits before the decimal point");
            number(value, sql, (*precision, *scale), &range)
        }
        SqlType::Money => {
            let range = "-922337203685477.5808 to 922337203685477.5807";
            number(value, sql, (decimal::MONEY_DIGITS, decimal::MONEY_SCALE), range)
        }
        SqlType::SmallMoney => {
            let range = "-214748.3648 to 214748.3647";
            number(value, sql, (decimal::SMALLMONEY_DIGITS, decimal::MONEY_SCALE), range)
        }
        SqlType::Real => double(value, sql, "-3.40e38 to 3.40e38"),
        SqlType::Float => double(value, sql, "-1.79e308 to 1.79e308"),
        SqlType::Binary { length, .. } => match (value, length) {
            (ParameterValue::Binary(bytes), Some(_)) => {
                format!("longer than {sql}: {} bytes", bytes.len())
            }
            _ => format!("expected binary data for {sql}"),
        },
        SqlType::Guid => format!("expected a UUID for {sql}"),
        SqlType::Date | SqlType::Time(_) => time_or_date(value, sql),
        SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => moment(value, sql),
        SqlType::Text { .. } | SqlType::Xml => format!("expected text for {sql}"),
        SqlType::Json => format!("expected JSON for {sql}"),
        SqlType::Vector(_) => "expected an array of numbers for vector".to_owned(),
        SqlType::Variant => {
            "expected a boolean, a number, text or binary data for sql_variant".to_owned()
        }
        SqlType::Other(_) => format!("no value can be passed as {sql}: {CONVERT_IN_PROCEDURE}"),
    }
}

fn integer(value: &ParameterValue<'_>, sql: &SqlType, [first, last]: [&str; 2]) -> String {
    match decimal::digits(value).map(|(text, _)| decimal::problem(&text, 19, 0)) {
        None | Some(NumberProblem::NotANumber) => format!("expected an integer for {sql}"),
        Some(NumberProblem::ExcessDigits) => format!("{sql} cannot hold a fraction"),
        Some(NumberProblem::OutOfRange | NumberProblem::None) => {
            format!("outside {sql}: {first} to {last}")
        }
    }
}

fn number(
    value: &ParameterValue<'_>,
    sql: &SqlType,
    (precision, scale): (u8, u8),
    range: &str,
) -> String {
    match decimal::digits(value).map(|(text, _)| decimal::problem(&text, precision, scale)) {
        None | Some(NumberProblem::NotANumber) => format!("expected a number for {sql}"),
        Some(NumberProblem::ExcessDigits) => {
            format!("more than {scale} digits after the decimal point of {sql}")
        }
        Some(NumberProblem::OutOfRange | NumberProblem::None) => {
            format!("outside {sql}: {range}")
        }
    }
}

fn double(value: &ParameterValue<'_>, sql: &SqlType, range: &str) -> String {
    let is_number = match value {
        ParameterValue::Number(_) => true,
        _ => decimal::digits(value).is_some_and(|(text, _)| decimal::is_number(&text)),
    };
    if is_number {
        format!("outside {sql}: {range}")
    } else {
        format!("expected a number for {sql}")
    }
}

fn text<'a>(value: &'a ParameterValue<'_>) -> Option<&'a str> {
    match value {
        ParameterValue::Text(text) => Some(text),
        _ => None,
    }
}

fn time_or_date(value: &ParameterValue<'_>, sql: &SqlType) -> String {
    if *sql == SqlType::Date {
        if text(value).is_some_and(date_time::is_date) {
            return format!("outside {sql}: 0001-01-01 to {LAST_DAY}");
        }
        return "expected YYYY-MM-DD for date".to_owned();
    }
    if text(value).is_some_and(date_time::is_leap_second) {
        return format!("{sql} cannot hold a leap second");
    }
    format!("expected HH:MM:SS for {sql}")
}

fn moment(value: &ParameterValue<'_>, sql: &SqlType) -> String {
    let Some(text) = text(value) else { return format!("expected a date and time for {sql}") };
    if date_time::is_leap_second(text) {
        return format!("{sql} cannot hold a leap second");
    }
    let (first, last) = match sql {
        SqlType::DateTime => ("1753-01-01", "9999-12-31T23:59:59.997"),
        SqlType::SmallDateTime => ("1900-01-01", "2079-06-06T23:59"),
        _ => ("0001-01-01", LAST_DAY),
    };
    match ParsedDateTime::parse(text) {
        Some(at) if matches!(sql, SqlType::DateTimeOffset(_)) && !at.has_possible_offset() => {
            format!("outside -14:00 to +14:00, the offsets of {sql}")
        }
        Some(at) if date_time::date(first).is_some_and(|first| at.is_before(first)) => {
            format!("before {first}, the first day of {sql}")
        }
        // The date of a `datetimeoffset` is in its own offset.
        Some(_) if text.starts_with("0000") => format!("before {first}, the first day of {sql}"),
        Some(_) => format!("after {last}, the end of {sql}"),
        None if date_time::is_moment(text) => format!("outside {sql}: {first} to {last} in UTC"),
        None => format!("expected a date and time as in RFC 3339 for {sql}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::{EncodeError, encode};
    use super::*;
    use crate::procedures::mssql::types::CodePage;

    fn text_value(text: &str) -> ParameterValue<'static> {
        ParameterValue::Text(text.to_owned().into())
    }

    #[track_caller]
    fn check(table: Vec<(ParameterValue<'static>, SqlType, &str)>) {
        for (value, sql, expected) in table {
            let error = encode(&value, &sql).unwrap_err();
            assert_eq!(error, EncodeError(expected.to_owned()), "{sql}");
        }
    }

    #[test]
    fn a_number_is_refused_with_the_limits_of_its_type() {
        let decimal = |precision, scale| SqlType::Decimal { name: "decimal", precision, scale };
        let digits = |text: &str| ParameterValue::Decimal(text.to_owned().into());
        check(vec![
            (text_value("twelve"), SqlType::Int, "expected an integer for int"),
            (digits("1.5"), SqlType::Int, "int cannot hold a fraction"),
            (ParameterValue::Integer(256), SqlType::TinyInt, "outside tinyint: 0 to 255"),
            (ParameterValue::Integer(-1), SqlType::TinyInt, "outside tinyint: 0 to 255"),
            (text_value("1e99"), SqlType::Int, "outside int: -2147483648 to 2147483647"),
            (ParameterValue::Integer(2), SqlType::Bit, "expected true, false, 0 or 1 for bit"),
            (
                digits("1.005"),
                decimal(9, 2),
                "more than 2 digits after the decimal point of decimal(9, 2)",
            ),
            (
                digits("10000000"),
                decimal(9, 2),
                "outside decimal(9, 2): at most 7 digits before the decimal point",
            ),
            (text_value("nan"), decimal(9, 2), "expected a number for decimal(9, 2)"),
            (
                digits("214748.3648"),
                SqlType::SmallMoney,
                "outside smallmoney: -214748.3648 to 214748.3647",
            ),
            (
                digits("1.00001"),
                SqlType::Money,
                "more than 4 digits after the decimal point of money",
            ),
            (ParameterValue::Number(1e39), SqlType::Real, "outside real: -3.40e38 to 3.40e38"),
            (text_value("x"), SqlType::Float, "expected a number for float"),
        ]);
    }

    /// Its moment is within the range, and only its date in its own offset is not.
    #[test]
    fn a_date_before_the_first_one_in_its_offset_is_named_as_such() {
        check(vec![(
            text_value("0000-12-31T10:00:00-14:00"),
            SqlType::DateTimeOffset(7),
            "before 0001-01-01, the first day of datetimeoffset",
        )]);
    }

    #[test]
    fn another_value_is_refused_with_what_was_expected() {
        let binary = SqlType::Binary { name: "binary", length: Some(1) };
        let code_page = CodePage::UNKNOWN;
        let varchar = SqlType::Text { name: "varchar", length: Some(2), code_page };
        check(vec![
            (
                text_value("1752-12-31T00:00:00Z"),
                SqlType::DateTime,
                "before 1753-01-01, the first day of datetime",
            ),
            (
                text_value("9999-12-31T23:59:59.999Z"),
                SqlType::DateTime,
                "after 9999-12-31T23:59:59.997, the end of datetime",
            ),
            (
                text_value("1899-12-31T00:00:00Z"),
                SqlType::SmallDateTime,
                "before 1900-01-01, the first day of smalldatetime",
            ),
            (
                text_value("2079-06-06T23:59:30Z"),
                SqlType::SmallDateTime,
                "after 2079-06-06T23:59, the end of smalldatetime",
            ),
            (
                text_value("9999-12-31T23:59:59.99Z"),
                SqlType::DateTime2(0),
                "after 9999-12-31, the end of datetime2(0)",
            ),
            (
                text_value("0001-01-01T00:00:00+01:00"),
                SqlType::DateTime2(7),
                "outside datetime2: 0001-01-01 to 9999-12-31 in UTC",
            ),
            (
                text_value("2024-01-01T00:00:00+15:00"),
                SqlType::DateTimeOffset(7),
                "outside -14:00 to +14:00, the offsets of datetimeoffset",
            ),
            (
                text_value("2024-12-31T23:59:60Z"),
                SqlType::DateTime2(7),
                "datetime2 cannot hold a leap second",
            ),
            (
                text_value("soon"),
                SqlType::DateTime2(7),
                "expected a date and time as in RFC 3339 for datetime2",
            ),
            (text_value("2024-02-30"), SqlType::Date, "expected YYYY-MM-DD for date"),
            (text_value("25:00:00"), SqlType::Time(7), "expected HH:MM:SS for time"),
            (text_value("not a guid"), SqlType::Guid, "expected a UUID for uniqueidentifier"),
            (ParameterValue::Binary(vec![1, 2].into()), binary, "longer than binary(1): 2 bytes"),
            (ParameterValue::Binary(vec![1].into()), varchar, "expected text for varchar(2)"),
            (text_value("{"), SqlType::Json, "expected JSON for json"),
            (
                text_value("[1, \"a\"]"),
                SqlType::Vector(None),
                "expected an array of numbers for vector",
            ),
            (
                text_value("x"),
                SqlType::Other("geography".into()),
                "no value can be passed as geography: the procedure can take text or binary data and \
                 convert it",
            ),
        ]);
    }
}
