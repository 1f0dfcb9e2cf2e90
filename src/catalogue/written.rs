//! An endpoint as it is written in a catalogue file. Doc comments here are the descriptions that editors show.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    Deserialize, Deserializer, Error as _, MapAccess, Visitor, value::MapAccessDeserializer,
};
use serde_json::value::RawValue;

/// One REST operation and the stored procedure behind it.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Endpoint")]
pub struct WrittenEndpoint {
    /// The method and the path, parameters in braces: `GET /v1/horses/{ueln}`.
    #[schemars(required, with = "String", regex(pattern = r"^(GET|HEAD|POST|PUT|PATCH|DELETE) /"))]
    pub route: Option<String>,
    /// One sentence about the endpoint.
    pub summary: Option<String>,
    /// More about it, for the generated documentation. Markdown.
    pub description: Option<String>,
    /// Groups of the generated documentation.
    pub tags: Vec<String>,
    /// Whether callers should stop using it. The answer says so in a header.
    pub deprecated: bool,
    /// The queue that serves it. Default: the endpoint's own id. Endpoints that share a queue share its workers.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"))]
    pub queue: Option<String>,
    /// What a worker does with a request. Default: `procedure`.
    pub handler: Option<String>,
    /// The stored procedure, `schema.name`. Needed by the handler `procedure`.
    pub procedure: Option<String>,
    /// What a caller sends, by name.
    pub parameters: Members<Object<WrittenParameter>>,
    /// The shape of the answer. Default: `rows`.
    pub result: Option<WrittenResult>,
    /// OUTPUT parameters of the procedure that join a `row`, `value` or `full` answer.
    pub outputs: Vec<String>,
    /// How the procedure's own outcomes become HTTP statuses.
    pub status: Object<WrittenStatus>,
    /// Whether a second execution would do harm. Default: `at-most-once` for POST and PATCH, else `at-least-once`.
    pub execution: Option<WrittenExecution>,
    /// Whether the worker calls the procedure in a transaction, and rolls all of it back when it fails. Only with the handler `procedure`.
    pub transaction: bool,
    /// Whether a caller may ask for a dry run by `Prefer: tx=rollback`: the transaction is rolled back, and the answer is what it would have been. Only with `transaction`, and not with GET or HEAD.
    pub dry_run: bool,
    /// How long one attempt may take, with its unit: `"2s"`. Default: the configuration's `catalogue.timeout_default`.
    pub timeout: Option<String>,
    /// The longest a client is kept waiting while a worker reports progress. Default: the timeout.
    pub session: Option<String>,
    /// How often a request is sent at most, when attempts go unanswered: 1 to 20.
    #[schemars(range(min = 1, max = 20))]
    pub attempts: Option<u32>,
    /// What happens to a running call when its client leaves. Default: `finish`.
    pub on_disconnect: Option<WrittenOnDisconnect>,
    /// Who may call it. Default: the configuration's `catalogue.auth_default`; without that, it must be given here.
    pub auth: Option<WrittenAuth>,
    /// Largest request body: bytes, or with a unit: `"64KiB"`.
    pub max_body: Option<WrittenSize>,
    /// Each caller's own rate.
    pub rate_limit: Option<Object<WrittenRate>>,
    /// The `Cache-Control` of a good answer to GET or HEAD. Default: `no-store`.
    pub cache_control: Option<String>,
    /// Web pages of other origins that may call it. Default: the configuration's `catalogue.cors_default`.
    pub cors: Option<Object<WrittenCors>>,
}

/// What a caller sends.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(rename = "Parameter")]
pub struct WrittenParameter {
    /// Where it stands in the request. Not for columns.
    #[serde(rename = "in")]
    pub place: Option<WrittenPlace>,
    /// Its type. `string` for `in: context`, where it need not be given.
    #[serde(rename = "type")]
    pub kind: Option<WrittenType>,
    /// The procedure's parameter (or the column of the table type). Default: the same name.
    #[serde(rename = "as")]
    pub argument: Option<String>,
    /// One sentence about it.
    pub description: Option<String>,
    /// Whether it must be there. Path parameters always must.
    pub required: Option<bool>,
    /// What it is when it is absent. Without a default an absent parameter is left to the procedure.
    #[schemars(with = "Option<serde_json::Value>")]
    pub default: Option<Box<RawValue>>,
    /// The only values allowed.
    #[serde(rename = "enum")]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    pub allowed: Option<Vec<Box<RawValue>>>,
    /// A regular expression that a `string` must match. Not anchored: write `^…$` for the whole text.
    pub pattern: Option<String>,
    /// Smallest number.
    #[schemars(with = "Option<serde_json::Number>")]
    pub minimum: Option<Box<RawValue>>,
    /// Largest number.
    #[schemars(with = "Option<serde_json::Number>")]
    pub maximum: Option<Box<RawValue>>,
    /// Fewest characters of a `string`, or bytes of a `binary`.
    pub min_length: Option<usize>,
    /// Most characters of a `string` or of the text of a `json`, or bytes of a `binary`.
    pub max_length: Option<usize>,
    /// Most rows of a `table`, or items of a `json` array.
    pub max_items: Option<usize>,
    /// The columns of a `table`, in the order of the table type.
    pub columns: Option<Members<Object<WrittenParameter>>>,
    /// The table type of a `table`, `schema.name`, when the procedure's signature does not say.
    pub table_type: Option<String>,
}

/// Where a parameter stands in a request.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Place")]
pub enum WrittenPlace {
    /// A segment of the path.
    Path,
    /// A query parameter.
    Query,
    /// A header; its name is not case-sensitive.
    Header,
    /// A member of the JSON body.
    Body,
    /// A claim of the caller's token.
    Claim,
    /// What the gateway knows: `request_id`, `idempotency_key`, `principal` or `client_ip`.
    Context,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Type")]
pub enum WrittenType {
    /// Text without U+0000.
    String,
    /// A 32-bit signed integer.
    Int32,
    /// A 64-bit signed integer, every digit kept.
    Int64,
    /// A double.
    Number,
    /// An exact number of at most 38 digits.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// A UUID; passed in lower case.
    Uuid,
    /// `YYYY-MM-DD`.
    Date,
    /// `HH:MM:SS`, with a fraction of up to nine digits.
    Time,
    /// RFC 3339, with its offset.
    Datetime,
    /// Bytes as base64.
    Binary,
    /// Any JSON, passed as text.
    Json,
    /// An array of objects, passed as a table. Only in the body.
    Table,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Result")]
pub enum WrittenResult {
    /// An array of objects.
    Rows,
    /// One object; 404 when there is no row.
    Row,
    /// The first column of the first row.
    Value,
    /// An array of arrays of objects, one for each result set.
    Sets,
    /// The JSON text that the procedure returns, passed through.
    Json,
    /// Nothing: 204.
    None,
    /// `{"sets": …, "outputs": …, "return": …}`.
    Full,
}

/// Whether a second execution would do harm.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Execution")]
pub enum WrittenExecution {
    /// A second execution does no harm.
    AtLeastOnce,
    /// Never executed twice.
    AtMostOnce,
}

/// What happens to a running call when its client leaves.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "OnDisconnect")]
pub enum WrittenOnDisconnect {
    /// It runs to its end.
    Finish,
    /// It is cancelled.
    Cancel,
}

/// How the procedure's own outcomes become HTTP statuses.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Status")]
pub struct WrittenStatus {
    /// RETURN status to HTTP status.
    #[serde(rename = "return")]
    pub returns: Members<u16>,
    /// Error number to HTTP status.
    #[serde(rename = "error")]
    pub errors: Members<u16>,
}

/// So many requests in a window.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub struct WrittenRate {
    /// Requests allowed in a window.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The window, with its unit: `"1m"`.
    pub window: String,
}

/// Web pages of other origins that may call an endpoint. Replaces the default as a whole.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cors")]
pub struct WrittenCors {
    /// Their origins, such as `https://app.example`; `*` alone: every one; none: no other origin.
    #[schemars(required)]
    pub origins: Option<Vec<String>>,
    /// Headers that pages may send, beside those that the endpoint takes anyhow.
    pub headers: Vec<String>,
    /// Headers that pages may read, beside those that answers have anyhow.
    pub exposed_headers: Vec<String>,
    /// Whether the browser adds credentials of its own: client certificates. Not with `*`.
    pub credentials: bool,
    /// How long browsers may remember what they were told, with its unit. Default: `10m`.
    pub max_age: Option<String>,
}

/// Who may call an endpoint: `"public"`, or methods and scopes.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Auth", untagged)]
pub enum WrittenAuth {
    /// Everybody.
    Public(PublicWord),
    /// Callers who prove who they are by one of the methods and have all of the scopes.
    Required(WrittenRequired),
}

/// The word `public`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(rename = "Public", rename_all = "lowercase")]
pub enum PublicWord {
    /// Everybody.
    Public,
}

/// Methods and scopes.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Required")]
pub struct WrittenRequired {
    /// The accepted ways to prove who one is. Default: all that are configured.
    pub methods: Option<Vec<WrittenMethod>>,
    /// Scopes that a caller needs, all of them.
    pub scopes: Vec<String>,
    /// The issuers whose tokens are accepted, by their names in the configuration (`auth.jwt.<name>`). Default: all.
    pub issuers: Option<Vec<String>>,
}

/// A way to prove who one is.
#[derive(Clone, Copy, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Method")]
pub enum WrittenMethod {
    /// A JWT as bearer token.
    Jwt,
    /// An API key.
    ApiKey,
    /// A TLS client certificate.
    Certificate,
}

impl<'de> Deserialize<'de> for WrittenAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = WrittenAuth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"public\", or an object with `methods` and `scopes`")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<WrittenAuth, E> {
                if word == "public" {
                    return Ok(WrittenAuth::Public(PublicWord::Public));
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(word), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenAuth, A::Error> {
                WrittenRequired::deserialize(MapAccessDeserializer::new(map))
                    .map(WrittenAuth::Required)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// A size: bytes as a number, or text with a unit.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Size", untagged)]
pub enum WrittenSize {
    /// Bytes.
    Bytes(usize),
    /// With a unit: `"64KiB"`.
    Text(String),
}

impl<'de> Deserialize<'de> for WrittenSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = WrittenSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(crate::config::duration::BYTES_EXPECTED)
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<WrittenSize, E> {
                let too_large = |_| E::invalid_value(serde::de::Unexpected::Unsigned(bytes), &self);
                usize::try_from(bytes).map(WrittenSize::Bytes).map_err(too_large)
            }

            fn visit_str<E>(self, text: &str) -> Result<WrittenSize, E> {
                Ok(WrittenSize::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// A structure that is only ever written as an object: serde alone would take an array, too.
#[derive(Debug, Default, JsonSchema)]
#[schemars(transparent)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Form(PhantomData))
    }
}

/// The members of a JSON object in their order; the same name twice is an error.
#[derive(Debug)]
pub struct Members<T>(pub Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = Members<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
                let mut members = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` is given more than once")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Form(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Members<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        std::collections::BTreeMap::<String, T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        std::collections::BTreeMap::<String, T>::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}
