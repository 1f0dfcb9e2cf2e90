//! The keys of an endpoint that describe its responses.

use schemars::JsonSchema;

/// How answers to GET and HEAD can be reused.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cache")]
pub struct CacheDefinition {
    /// Whether a successful answer has an `ETag`, computed from its content, so that a client can ask with `If-None-Match` whether the content has changed. Such an answer is not streamed.
    pub etag: bool,
}
