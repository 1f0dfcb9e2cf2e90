//! `returns` as catalogue files define it. It is read once the endpoint's result is known, because the shape of
//! `returns` depends on the result.

use schemars::JsonSchema;

use super::json::{ObjectOnly, OrderedMembers};
use crate::catalogue::parameter::ParameterType;

/// The columns of the answer, in the shape of the answer.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Returns", untagged)]
pub enum ReturnsDefinition {
    /// For the results `rows` and `row`, the columns by name; for `value` and `json`, the member `value`. For `row` and `value`, also the outputs.
    Columns(OrderedMembers<ObjectOnly<ReturnColumnDefinition>>),
    /// For the result `sets`, the columns of each result set.
    Sets(Vec<OrderedMembers<ObjectOnly<ReturnColumnDefinition>>>),
    /// For the result `full`, the result sets and the outputs.
    Full(FullReturnsDefinition),
}

/// The result sets and the outputs of a `full` answer.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "FullReturns", deny_unknown_fields)]
pub struct FullReturnsDefinition {
    /// The columns of each result set.
    pub sets: Option<Vec<OrderedMembers<ObjectOnly<ReturnColumnDefinition>>>>,
    /// The OUTPUT parameters by name.
    pub outputs: Option<OrderedMembers<ObjectOnly<ReturnColumnDefinition>>>,
}

/// A column of the answer, or an OUTPUT parameter.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ReturnColumn")]
pub struct ReturnColumnDefinition {
    /// The type, one of the types of parameters except `table`. `json` allows any JSON value.
    #[serde(rename = "type")]
    #[schemars(required)]
    pub kind: Option<ParameterType>,
    /// Whether the value can be `null`.
    pub nullable: bool,
    /// One sentence about the column.
    pub description: Option<String>,
    /// The JSON Schema of the value, only with the type `json`.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub schema: Option<serde_json::Value>,
}
