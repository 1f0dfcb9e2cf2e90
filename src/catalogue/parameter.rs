//! One parameter of an endpoint: its source, type and constraints.

use std::sync::Arc;

use schemars::JsonSchema;

use super::pattern::Pattern;
use super::value::ParameterValue;

/// One parameter of an endpoint, or a column of a `table` parameter, after validation.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name that callers use. The payload sent to the worker uses it too.
    pub name: Arc<str>,
    /// The name of the procedure's parameter without `@`. By default, it is the same as `name`.
    pub argument: Arc<str>,
    /// The source of the value.
    pub source: ParameterSource,
    /// Whether the value is set in the database's session context, under the name `argument`, and
    /// not passed to the procedure.
    pub session_context: bool,
    /// The type.
    pub kind: ParameterType,
    /// Whether the parameter must be present and not `null`.
    pub required: bool,
    /// The value used if the parameter is absent. It satisfies the type and the constraints.
    pub default: Option<ParameterValue<'static>>,
    /// The constraints that a value must satisfy.
    pub constraints: Constraints,
    /// One sentence for the generated documentation.
    pub description: Option<String>,
    /// The columns of a `table`, in order. Empty for every other type.
    pub columns: Vec<Parameter>,
    /// The SQL table type of a `table` parameter (`schema.type`), if the procedure's signature does not contain it.
    pub table_type: Option<Arc<str>>,
}

/// The source of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Source")]
pub enum ParameterSource {
    /// A segment of the path.
    Path,
    /// A query parameter.
    Query,
    /// A header. Its name is not case-sensitive.
    Header,
    /// A member of the JSON body.
    Body,
    /// A claim of the caller's token or API key.
    Claim,
    /// A value that the gateway supplies: `request_id`, `idempotency_key`, `principal` or `client_ip`.
    Context,
    /// A column of a `table` parameter.
    #[serde(skip)]
    Column,
}

impl ParameterSource {
    /// Returns the name in the catalogue and in violations.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Type")]
pub enum ParameterType {
    /// Text without U+0000.
    String,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer. No digit is lost.
    Int64,
    /// A double-precision floating-point number.
    Number,
    /// An exact number of at most 38 digits, which is never converted to a double.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// A UUID, which is passed in lower case.
    Uuid,
    /// `YYYY-MM-DD`.
    Date,
    /// `HH:MM:SS`, optionally with a fraction of up to nine digits.
    Time,
    /// A date and time with an offset (RFC 3339).
    Datetime,
    /// Bytes, encoded as base64.
    Binary,
    /// Any JSON value, which is passed as text.
    Json,
    /// An array of objects, which is passed as a table. Only in the body.
    Table,
}

impl ParameterType {
    /// Returns the name in the catalogue.
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

/// The constraints of a parameter's values.
#[derive(Clone, Debug, Default)]
pub struct Constraints {
    /// The only allowed values.
    pub allowed: Option<Vec<ParameterValue<'static>>>,
    /// A regular expression that text must match.
    pub pattern: Option<Pattern>,
    /// The smallest allowed number.
    pub minimum: Option<NumberBound>,
    /// The largest allowed number.
    pub maximum: Option<NumberBound>,
    /// The minimum number of characters, or of bytes for `binary`.
    pub length_min: Option<usize>,
    /// The maximum number of characters, or of bytes for `binary`.
    pub length_max: Option<usize>,
    /// The maximum number of rows in a `table`, or of items in a JSON array.
    pub items_max: Option<usize>,
}

/// A bound of a number, stored as text so that no digit is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberBound(pub Arc<str>);
