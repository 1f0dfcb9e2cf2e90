//! One REST operation after validation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use schemars::JsonSchema;

use super::auth::Auth;
use super::cache::CacheRules;
use super::cors::CorsRules;
use super::endpoint_queues::{EndpointQueue, EndpointQueues};
use super::example::Example;
use super::names::EndpointId;
use super::parameter::{Parameter, ParameterSource};
use super::representation::Representation;
use super::response_header::ResponseHeader;
use super::returns::Returns;

/// One REST operation: its route, its procedure, and how requests to it are handled.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The endpoint's key in the catalogue.
    pub id: EndpointId,
    /// The HTTP method.
    pub method: Method,
    /// The path with its parameters in braces, e.g. `/v1/horses/{ueln}`.
    pub path: Arc<str>,
    /// One sentence for the generated documentation.
    pub summary: Option<String>,
    /// A longer text for the generated documentation.
    pub description: Option<String>,
    /// The groups in which the generated documentation lists the endpoint.
    pub tags: Vec<String>,
    /// Whether callers should stop using the endpoint.
    pub deprecated: bool,
    /// The queues that serve the endpoint. By default, there is a single queue whose name is the endpoint's id.
    pub queues: EndpointQueues,
    /// The name of the worker's handler, which is `procedure` unless the catalogue names another one.
    pub handler: Arc<str>,
    /// The parameters, in the order of the catalogue.
    pub parameters: Arc<[Parameter]>,
    /// The structure of a successful answer.
    pub result: ResultKind,
    /// The representations of a successful answer. There is at least one. Clients without a preference get the first
    /// one.
    pub produces: Vec<Representation>,
    /// OUTPUT parameters that are included in a `row`, `value` or `full` answer.
    pub outputs: Vec<String>,
    /// Response headers, each with the OUTPUT parameter that contains its value.
    pub headers: Vec<(ResponseHeader, Arc<str>)>,
    /// The declared columns of the answer, for the generated documentation.
    pub returns: Option<Returns>,
    /// Requests with their answers, in the order of the catalogue.
    pub examples: Vec<Example>,
    /// HTTP statuses for the procedure's RETURN statuses and error numbers.
    pub status: StatusMap,
    /// Whether a request may be executed a second time.
    pub execution: Execution,
    /// Whether the worker calls the procedure in a transaction.
    pub transaction: bool,
    /// Whether a caller may request a dry run, in which the transaction is rolled back.
    pub dry_run: bool,
    /// The maximum duration of an attempt if no worker reports progress.
    pub timeout: Duration,
    /// The maximum time that a client waits if a worker reports progress. It is at least `timeout`.
    pub session: Duration,
    /// The maximum number of times that a request is sent. Sending it again after a refusal does not count.
    pub attempts: u32,
    /// Whether a running at-most-once call continues when its client disconnects.
    pub on_disconnect: OnDisconnect,
    /// The callers that the endpoint accepts.
    pub auth: Auth,
    /// The largest request body in bytes.
    pub body_bytes_max: usize,
    /// The rate limit for each caller, if any.
    pub rate_limit: Option<RateLimit>,
    /// The maximum number of requests that each caller may have in flight, if the endpoint limits it.
    pub in_flight_per_caller_max: Option<usize>,
    /// The rules for the reuse of answers.
    pub cache: CacheRules,
    /// The `Cache-Control` of a successful answer. `None` means `no-store`.
    pub cache_control: Option<String>,
    /// The CORS rules, if pages from other origins may call the endpoint.
    pub cors: Option<Arc<CorsRules>>,
}

impl Endpoint {
    /// Returns whether any parameter is a member of the JSON body.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.source == ParameterSource::Body)
    }

    /// Returns the endpoint with only one of its queues, as the workers of that queue serve it.
    #[must_use]
    pub fn for_queue(self: &Arc<Self>, queue: &EndpointQueue) -> Arc<Self> {
        let only = EndpointQueues::new(vec![queue.clone()]);
        match only.filter(|_| self.queues.has_several()) {
            Some(queues) => Arc::new(Self { queues, ..Self::clone(self) }),
            None => Arc::clone(self),
        }
    }

    /// Returns the representation with a media type. A request that names none gets JSON if the endpoint has it, and
    /// otherwise the first representation.
    #[must_use]
    pub fn representation(&self, media_type: Option<&str>) -> Option<&Representation> {
        let find = |wanted: &str| self.produces.iter().find(|one| one.media_type() == wanted);
        match media_type {
            Some(media_type) => find(media_type),
            None => find(Representation::Json.media_type()).or(self.produces.first()),
        }
    }

    /// Returns whether the procedure receives a header of the request.
    #[must_use]
    pub fn takes_header(&self, name: &str) -> bool {
        let is_header = |parameter: &Parameter| {
            parameter.source == ParameterSource::Header && parameter.name.eq_ignore_ascii_case(name)
        };
        self.parameters.iter().any(is_header)
    }

    /// Returns whether the procedure can set a header of the answer.
    #[must_use]
    pub fn has_header(&self, header: ResponseHeader) -> bool {
        self.headers.iter().any(|(declared, _)| *declared == header)
    }

    /// Returns whether `Prefer: return=minimal` is honored. This is the case for a method that changes something,
    /// unless the procedure receives `Prefer`.
    #[must_use]
    pub fn may_be_minimal(&self) -> bool {
        !self.method.is_safe() && !self.takes_header("prefer")
    }

    /// Returns whether an answer has the media type that its client wants. If the endpoint has only JSON, any type is
    /// accepted, because workers in other languages may answer in any type.
    #[must_use]
    pub fn is_represented(&self, wanted: &Representation, content_type: &str) -> bool {
        matches!(*self.produces, [Representation::Json]) || wanted.is_content_type(content_type)
    }

    /// Returns whether parts of a large answer may be sent while the procedure is still running. This requires a result that
    /// can have more than one row, and a status and headers that do not depend on the end of the call.
    #[must_use]
    pub fn may_stream(&self) -> bool {
        use ResultKind::{Full, Json, Rows, Sets};
        self.status.returns.is_empty()
            && self.headers.is_empty()
            && !self.cache.needs_whole_answer()
            && matches!(self.result, Rows | Sets | Json | Full)
    }
}

/// Whether a request may be executed again when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// Executing the request twice does no harm.
    AtLeastOnce,
    /// The request is never executed twice. A worker asks the gateway for permission before it executes the request.
    AtMostOnce,
}

impl Execution {
    /// Returns the name on the wire and in the catalogue.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

/// Whether a running at-most-once call continues when its client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// The call runs to its end.
    Finish,
    /// The call is cancelled.
    Cancel,
}

/// The structure of an endpoint's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Result")]
pub enum ResultKind {
    /// An array of objects.
    Rows,
    /// One object, or a 404 if there is no row.
    Row,
    /// The first column of the first row.
    Value,
    /// An array of arrays of objects, one for each result set.
    Sets,
    /// The JSON text that the procedure returns: its rows, concatenated and passed through unchanged.
    Json,
    /// No content: 204.
    None,
    /// `{"sets": …, "outputs": …, "return": …}`.
    Full,
}

/// The HTTP statuses for a procedure's RETURN statuses and error numbers, as configured in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusMap {
    /// HTTP statuses by RETURN status.
    pub returns: BTreeMap<i32, u16>,
    /// HTTP statuses by error number.
    pub errors: BTreeMap<u32, u16>,
}

/// Returns whether a response with this status has no body (RFC 9110 §6.4.1, and §15.3.6 for 205).
#[must_use]
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// The number of requests that each caller may send in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// The number of requests allowed in a window.
    pub requests: u32,
    /// The length of the window.
    pub window: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_parsed_from_its_own_name() {
        for execution in [Execution::AtLeastOnce, Execution::AtMostOnce] {
            let name = serde_json::Value::from(execution.as_str());
            assert_eq!(serde_json::from_value::<Execution>(name).unwrap(), execution);
        }
    }
}
