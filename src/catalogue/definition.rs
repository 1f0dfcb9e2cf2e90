//! Endpoints as catalogue files define them, before validation. The doc comments become the descriptions in the JSON
//! Schema. Editors show these descriptions.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::value::RawValue;

use super::auth::AuthMethod;
use super::endpoint::{Execution, OnDisconnect, ResultKind};
use super::parameter::{ParameterSource, ParameterType};
use crate::units::BYTES_EXPECTED;

pub mod example;
pub mod json;
pub(super) mod keys;
pub mod queues;
pub mod response;
pub mod returns;

use example::ExampleDefinition;
use json::{ObjectOnly, OrderedMembers};
use queues::QueueDefinition;
use response::{CacheDefinition, HeadersDefinition, ProducesDefinition};
use returns::ReturnsDefinition;

/// One REST operation and the stored procedure behind it.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Endpoint")]
pub struct EndpointDefinition {
    /// The method and the path, with parameters in braces: `GET /v1/horses/{ueln}`.
    #[schemars(required, with = "String", regex(pattern = r"^(GET|HEAD|POST|PUT|PATCH|DELETE) /"))]
    pub route: Option<String>,
    /// One sentence about the endpoint.
    pub summary: Option<String>,
    /// A longer description for the generated documentation, in Markdown.
    pub description: Option<String>,
    /// The groups in which the generated documentation lists the endpoint.
    pub tags: Vec<String>,
    /// Whether callers should stop using the endpoint. Its answers have the header `Deprecation`.
    pub deprecated: bool,
    /// The queue that serves the endpoint. Default: the endpoint's own id. Endpoints that share a queue share its workers.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"))]
    pub queue: Option<String>,
    /// Several queues, each with its weight, instead of `queue`. The requests are divided among them at random, in proportion to the weights. A queue can have its own `procedure`, for example to try a new version of the procedure. `fjord queue weight` changes the weights of running gateways.
    #[schemars(with = "OrderedMembers<QueueDefinition>", extend("minProperties" = 1, "maxProperties" = 16))]
    pub queues: Option<Box<RawValue>>,
    /// The name of the worker's handler. Default: `procedure`.
    pub handler: Option<String>,
    /// The stored procedure, `schema.name`. A part that contains characters other than letters, digits, `_`, `$`, `#` and `@` must be in brackets: `dbo.[Sales by Year]`. Required for the handler `procedure`, unless each queue in `queues` has its own.
    pub procedure: Option<String>,
    /// The parameters that a caller sends, by name.
    pub parameters: OrderedMembers<ObjectOnly<ParameterDefinition>>,
    /// The structure of the answer. Default: `rows`.
    pub result: Option<ResultKind>,
    /// The media types of a successful answer, from which the client chooses with `Accept`. The first one is the default. For `rows`: `application/json`, `text/csv`, `application/x-ndjson`. For a `value`: any single media type other than JSON. The bytes or text of the value are sent unchanged. Default: `application/json`.
    pub produces: Option<ProducesDefinition>,
    /// OUTPUT parameters of the procedure that are included in a `row`, `value` or `full` answer.
    pub outputs: Vec<String>,
    /// Response headers, each with the OUTPUT parameter of the procedure that contains its value. If the value is NULL, the header is omitted.
    pub headers: ObjectOnly<HeadersDefinition>,
    /// The columns of the answer with their types, in the shape of the answer. Used only for the generated documentation and for `fjord check --online`.
    #[schemars(with = "Option<ReturnsDefinition>")]
    pub returns: Option<Box<RawValue>>,
    /// Requests by name, each with the answer that it should get. `fjord test` runs them, and the generated documentation shows them.
    #[schemars(with = "OrderedMembers<ObjectOnly<ExampleDefinition>>")]
    pub examples: Option<Box<RawValue>>,
    /// HTTP statuses for the procedure's RETURN statuses and error numbers.
    pub status: ObjectOnly<StatusDefinition>,
    /// Whether a request may be executed a second time. Default: `at-most-once` for POST and PATCH, otherwise `at-least-once`.
    pub execution: Option<Execution>,
    /// Whether the worker calls the procedure in a transaction, which is rolled back as a whole when the call fails. Only with the handler `procedure`.
    pub transaction: bool,
    /// Whether a caller may ask for a dry run with `Prefer: tx=rollback`. The transaction is then rolled back, but the answer is the same as that of a real call. Only with `transaction`, and not with GET or HEAD.
    pub dry_run: bool,
    /// The maximum duration of an attempt, with its unit: `"2s"`. Default: the configuration's `catalogue.timeout_default`.
    pub timeout: Option<String>,
    /// The maximum time that a client waits while a worker reports progress, with its unit. Default: the endpoint's `timeout`.
    pub session: Option<String>,
    /// The maximum number of times that a request is sent if attempts remain unanswered: 1 to 20.
    #[schemars(range(min = 1, max = 20))]
    pub attempts: Option<u32>,
    /// Whether a running at-most-once call continues when its client disconnects. Default: `finish`.
    pub on_disconnect: Option<OnDisconnect>,
    /// The callers that the endpoint accepts. Default: the configuration's `catalogue.auth_default`. Required if that is not set.
    pub auth: Option<AuthDefinition>,
    /// The largest request body: a number of bytes, or a string with a unit: `"64KiB"`.
    pub max_body: Option<SizeDefinition>,
    /// The rate limit for each caller.
    pub rate_limit: Option<ObjectOnly<RateLimitDefinition>>,
    /// The maximum number of requests that each caller may have in flight at this endpoint, running or waiting: 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: Option<usize>,
    /// The rules for the reuse of answers to GET and HEAD.
    pub cache: Option<ObjectOnly<CacheDefinition>>,
    /// The `Cache-Control` of a successful answer to GET or HEAD. Default: `no-store`. With `cache.etag`, the default is `private, no-cache`, or `no-cache` for a public endpoint.
    pub cache_control: Option<String>,
    /// The web pages from other origins that may call the endpoint. Default: the configuration's `catalogue.cors_default`.
    pub cors: Option<ObjectOnly<CorsDefinition>>,
}

/// A parameter that a caller sends.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(rename = "Parameter")]
pub struct ParameterDefinition {
    /// The source of the value. Not permitted for columns.
    #[serde(rename = "in")]
    pub source: Option<ParameterSource>,
    /// The type. Optional with `in: context`, where it is always `string`.
    #[serde(rename = "type")]
    pub kind: Option<ParameterType>,
    /// The name of the procedure's parameter, or of the table type's column. Default: the name in the catalogue.
    #[serde(rename = "as")]
    pub argument: Option<String>,
    /// Whether the value is set in SQL Server's session context, where `SESSION_CONTEXT(N'name')` returns it as text, instead of being passed to the procedure. Only with `in: claim` or `in: context`.
    pub session_context: bool,
    /// One sentence about the parameter.
    pub description: Option<String>,
    /// Whether the parameter must be present. Always true for path parameters.
    pub required: Option<bool>,
    /// The value that is used if the parameter is absent. An absent parameter without a default is not passed to the procedure.
    #[schemars(with = "Option<serde_json::Value>")]
    pub default: Option<Box<RawValue>>,
    /// The only allowed values.
    #[serde(rename = "enum")]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    pub allowed: Option<Vec<Box<RawValue>>>,
    /// A regular expression that a `string` must match. It is not anchored. Write `^…$` to match the whole value.
    pub pattern: Option<String>,
    /// The smallest allowed number.
    #[schemars(with = "Option<serde_json::Number>")]
    pub minimum: Option<Box<RawValue>>,
    /// The largest allowed number.
    #[schemars(with = "Option<serde_json::Number>")]
    pub maximum: Option<Box<RawValue>>,
    /// The minimum number of characters in a `string`, or of bytes in a `binary`.
    pub min_length: Option<usize>,
    /// The maximum number of characters in a `string` or in the text of a `json`, or of bytes in a `binary`.
    pub max_length: Option<usize>,
    /// The maximum number of rows in a `table`, or of items in a `json` array.
    pub max_items: Option<usize>,
    /// The columns of a `table`, in the order of the table type.
    pub columns: Option<OrderedMembers<ObjectOnly<ParameterDefinition>>>,
    /// The table type of a `table`, `schema.name`, if the procedure's signature does not contain it.
    pub table_type: Option<String>,
}

/// The HTTP statuses for a procedure's RETURN statuses and errors.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Status")]
pub struct StatusDefinition {
    /// HTTP statuses by RETURN status.
    #[serde(rename = "return")]
    pub returns: OrderedMembers<u16>,
    /// HTTP statuses by error number.
    #[serde(rename = "error")]
    pub errors: OrderedMembers<u16>,
}

/// The number of requests that each caller may send in a time window.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub struct RateLimitDefinition {
    /// The number of requests allowed in a window.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The length of the window, with its unit: `"1m"`.
    pub window: String,
}

/// The web pages from other origins that may call an endpoint. These settings replace the default completely.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cors")]
pub struct CorsDefinition {
    /// The allowed origins, such as `https://app.example`. `["*"]` allows every origin, and an empty list allows none.
    #[schemars(required)]
    pub origins: Option<Vec<String>>,
    /// Headers that pages may send in addition to those that the endpoint uses.
    pub headers: Vec<String>,
    /// Headers that pages may read in addition to those that fjord sets.
    pub exposed_headers: Vec<String>,
    /// Whether the browser presents a client certificate. Not allowed with `*`.
    pub credentials: bool,
    /// The time for which browsers may cache the answer to a preflight request, with its unit. Default: `10m`.
    pub max_age: Option<String>,
}

/// The callers that an endpoint accepts: `"public"`, or methods and scopes.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Auth", untagged)]
pub enum AuthDefinition {
    /// Every caller.
    Public(PublicKeyword),
    /// Callers that authenticate with one of the methods and have all of the scopes.
    Required(AuthRequirements),
}

/// The word `public`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(rename = "Public", rename_all = "lowercase")]
pub enum PublicKeyword {
    /// Every caller.
    Public,
}

/// Authentication methods, scopes and issuers.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Required")]
pub struct AuthRequirements {
    /// The accepted authentication methods. Default: all that are configured.
    pub methods: Option<Vec<AuthMethod>>,
    /// The scopes, all of which a caller must have.
    pub scopes: Vec<String>,
    /// The issuers whose tokens are accepted, by their names in the configuration (`auth.jwt.<name>`). Default: all.
    pub issuers: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for AuthDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AuthVisitor;
        impl<'de> Visitor<'de> for AuthVisitor {
            type Value = AuthDefinition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"public\", or an object with `methods` and `scopes`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AuthDefinition, E> {
                if text == "public" {
                    return Ok(AuthDefinition::Public(PublicKeyword::Public));
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AuthDefinition, A::Error> {
                AuthRequirements::deserialize(MapAccessDeserializer::new(map))
                    .map(AuthDefinition::Required)
            }
        }
        deserializer.deserialize_any(AuthVisitor)
    }
}

/// A size: a number of bytes, or a string with a unit.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Size", untagged)]
pub enum SizeDefinition {
    /// A number of bytes.
    Bytes(usize),
    /// A string with a unit: `"64KiB"`.
    Text(String),
}

impl<'de> Deserialize<'de> for SizeDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = SizeDefinition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(BYTES_EXPECTED)
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<SizeDefinition, E> {
                let too_large = |_| E::invalid_value(serde::de::Unexpected::Unsigned(bytes), &self);
                usize::try_from(bytes).map(SizeDefinition::Bytes).map_err(too_large)
            }

            fn visit_str<E>(self, text: &str) -> Result<SizeDefinition, E> {
                Ok(SizeDefinition::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}
