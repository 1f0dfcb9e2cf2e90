//! The keys of an endpoint that describe its responses.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// Response headers, each with the OUTPUT parameter of the procedure that contains its value.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Headers")]
pub struct HeadersDefinition {
    /// The URI of a created resource, or the target of a redirect.
    #[serde(rename = "Location")]
    pub location: Option<String>,
    /// Related resources, such as the next page: `</v1/horses?page=2>; rel="next"`.
    #[serde(rename = "Link")]
    pub link: Option<String>,
    /// The version of the resource: an entity tag, or a number, text or bytes that are converted to one.
    #[serde(rename = "ETag")]
    pub etag: Option<String>,
    /// The name under which a browser stores the answer: `attachment; filename="a.pdf"`.
    #[serde(rename = "Content-Disposition")]
    pub content_disposition: Option<String>,
    /// The time of the last change.
    #[serde(rename = "Last-Modified")]
    pub last_modified: Option<String>,
    /// The number of records in all pages.
    #[serde(rename = "X-Total-Count")]
    pub total_count: Option<String>,
}

/// Media types: one, or several from which the client chooses.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Produces", untagged)]
pub enum ProducesDefinition {
    /// One media type: `"image/png"`.
    One(String),
    /// Several media types, with the default first: `["application/json", "text/csv"]`.
    Several(Vec<String>),
}

impl ProducesDefinition {
    /// Returns the media types.
    #[must_use]
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(all) => all,
        }
    }
}

impl<'de> Deserialize<'de> for ProducesDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ProducesVisitor;
        impl<'de> Visitor<'de> for ProducesVisitor {
            type Value = ProducesDefinition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a media type or a list of media types")
            }

            fn visit_str<E>(self, text: &str) -> Result<ProducesDefinition, E> {
                Ok(ProducesDefinition::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<ProducesDefinition, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(ProducesDefinition::Several(all))
            }
        }
        deserializer.deserialize_any(ProducesVisitor)
    }
}

/// The rules for the reuse of answers to GET and HEAD.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cache")]
pub struct CacheDefinition {
    /// Whether a successful answer has an `ETag`, computed from its content, so that a client can ask with `If-None-Match` whether the content has changed. Such an answer is not streamed.
    pub etag: bool,
    /// Whether identical concurrent GET requests share one call. Such an answer is not streamed.
    pub coalesce: bool,
    /// The time for which a gateway may answer GET and HEAD requests with a stored answer, with its unit: `"5s"`. Such an answer is not streamed.
    pub ttl: Option<String>,
    /// Whether all callers get the same answers. If not, `coalesce` and `ttl` reuse an answer only for requests of the same caller.
    pub shared: bool,
}
