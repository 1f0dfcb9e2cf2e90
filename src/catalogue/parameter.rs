//! What a caller sends: where it stands, its type and its constraints.

use std::sync::Arc;

use regex::Regex;

use super::value::Value;

/// One parameter of an endpoint, checked.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name towards the caller, and in the message to the worker.
    pub name: Arc<str>,
    /// The procedure's parameter, without `@`; by default the same name.
    pub argument: Arc<str>,
    /// Where it stands in the request.
    pub place: Place,
    /// Its type.
    pub kind: ParameterType,
    /// Whether it must be there.
    pub required: bool,
    /// What it is when absent. Already checked against type and constraints.
    pub default: Option<Value>,
    /// What a value must keep to.
    pub constraints: Constraints,
    /// One sentence about it.
    pub description: Option<String>,
    /// The columns of a `table`, in order; empty for every other type.
    pub columns: Vec<Parameter>,
    /// The database's table type of a `table` parameter (`schema.type`), when the signature does not say.
    pub table_type: Option<Arc<str>>,
}

/// Where a parameter stands in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A segment of the path.
    Path,
    /// A query parameter.
    Query,
    /// A header.
    Header,
    /// A member of the JSON body.
    Body,
    /// A claim of the caller's token.
    Claim,
    /// Something that the gateway knows: `request_id`, `idempotency_key`, `principal`, `client_ip`.
    Context,
    /// A column of a `table` parameter.
    Column,
}

impl Place {
    /// The word in the catalogue and in a violation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Body => "body",
            Self::Claim => "claim",
            Self::Context => "context",
            Self::Column => "column",
        }
    }
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterType {
    /// Text.
    String,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer.
    Int64,
    /// A double.
    Number,
    /// An exact decimal; never through a double.
    Decimal,
    /// True or false.
    Boolean,
    /// A UUID, lower-cased.
    Uuid,
    /// `YYYY-MM-DD`.
    Date,
    /// `HH:MM:SS[.fraction]`.
    Time,
    /// RFC 3339.
    Datetime,
    /// Bytes, base64 in JSON.
    Binary,
    /// Any JSON, passed as text.
    Json,
    /// An array of objects, passed as a table.
    Table,
}

impl ParameterType {
    /// The catalogue's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Number => "number",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "time",
            Self::Datetime => "datetime",
            Self::Binary => "binary",
            Self::Json => "json",
            Self::Table => "table",
        }
    }
}

/// What a value must keep to (JSON Schema's words).
#[derive(Clone, Debug, Default)]
pub struct Constraints {
    /// The only values allowed.
    pub allowed: Option<Vec<Value>>,
    /// A regular expression that text must match.
    pub pattern: Option<Regex>,
    /// Smallest number.
    pub minimum: Option<Bound>,
    /// Largest number.
    pub maximum: Option<Bound>,
    /// Fewest characters (or bytes of `binary`).
    pub length_min: Option<usize>,
    /// Most characters (or bytes of `binary`).
    pub length_max: Option<usize>,
    /// Most rows of a `table`, or items of a JSON array.
    pub items_max: Option<usize>,
}

/// A bound of a number, kept as it was written so that no digit is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound(pub Arc<str>);
