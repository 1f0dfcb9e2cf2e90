//! A parameter's value after validation.

use std::borrow::Cow;

use bytes::Bytes;

/// A valid value of a parameter. It borrows its text from the request where it can; `ParameterValue<'static>` owns it.
///
/// Numbers that a double cannot represent exactly are kept as text.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue<'a> {
    /// JSON `null`, which is SQL NULL. An absent parameter has no value at all.
    Null,
    /// A boolean.
    Boolean(bool),
    /// `int32` or `int64`.
    Integer(i64),
    /// `number`: finite.
    Number(f64),
    /// `decimal`: a JSON number without an exponent, with every digit.
    Decimal(Cow<'a, str>),
    /// `string`, `uuid`, `date`, `time`, `datetime`: text in its canonical form.
    Text(Cow<'a, str>),
    /// `binary`.
    Binary(Bytes),
    /// `json`: the JSON text that was sent.
    Json(Cow<'a, str>),
    /// `table`: rows with a value for each declared column; an absent one is `Null`.
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

/// What a request contains for one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReceivedValue<'a> {
    /// No value.
    #[default]
    Absent,
    /// An invalid value; its violation has been recorded.
    Invalid,
    /// A valid value.
    Valid(ParameterValue<'a>),
}

impl<'a> From<Option<ParameterValue<'a>>> for ReceivedValue<'a> {
    fn from(validated: Option<ParameterValue<'a>>) -> Self {
        validated.map_or(Self::Invalid, Self::Valid)
    }
}
