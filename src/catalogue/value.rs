//! The value of a parameter after validation.

use std::borrow::Cow;

use bytes::Bytes;

/// A valid value of a parameter. Its text is borrowed from the request where possible. `ParameterValue<'static>` owns
/// its text.
///
/// Only a `number` is converted to a double. Integers and decimals keep every digit.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue<'a> {
    /// JSON `null`, which is passed as SQL NULL. An absent parameter has no `ParameterValue` at all.
    Null,
    /// A boolean.
    Boolean(bool),
    /// An `int32` or `int64`.
    Integer(i64),
    /// A `number`, which is always finite.
    Number(f64),
    /// A `decimal`: a JSON number without an exponent, with every digit.
    Decimal(Cow<'a, str>),
    /// A `string`, `uuid`, `date`, `time` or `datetime` in its canonical form.
    Text(Cow<'a, str>),
    /// The decoded bytes of a `binary`.
    Binary(Bytes),
    /// The unchanged JSON text of a `json`.
    Json(Cow<'a, str>),
    /// The rows of a `table`. Each row has a value for every declared column. The value of an absent column is its
    /// default or `Null`.
    Table(Vec<Vec<ParameterValue<'a>>>),
}

impl ParameterValue<'_> {
    /// Returns the same value without borrowed text.
    #[must_use]
    pub fn into_owned(self) -> ParameterValue<'static> {
        use ParameterValue as V;
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            V::Null => V::Null,
            V::Boolean(value) => V::Boolean(value),
            V::Integer(value) => V::Integer(value),
            V::Number(value) => V::Number(value),
            V::Decimal(text) => V::Decimal(own(text)),
            V::Text(text) => V::Text(own(text)),
            V::Binary(bytes) => V::Binary(bytes),
            V::Json(text) => V::Json(own(text)),
            V::Table(rows) => V::Table(
                rows.into_iter()
                    .map(|row| row.into_iter().map(ParameterValue::into_owned).collect())
                    .collect(),
            ),
        }
    }
}

/// The result of reading one parameter of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReceivedValue<'a> {
    /// No value.
    #[default]
    Absent,
    /// An invalid value, whose violation has been recorded.
    Invalid,
    /// A valid value.
    Valid(ParameterValue<'a>),
}

impl<'a> From<Option<ParameterValue<'a>>> for ReceivedValue<'a> {
    fn from(validated: Option<ParameterValue<'a>>) -> Self {
        validated.map_or(Self::Invalid, Self::Valid)
    }
}
