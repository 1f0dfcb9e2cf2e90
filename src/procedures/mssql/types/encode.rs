//! Converts a validated JSON value to the SQL type that the procedure declares.

use std::borrow::Cow;

use tiberius::ColumnData;
use tiberius::xml::XmlData;
use uuid::Uuid;

use super::SqlType;
use super::code_page::{CodePage, Unmappable};
use super::date_time::{self, ParsedDateTime};
use super::decimal::{self, ExcessDigits};
use super::reason::reason;
use super::vector;
use crate::catalogue::ParameterValue;

/// The reason why a value cannot be converted, or the expected form, for the caller. It never
/// contains the value, except for a character that cannot be represented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodeError(pub(crate) String);

/// The longest text, in bytes of UTF-8, that the driver passes as `nvarchar(4000)`. It passes
/// longer text as `nvarchar(max)`, which cannot be converted to a `sql_variant`.
const VARIANT_TEXT_BYTES_MAX: usize = 4000;
/// The most digits after the decimal point that the driver can pass with a `sql_variant`.
const VARIANT_SCALE_MAX: usize = 37;
/// The longest binary value of a `sql_variant`, in bytes.
const VARIANT_BYTES_MAX: usize = 8000;

/// Encodes a value as the declared type.
pub(crate) fn encode<'a>(
    value: &'a ParameterValue<'_>,
    sql: &SqlType,
) -> Result<ColumnData<'a>, EncodeError> {
    let encoded = match sql {
        _ if *value == ParameterValue::Null => Some(null(sql)),
        SqlType::Bit => boolean(value).map(|bit| ColumnData::Bit(Some(bit))),
        SqlType::TinyInt => integer(value).map(|n| ColumnData::U8(Some(n))),
        SqlType::SmallInt => integer(value).map(|n| ColumnData::I16(Some(n))),
        SqlType::Int => integer(value).map(|n| ColumnData::I32(Some(n))),
        SqlType::BigInt => integer(value).map(|n| ColumnData::I64(Some(n))),
        SqlType::Decimal { precision, scale, .. } => decimal::encode(value, *precision, *scale),
        SqlType::Money => decimal::encode_money(value),
        SqlType::SmallMoney => decimal::encode_smallmoney(value),
        SqlType::Real => real(value).map(|n| ColumnData::F32(Some(n))),
        SqlType::Float => double(value).map(|n| ColumnData::F64(Some(n))),
        SqlType::Text { length, code_page, .. } => match text(value) {
            Some(text) => {
                check_text(&text, sql, *length, *code_page)?;
                Some(ColumnData::String(Some(text)))
            }
            None => None,
        },
        SqlType::Binary { length, .. } => match value {
            ParameterValue::Binary(bytes) if length.is_none_or(|most| bytes.len() <= most) => {
                Some(ColumnData::Binary(Some(Cow::Borrowed(bytes))))
            }
            _ => None,
        },
        SqlType::Guid => plain(value)
            .and_then(|text| Uuid::parse_str(text).ok())
            .map(|guid| ColumnData::Guid(Some(guid))),
        // The driver writes an empty chunk for an empty `xml`. This chunk ends the value too early.
        // Therefore, the value is passed as text, and the server converts it.
        SqlType::Xml => plain(value).map(|text| match text {
            "" => ColumnData::String(Some(Cow::Borrowed(""))),
            text => ColumnData::Xml(Some(Cow::Owned(XmlData::new(text)))),
        }),
        SqlType::Json => json(value).map(|text| ColumnData::String(Some(text))),
        SqlType::Vector(size) => vector::encode(value, *size).map_err(EncodeError)?,
        SqlType::Variant => variant(value)?,
        SqlType::Other(_) => None,
        _ => plain(value).and_then(|text| moment(text, sql)),
    };
    encoded.ok_or_else(|| EncodeError(reason(value, sql)))
}

/// Returns the NULL value of a type.
pub(crate) fn null(sql: &SqlType) -> ColumnData<'static> {
    match sql {
        SqlType::Bit => ColumnData::Bit(None),
        SqlType::TinyInt => ColumnData::U8(None),
        SqlType::SmallInt => ColumnData::I16(None),
        SqlType::Int => ColumnData::I32(None),
        SqlType::BigInt => ColumnData::I64(None),
        SqlType::Decimal { .. } | SqlType::Money | SqlType::SmallMoney => ColumnData::Numeric(None),
        SqlType::Real => ColumnData::F32(None),
        SqlType::Float => ColumnData::F64(None),
        SqlType::Text { .. }
        | SqlType::Json
        | SqlType::Vector(_)
        | SqlType::Variant
        | SqlType::Other(_) => ColumnData::String(None),
        SqlType::Binary { .. } => ColumnData::Binary(None),
        SqlType::Date => ColumnData::Date(None),
        SqlType::Time(_) => ColumnData::Time(None),
        SqlType::DateTime => ColumnData::DateTime(None),
        SqlType::SmallDateTime => ColumnData::SmallDateTime(None),
        SqlType::DateTime2(_) => ColumnData::DateTime2(None),
        SqlType::DateTimeOffset(_) => ColumnData::DateTimeOffset(None),
        SqlType::Guid => ColumnData::Guid(None),
        SqlType::Xml => ColumnData::Xml(None),
    }
}

/// Returns whether the driver sends a typed NULL for this type, and declares values at full size.
/// For other types, it sends an untyped NULL, and declares a type only as wide as the value.
pub(crate) fn has_typed_null(sql: &SqlType) -> bool {
    matches!(
        sql,
        SqlType::Bit
            | SqlType::TinyInt
            | SqlType::SmallInt
            | SqlType::Int
            | SqlType::BigInt
            | SqlType::Real
            | SqlType::Float
            | SqlType::Guid
    )
}

/// Converts a value to the form in which the driver can send it as a parameter. Cells of a table
/// have their own form.
pub(crate) fn as_parameter(value: ColumnData<'_>) -> ColumnData<'_> {
    match value {
        ColumnData::Numeric(Some(number)) => decimal::as_parameter(number),
        value => value,
    }
}

fn plain<'a>(value: &'a ParameterValue<'_>) -> Option<&'a str> {
    match value {
        ParameterValue::Text(text) | ParameterValue::Json(text) => Some(text),
        _ => None,
    }
}

/// Returns the JSON text of a value. If the value is text, the text must be JSON.
fn json<'a>(value: &'a ParameterValue<'_>) -> Option<Cow<'a, str>> {
    match value {
        ParameterValue::Text(text) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
            Some(Cow::Borrowed(text))
        }
        value => text(value),
    }
}

fn boolean(value: &ParameterValue<'_>) -> Option<bool> {
    match value {
        ParameterValue::Boolean(bit) => Some(*bit),
        ParameterValue::Integer(0) => Some(false),
        ParameterValue::Integer(1) => Some(true),
        _ => match plain(value)? {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
    }
}

/// Converts a number to an integer. Returns `None` if it is out of range or has a nonzero fraction.
fn integer<N: TryFrom<i128>>(value: &ParameterValue<'_>) -> Option<N> {
    let number = match value {
        ParameterValue::Integer(number) => i128::from(*number),
        _ => decimal::parse(&decimal::digits(value)?.0, 20, 0, ExcessDigits::Refuse)?,
    };
    N::try_from(number).ok()
}

fn double(value: &ParameterValue<'_>) -> Option<f64> {
    let number = match value {
        ParameterValue::Number(number) => *number,
        _ => decimal::digits(value)?.0.parse().ok()?,
    };
    number.is_finite().then_some(number)
}

fn real(value: &ParameterValue<'_>) -> Option<f32> {
    // The text is parsed directly to single precision, because rounding to a double first can give
    // a different result.
    let number: f32 = match value {
        ParameterValue::Number(number) => number.to_string().parse().ok()?,
        _ => decimal::digits(value)?.0.parse().ok()?,
    };
    number.is_finite().then_some(number)
}

fn text<'a>(value: &'a ParameterValue<'_>) -> Option<Cow<'a, str>> {
    match value {
        ParameterValue::Text(text) | ParameterValue::Json(text) | ParameterValue::Decimal(text) => {
            Some(Cow::Borrowed(text))
        }
        ParameterValue::Boolean(bit) => Some(Cow::Borrowed(if *bit { "true" } else { "false" })),
        ParameterValue::Integer(number) => Some(Cow::Owned(number.to_string())),
        ParameterValue::Number(number) => Some(Cow::Owned(number.to_string())),
        ParameterValue::Null | ParameterValue::Binary(_) | ParameterValue::Table(_) => None,
    }
}

/// Checks the length and the characters of text. SQL Server silently truncates an argument that is
/// too long, and replaces characters that are not in the code page.
fn check_text(
    text: &str,
    sql: &SqlType,
    length: Option<usize>,
    code_page: CodePage,
) -> Result<(), EncodeError> {
    // Text never has more byte pairs in UTF-16 than bytes in UTF-8.
    if code_page == CodePage::UTF_16 && length.is_none_or(|most| text.len() <= most) {
        return Ok(());
    }
    let page = code_page.number();
    let taken = code_page.length(text).map_err(|Unmappable(c)| {
        let code = u32::from(c);
        EncodeError(if code_page.is_known() {
            format!("U+{code:04X} cannot be represented in code page {page}")
        } else {
            format!(
                "U+{code:04X} may be lost in {sql}, whose code page is unknown: only ASCII is safe"
            )
        })
    })?;
    match length {
        Some(most) if taken > most && (code_page == CodePage::UTF_16 || text.is_ascii()) => {
            Err(EncodeError(format!("longer than {sql}")))
        }
        Some(most) if taken > most => {
            Err(EncodeError(format!("longer than {sql}: {taken} bytes in code page {page}")))
        }
        _ => Ok(()),
    }
}

fn moment<'a>(text: &str, sql: &SqlType) -> Option<ColumnData<'a>> {
    match sql {
        SqlType::Date => date_time::date(text).map(|date| ColumnData::Date(Some(date))),
        SqlType::Time(scale) => {
            date_time::time_of_day(text, *scale).map(|time| ColumnData::Time(Some(time)))
        }
        SqlType::DateTime => {
            ParsedDateTime::parse(text)?.datetime().map(|at| ColumnData::DateTime(Some(at)))
        }
        SqlType::SmallDateTime => ParsedDateTime::parse(text)?
            .smalldatetime()
            .map(|at| ColumnData::SmallDateTime(Some(at))),
        SqlType::DateTime2(scale) => {
            ParsedDateTime::parse(text)?.datetime2(*scale).map(|at| ColumnData::DateTime2(Some(at)))
        }
        SqlType::DateTimeOffset(scale) => ParsedDateTime::parse(text)?
            .datetimeoffset(*scale)
            .map(|at| ColumnData::DateTimeOffset(Some(at))),
        _ => None,
    }
}

/// Encodes a value for a `sql_variant`, as the SQL type closest to the JSON value.
fn variant<'a>(value: &'a ParameterValue<'_>) -> Result<Option<ColumnData<'a>>, EncodeError> {
    let fits = |bytes: usize, most: usize| {
        let longer =
            || EncodeError(format!("longer than a sql_variant: {bytes} bytes, at most {most}"));
        if bytes <= most { Ok(()) } else { Err(longer()) }
    };
    Ok(match value {
        ParameterValue::Boolean(bit) => Some(ColumnData::Bit(Some(*bit))),
        ParameterValue::Integer(number) => Some(ColumnData::I64(Some(*number))),
        ParameterValue::Number(number) => Some(ColumnData::F64(Some(*number))),
        ParameterValue::Decimal(text) => {
            let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            if scale > VARIANT_SCALE_MAX {
                let reason = format!(
                    "more than {VARIANT_SCALE_MAX} digits after the decimal point of sql_variant"
                );
                return Err(EncodeError(reason));
            }
            u8::try_from(scale).ok().and_then(|scale| decimal::encode(value, 38, scale))
        }
        ParameterValue::Text(text) | ParameterValue::Json(text) => {
            fits(text.len(), VARIANT_TEXT_BYTES_MAX)?;
            Some(ColumnData::String(Some(Cow::Borrowed(text))))
        }
        ParameterValue::Binary(bytes) => {
            fits(bytes.len(), VARIANT_BYTES_MAX)?;
            Some(ColumnData::Binary(Some(Cow::Borrowed(bytes))))
        }
        ParameterValue::Null | ParameterValue::Table(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use tiberius::numeric::Numeric;

    use super::*;

    fn text_value(text: &str) -> ParameterValue<'static> {
        ParameterValue::Text(text.to_owned().into())
    }

    /// The driver would end an empty `xml` value too early.
    #[test]
    fn an_empty_xml_is_passed_as_text() {
        let empty = text_value("");
        let encoded = encode(&empty, &SqlType::Xml).unwrap();
        assert_eq!(encoded, ColumnData::String(Some("".into())));
        let vector = ParameterValue::Json("[0.1, 2, 30]".into());
        let encoded = encode(&vector, &SqlType::Vector(None)).unwrap();
        assert_eq!(encoded, ColumnData::String(Some("[0.1, 2, 30]".into())));
    }

    fn varchar(length: usize, page: i64) -> SqlType {
        let code_page = CodePage::new(Some(page));
        SqlType::Text { name: "varchar", length: Some(length), code_page }
    }

    #[test]
    fn text_that_would_be_changed_is_refused() {
        let nvarchar = |length| {
            let code_page = CodePage::UTF_16;
            SqlType::Text { name: "nvarchar", length: Some(length), code_page }
        };
        // Each text fills the first type, and is a byte or byte pair too long for the second.
        let cases = [
            ("€€é", varchar(3, 1252), varchar(2, 1252), ": 3 bytes in code page 1252"),
            ("日本", varchar(4, 932), varchar(3, 932), ": 4 bytes in code page 932"),
            ("aｶ日", varchar(4, 932), varchar(3, 932), ": 4 bytes in code page 932"),
            ("日本", varchar(6, 65001), varchar(5, 65001), ": 6 bytes in code page 65001"),
            ("√Ω", varchar(2, 437), varchar(1, 437), ": 2 bytes in code page 437"),
            ("abc", varchar(3, 0), varchar(2, 0), ""),
            ("€€€", nvarchar(3), nvarchar(2), ""),
            ("𝄞𝄞", nvarchar(4), nvarchar(3), ""),
        ];
        for (text, fits, short, more) in cases {
            let value = text_value(text);
            let encoded = encode(&value, &fits).unwrap();
            assert_eq!(encoded, ColumnData::String(Some(text.into())), "{fits}");
            let expected = EncodeError(format!("longer than {short}{more}"));
            assert_eq!(encode(&value, &short).unwrap_err(), expected, "{text}");
        }
        let max = |page| SqlType::Text {
            name: "varchar",
            length: None,
            code_page: CodePage::new(Some(page)),
        };
        let refused = [
            ("日本", varchar(50, 1252), "U+65E5 cannot be represented in code page 1252"),
            ("aĀ", max(1252), "U+0100 cannot be represented in code page 1252"),
            ("𝄞", max(437), "U+1D11E cannot be represented in code page 437"),
            (
                "é",
                max(0),
                "U+00E9 may be lost in varchar(max), whose code page is unknown: only ASCII is safe",
            ),
        ];
        for (text, sql, expected) in refused {
            let error = encode(&text_value(text), &sql).unwrap_err();
            assert_eq!(error, EncodeError(expected.to_owned()), "{sql}");
        }
    }

    /// The driver counts bytes of UTF-8, so it passes less text than a `sql_variant` can hold.
    #[test]
    fn a_variant_accepts_what_the_driver_passes_with_a_length() {
        for (text, fits) in [("日".repeat(1333), true), ("日".repeat(1334), false)] {
            assert_eq!(
                encode(&text_value(&text), &SqlType::Variant).is_ok(),
                fits,
                "{}",
                text.len()
            );
        }
        let error = encode(&text_value(&"é".repeat(2001)), &SqlType::Variant).unwrap_err();
        assert_eq!(error.0, "longer than a sql_variant: 4002 bytes, at most 4000");
        let binary = |length| ParameterValue::Binary(vec![1; length].into());
        assert!(encode(&binary(8000), &SqlType::Variant).is_ok());
        assert!(encode(&binary(8001), &SqlType::Variant).is_err());
    }

    #[test]
    fn numbers_convert_without_loss() {
        let decimal = SqlType::Decimal { name: "decimal", precision: 38, scale: 4 };
        let encoded = encode(&ParameterValue::Integer(7), &decimal).unwrap();
        assert_eq!(encoded, ColumnData::Numeric(Some(Numeric::new_with_scale(70_000, 4))));
        let max = text_value("9223372036854775807");
        assert_eq!(encode(&max, &SqlType::BigInt).unwrap(), ColumnData::I64(Some(i64::MAX)));
        assert_eq!(
            encode(&ParameterValue::Number(0.1), &SqlType::Real).unwrap(),
            ColumnData::F32(Some(0.1))
        );
    }
}
