//! Converts the columns of a row, and OUTPUT parameters, to cells.

use std::ops::Range;

use smallvec::SmallVec;
use tiberius::{Column, ColumnData, ColumnType, Row};
use uuid::Uuid;

use super::{SqlType, date_time, decimal};
use crate::procedures::mssql::tds::{Utf8Column, may_be_utf8};
use crate::procedures::{Cell, OwnedCell, SentError, SentErrorKind};

/// The limit below which `money` is read exactly, 2^39. The driver reads `money` as a double, and
/// from this limit on, doubles are further apart than the fourth decimal place.
const MONEY_EXACT_LIMIT: f64 = 549_755_813_888.0;
/// The limit of `money`, 2^63 / 10^4.
const MONEY_LIMIT: f64 = 922_337_203_685_477.6;

/// The number of cells in a row up to which no memory is allocated for them.
const CELLS_ON_STACK: usize = 16;

/// Decodes rows to cells. Values that need formatting are written to one text buffer, whose memory
/// is reused for each row.
#[derive(Debug, Default)]
pub(crate) struct RowDecoder {
    text: String,
    written: Vec<(usize, WrittenText)>,
    /// The columns of the current result set that the driver decodes in the wrong code page.
    utf8_columns: Vec<Utf8Column>,
}

/// The kind of a value that was written as text, and its range in the buffer.
#[derive(Debug)]
enum WrittenText {
    /// The text of a number.
    Number(Range<usize>),
    /// Other text.
    Text(Range<usize>),
}

impl RowDecoder {
    /// Begins a result set, of which these columns are in UTF-8.
    pub(crate) fn begin_set(&mut self, utf8_columns: Vec<Utf8Column>) {
        self.utf8_columns = utf8_columns;
    }

    /// Decodes a row and passes its cells to `take`.
    pub(crate) fn decode<E: From<SentError>>(
        &mut self,
        row: &Row,
        take: impl FnOnce(&[Cell<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.text.clear();
        self.written.clear();
        // `SmallVec::with_capacity` would copy the whole inline buffer.
        let mut cells: SmallVec<[Cell<'_>; CELLS_ON_STACK]> = SmallVec::new();
        cells.reserve_exact(row.len());
        for (column, value) in row.cells() {
            let cell = match integer_or_bit(value) {
                Some(cell) => cell,
                None => self.cell(column, value, cells.len())?,
            };
            cells.push(cell);
        }
        for (index, written) in &self.written {
            if let Some(cell) = cells.get_mut(*index) {
                *cell = written.cell(&self.text);
            }
        }
        take(&cells)
    }

    /// Converts a value that is neither an integer nor a bit. If the value needs formatting, its cell is set after the rest
    /// of the row, when the text buffer is complete.
    fn cell<'a>(
        &mut self,
        column: &Column,
        value: &'a ColumnData<'_>,
        index: usize,
    ) -> Result<Cell<'a>, SentError> {
        let kind = column.column_type();
        let is_money = matches!(kind, ColumnType::Money | ColumnType::Money4);
        match kind {
            ColumnType::Udt if !is_null(value) => return Err(clr_value(column.name())),
            ColumnType::SSVariant if may_be_inexact_money(value) => {
                return Err(undecodable(column.name()));
            }
            ColumnType::SSVariant if is_ambiguous_text(value) => {
                return Err(undecodable_utf8(column.name()));
            }
            _ => {}
        }
        let written = if let Some(text) = self.utf8_text(column, value, index)? {
            let start = self.text.len();
            self.text.push_str(&text);
            WrittenText::Text(start..self.text.len())
        } else if let Some(cell) = as_is(value, is_money) {
            // Most values need no formatting.
            return Ok(cell);
        } else {
            write(value, &mut self.text).ok_or_else(|| undecodable(column.name()))?
        };
        self.written.push((index, written));
        Ok(Cell::Null)
    }

    /// Returns the text of a column in UTF-8 if the driver has decoded it in the wrong code page.
    fn utf8_text(
        &self,
        column: &Column,
        value: &ColumnData<'_>,
        index: usize,
    ) -> Result<Option<String>, SentError> {
        let ColumnData::String(Some(text)) = value else { return Ok(None) };
        if text.is_ascii() {
            return Ok(None);
        }
        let utf8 = self.utf8_columns.binary_search_by_key(&index, |one| one.column);
        let Some(utf8) = utf8.ok().and_then(|at| self.utf8_columns.get(at)) else {
            return Ok(None);
        };
        utf8.restore(text).map(Some).ok_or_else(|| undecodable_utf8(column.name()))
    }
}

impl WrittenText {
    /// Returns the cell for this range.
    fn cell<'a>(&self, text: &'a str) -> Cell<'a> {
        match self {
            Self::Number(range) => Cell::Number(text.get(range.clone()).unwrap_or_default()),
            Self::Text(range) => Cell::Text(text.get(range.clone()).unwrap_or_default()),
        }
    }
}

/// Converts the value of an OUTPUT parameter.
pub(crate) fn owned(
    name: &str,
    value: &ColumnData<'_>,
    sql: Option<&SqlType>,
) -> Result<OwnedCell, SentError> {
    let is_money = matches!(sql, Some(SqlType::Money | SqlType::SmallMoney));
    match (sql, value) {
        (Some(SqlType::Json | SqlType::Vector(_)), ColumnData::String(Some(text))) => {
            return match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Ok(OwnedCell::Json(text.to_string())),
                Err(_) => Err(undecodable(name)),
            };
        }
        (Some(SqlType::Other(_)), value) if !is_null(value) => return Err(clr_value(name)),
        (Some(SqlType::Variant), value) if may_be_inexact_money(value) => {
            return Err(undecodable(name));
        }
        _ => {}
    }
    let mut text = String::new();
    let cell = match as_is(value, is_money) {
        Some(cell) => cell,
        None => write(value, &mut text).ok_or_else(|| undecodable(name))?.cell(&text),
    };
    Ok(match cell {
        Cell::Null => OwnedCell::Null,
        Cell::Bool(bit) => OwnedCell::Bool(bit),
        Cell::Int(number) => OwnedCell::Int(number),
        Cell::Float(number) => OwnedCell::Float(number),
        Cell::Number(text) => OwnedCell::Number(text.to_owned()),
        Cell::Json(text) => OwnedCell::Json(text.to_owned()),
        Cell::Text(text) => OwnedCell::Text(text.to_owned()),
        Cell::Binary(bytes) => OwnedCell::Binary(bytes.to_owned()),
    })
}

fn place(name: &str) -> String {
    if name.is_empty() { "an unnamed column".to_owned() } else { format!("'{name}'") }
}

fn undecodable(name: &str) -> SentError {
    SentError::new(SentErrorKind::Undecodable(format!(
        "{} has a value that JSON cannot represent exactly",
        place(name)
    )))
}

/// Returns the error for text in UTF-8 that the driver has decoded in another code page.
fn undecodable_utf8(name: &str) -> SentError {
    SentError::new(SentErrorKind::Undecodable(format!(
        "{} has, or may have, text in a UTF-8 collation that the driver cannot decode: the procedure \
         can return CAST(… AS nvarchar)",
        place(name)
    )))
}

/// Returns the error for a value of a CLR type.
fn clr_value(name: &str) -> SentError {
    SentError::new(SentErrorKind::Undecodable(format!(
        "{} has a CLR type such as hierarchyid or geography, of which the driver reads only bytes: \
         the procedure can return its text with .ToString()",
        place(name)
    )))
}

fn is_null(value: &ColumnData<'_>) -> bool {
    matches!(value, ColumnData::Binary(None) | ColumnData::String(None))
}

/// Returns whether a double of a `sql_variant` may be a `money` value whose digits were lost. The
/// driver reads `money` and `float` in a `sql_variant` in the same way. Below the limit, the
/// shortest digits of the double are those of the `money` value.
fn may_be_inexact_money(value: &ColumnData<'_>) -> bool {
    matches!(value, ColumnData::F64(Some(number))
        if (MONEY_EXACT_LIMIT..=MONEY_LIMIT).contains(&number.abs()))
}

/// Returns whether the text of a `sql_variant` may be UTF-8 that the driver has decoded in another code page.
fn is_ambiguous_text(value: &ColumnData<'_>) -> bool {
    matches!(value, ColumnData::String(Some(text)) if !text.is_ascii() && may_be_utf8(text))
}

/// Formats a value that `as_is` does not return. Returns `None` if the value has no exact
/// representation.
fn write(value: &ColumnData<'_>, into: &mut String) -> Option<WrittenText> {
    let start = into.len();
    match value {
        // The only doubles here are `money` and values that are not finite.
        ColumnData::F64(Some(number)) => {
            decimal::write(scaled_money(*number)?, decimal::MONEY_SCALE, into);
            return Some(WrittenText::Number(start..into.len()));
        }
        ColumnData::F32(Some(number)) => {
            // The shortest digits for the single-precision number: 0.1, not 0.10000000149011612.
            into.push_str(&number.is_finite().then(|| number.to_string())?);
            return Some(WrittenText::Number(start..into.len()));
        }
        ColumnData::Numeric(Some(number)) => {
            decimal::write(number.value(), number.scale(), into);
            return Some(WrittenText::Number(start..into.len()));
        }
        ColumnData::Guid(Some(guid)) => {
            into.push_str(guid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        }
        ColumnData::DateTime(Some(at)) => date_time::write_datetime(*at, into)?,
        ColumnData::SmallDateTime(Some(at)) => date_time::write_smalldatetime(*at, into)?,
        ColumnData::Time(Some(time)) => date_time::write_time(*time, into)?,
        ColumnData::Date(Some(date)) => date_time::write_date(*date, into)?,
        ColumnData::DateTime2(Some(at)) => date_time::write_datetime2(*at, into)?,
        ColumnData::DateTimeOffset(Some(at)) => date_time::write_datetimeoffset(*at, into)?,
        _ => return None,
    }
    Some(WrittenText::Text(start..into.len()))
}

/// Returns the cell of a value that needs no formatting, or `None` if it needs formatting.
#[inline]
fn as_is<'a>(value: &'a ColumnData<'_>, is_money: bool) -> Option<Cell<'a>> {
    match value {
        ColumnData::F64(Some(number)) => {
            (!is_money && number.is_finite()).then_some(Cell::Float(*number))
        }
        ColumnData::String(Some(text)) => Some(Cell::Text(text)),
        ColumnData::Xml(Some(xml)) => Some(Cell::Text(xml.as_ref().as_ref())),
        ColumnData::Binary(Some(bytes)) => Some(Cell::Binary(bytes)),
        ColumnData::F32(Some(_))
        | ColumnData::Numeric(Some(_))
        | ColumnData::Guid(Some(_))
        | ColumnData::DateTime(Some(_))
        | ColumnData::SmallDateTime(Some(_))
        | ColumnData::Time(Some(_))
        | ColumnData::Date(Some(_))
        | ColumnData::DateTime2(Some(_))
        | ColumnData::DateTimeOffset(Some(_)) => None,
        // The rest are integers, bits, and the NULLs of all other types.
        _ => Some(integer_or_bit(value).unwrap_or(Cell::Null)),
    }
}

/// Returns the cell of an integer or a bit, or `None` for any other value.
#[inline]
fn integer_or_bit<'a>(value: &ColumnData<'_>) -> Option<Cell<'a>> {
    match value {
        ColumnData::U8(number) => Some(int(number.map(i64::from))),
        ColumnData::I16(number) => Some(int(number.map(i64::from))),
        ColumnData::I32(number) => Some(int(number.map(i64::from))),
        ColumnData::I64(number) => Some(int(*number)),
        ColumnData::Bit(bit) => Some(bit.map_or(Cell::Null, Cell::Bool)),
        _ => None,
    }
}

fn int<'a>(number: Option<i64>) -> Cell<'a> {
    number.map_or(Cell::Null, Cell::Int)
}

/// Converts the double that the driver computed for a `money` value back to the scaled integer.
#[expect(clippy::cast_possible_truncation, reason = "checked: a whole number below 2^53")]
fn scaled_money(number: f64) -> Option<i128> {
    // This comparison is also false for NaN.
    (number.abs() < MONEY_EXACT_LIMIT).then(|| (number * 1e4).round() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Option<String> {
        let mut text = String::new();
        write(&ColumnData::F64(Some(value)), &mut text).map(|_| text)
    }

    #[test]
    fn money_keeps_its_four_decimal_places_or_is_an_error() {
        for exact in [0_i64, 1, -1, 5_497_558_138_879_999, -123_456_789_012_345, 2_147_483_647] {
            #[expect(clippy::cast_precision_loss, reason = "as the driver does")]
            let driver = exact as f64 / 1e4;
            let mut text = String::new();
            decimal::write(i128::from(exact), 4, &mut text);
            assert_eq!(number(driver), Some(text));
        }
        assert_eq!(number(922_337_203_685_477.6), None);
    }

    #[test]
    fn an_output_of_json_is_nested_and_of_a_vector_an_array() {
        let value = |text: &str| ColumnData::String(Some(text.to_owned().into()));
        for (sql, text) in
            [(SqlType::Json, "{\"a\":[1]}"), (SqlType::Vector(None), "[1.0e+000,-2.5]")]
        {
            let cell = owned("x", &value(text), Some(&sql)).unwrap();
            assert_eq!(cell, OwnedCell::Json(text.to_owned()));
            assert_eq!(owned("x", &ColumnData::String(None), Some(&sql)).unwrap(), OwnedCell::Null);
        }
        let error = owned("x", &value("{"), Some(&SqlType::Json)).unwrap_err();
        assert!(matches!(error.kind, SentErrorKind::Undecodable(_)), "{error:?}");
    }

    /// The driver reads `money` in a `sql_variant` as a double, as it does with `float`.
    #[test]
    fn a_double_in_a_variant_is_exact_whatever_it_was_or_an_error() {
        for (number, is_exact) in [
            (0.1, true),
            (-123_456.789_1, true),
            (549_755_813_887.999_9, true),
            (549_755_813_888.000_1, false),
            (900_000_000_000.25, false),
            (922_337_203_685_477.6, false),
            (1e15, true),
            (-1.797e308, true),
        ] {
            let value = ColumnData::F64(Some(number));
            assert_eq!(may_be_inexact_money(&value), !is_exact, "{number}");
        }
    }

    /// Beyond the limit, two values that differ in the last place are the same double.
    #[test]
    fn money_is_exact_up_to_the_limit_and_not_beyond() {
        #[expect(clippy::cast_precision_loss, reason = "as the driver does")]
        let driver = |scaled: i64| scaled as f64 / 1e4;
        let limit = 5_497_558_138_879_999_i64;
        for scaled in (limit - 100_000..=limit).chain(-limit..=-limit + 100_000) {
            assert_eq!(scaled_money(driver(scaled)), Some(i128::from(scaled)));
        }
        let same =
            (limit..limit + 100).any(|one| driver(one).to_bits() == driver(one + 1).to_bits());
        assert!(same, "the limit can be raised");
        assert_eq!(scaled_money(driver(limit + 2)), None);
    }

    /// The driver decodes the text of a `sql_variant` in one code page, whatever its collation.
    #[test]
    fn text_in_a_variant_that_may_be_utf8_is_an_error() {
        let is_ambiguous =
            |text: &'static str| is_ambiguous_text(&ColumnData::String(Some(text.into())));
        assert!(is_ambiguous("Ã©") && is_ambiguous("â‚¬"));
        assert!(!is_ambiguous("é€") && !is_ambiguous("日本") && !is_ambiguous("ascii"));
    }

    #[test]
    fn a_single_is_formatted_with_its_shortest_digits() {
        let cell = owned("x", &ColumnData::F32(Some(0.1)), None).unwrap();
        assert_eq!(cell, OwnedCell::Number("0.1".to_owned()));
        let cell = owned("x", &ColumnData::F32(Some(f32::MAX)), None).unwrap();
        assert_eq!(cell, OwnedCell::Number("340282350000000000000000000000000000000".to_owned()));
    }
}
