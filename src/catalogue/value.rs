//! A parameter's value after it was checked.

use std::sync::Arc;

/// A checked value. Numbers that a double cannot hold stay text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON `null`: SQL NULL. An absent parameter has no value at all.
    Null,
    /// A boolean.
    Boolean(bool),
    /// `int32` or `int64`.
    Integer(i64),
    /// `number`: finite.
    Number(f64),
    /// `decimal`, as a JSON number with every digit.
    Decimal(String),
    /// `string`, `uuid`, `date`, `time`, `datetime`: text in its canonical form.
    Text(String),
    /// `binary`.
    Binary(bytes::Bytes),
    /// `json`: the JSON text as it was sent.
    Json(String),
    /// `table`: rows with a value for each declared column; an absent one is `Null`.
    Table(Arc<[Vec<Value>]>),
}
