//! `examples` as catalogue files define them. They are read after the rest of the endpoint.

use schemars::JsonSchema;
use serde::Deserialize as _;
use serde::de::Deserializer;
use serde_json::value::RawValue;

use super::json::{ObjectOnly, OrderedMembers};

/// A request and the answer that it should get.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Example")]
pub struct ExampleDefinition {
    /// One sentence about the example.
    pub summary: Option<String>,
    /// The values of the parameters by name, whether they are sent in the path, the query, a header or the body. Parameters with `in: claim` or `in: context` are not included.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub parameters: OrderedMembers<Box<RawValue>>,
    /// Further request headers, such as `Prefer`, `Accept` and `Idempotency-Key`. Not for credentials.
    pub headers: OrderedMembers<String>,
    /// The caller of the procedure when `fjord test` runs without a gateway. A gateway determines the caller from the credentials.
    pub caller: ObjectOnly<ExampleCallerDefinition>,
    /// The expected answer. If it is missing, `fjord test --update` adds it.
    pub answer: Option<ObjectOnly<ExampleAnswerDefinition>>,
}

/// The caller of an example.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ExampleCaller")]
pub struct ExampleCallerDefinition {
    /// The name of the caller. Default: `example`, or none for a public endpoint.
    pub principal: Option<String>,
    /// The claims for parameters with `in: claim`, by their names.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub claims: OrderedMembers<Box<RawValue>>,
}

/// The expected answer of an example.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ExampleAnswer")]
pub struct ExampleAnswerDefinition {
    /// The HTTP status. Optional if the `problem` has only one status.
    pub status: Option<u16>,
    /// The last part of the problem's type, if the answer is a problem document: `invalid-request`, `no-row`, `refused`, `conflict`, `precondition-failed` or `not-acceptable`.
    pub problem: Option<String>,
    /// Response headers that the answer must have. A value can be a matcher.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub headers: OrderedMembers<Box<RawValue>>,
    /// The body. A matcher, such as `{"$any": "uuid"}`, matches any value of its type; the type `json` matches every value. `"nullable": true` also allows `null`. With `problem`, it contains only the members that must be present. An answer whose media type is not JSON is written as a string.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "serde_json::Value")]
    pub body: Option<Box<RawValue>>,
}

/// Reads a value. A value of `null` is different from an absent value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
