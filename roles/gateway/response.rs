//! HTTP responses, built from problems and from workers' replies.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Body;

use crate::catalogue::endpoint::is_bodiless;
use crate::envelope::reply::JSON;
use crate::envelope::{AnswerHead, Final};
use crate::http_date;
use crate::problem::{PROBLEM_JSON, Problem, ProblemKind};

use crate::roles::gateway::client::byte_budget::Reservation;

mod body;
mod close_reason;
pub(super) mod entity_tag;
mod request_id;

pub(super) use body::StreamChunk;
pub use body::{BodyEncoder, BodyProducer, ResponseBody, StreamedBody, Truncated};
pub use close_reason::CloseReason;
pub use request_id::RequestId;

/// A response from the gateway.
pub type Response = http::Response<ResponseBody>;

/// The header with the request's id, in requests and responses.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header with the durations of a request's phases (W3C Server Timing).
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Explains why the gateway has no answer from a worker (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Tells browsers to use only HTTPS for this host, for one year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// The default challenge of a 401 (RFC 6750 §3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");

/// The initial header capacity, large enough that the map of an ordinary response never grows.
const HEADERS_CAPACITY: usize = 12;

/// The properties of a request that every response depends on.
#[derive(Clone, Debug)]
pub struct ResponseContext {
    /// The id of the request.
    pub request_id: RequestId,
    /// The method of the request.
    pub method: Method,
    /// The HTTP version of the request.
    pub version: Version,
    /// Whether the connection uses TLS.
    pub is_tls: bool,
}

/// Returns a response with a problem document (RFC 9457).
#[must_use]
pub fn problem(problem: &Problem, request_id: &RequestId) -> Response {
    let meaning = problem.kind.definition();
    let mut response = Response::new(Bytes::from(problem.to_json(request_id.as_str())).into());
    *response.status_mut() = meaning.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(after) = problem.retry_after {
        // Whole seconds, rounded up: a retry that is too early would be rejected again.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(status) = problem.kind.proxy_status().and_then(|it| HeaderValue::try_from(it).ok())
    {
        headers.insert(PROXY_STATUS, status);
    }
    if problem.kind == ProblemKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    if meaning.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Adds a challenge to a 401 (RFC 9110 §11.6.1).
#[must_use]
pub fn with_challenge(mut response: Response, challenge: HeaderValue) -> Response {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Adds the supported methods to a response (RFC 9110 §10.2.1).
#[must_use]
pub fn with_allow<'a>(
    mut response: Response,
    methods: impl Iterator<Item = &'a Method>,
) -> Response {
    let list = methods.map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// Returns the response that forwards a worker's final reply. The body is not parsed.
///
/// # Errors
/// `BadAnswer` if the status or the media type is not valid in a final response.
pub fn from_final(answer: Final) -> Result<Response, Problem> {
    let status = status(answer.status)?;
    if answer.parts > 0 {
        // The parts of an answer to HEAD were discarded, so its length is unknown (RFC 9110 §8.6).
        return with_body(
            status,
            &answer.content_type,
            ResponseBody::Streamed(StreamedBody::unread()),
        );
    }
    let body = if is_bodiless(status.as_u16()) { Bytes::new() } else { answer.body };
    // An empty body is valid as CSV, JSON Lines or raw bytes, but not as JSON.
    let is_untyped =
        is_bodiless(status.as_u16()) || (body.is_empty() && &*answer.content_type == JSON);
    let content_type = if is_untyped { "" } else { &*answer.content_type };
    with_body(status, content_type, body.into())
}

/// Returns the response for a worker's streamed answer.
///
/// # Errors
/// `BadAnswer` if the status or the media type is not valid in a response with a body.
pub fn from_head(head: &AnswerHead, body: StreamedBody) -> Result<Response, Problem> {
    let status = status(head.status)?;
    if is_bodiless(status.as_u16()) {
        return Err(Problem::new(ProblemKind::BadAnswer));
    }
    with_body(status, &head.content_type, ResponseBody::Streamed(body))
}

fn status(number: u16) -> Result<StatusCode, Problem> {
    StatusCode::from_u16(number)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or(Problem::new(ProblemKind::BadAnswer))
}

fn with_body(
    status: StatusCode,
    content_type: &str,
    body: ResponseBody,
) -> Result<Response, Problem> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS_CAPACITY);
    if !content_type.is_empty() {
        let media_type = match content_type {
            // The usual case needs no check and no copy.
            JSON => Ok(HeaderValue::from_static(JSON)),
            other => HeaderValue::from_str(other),
        };
        let media_type = media_type.map_err(|_| Problem::new(ProblemKind::BadAnswer))?;
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    }
    Ok(response)
}

/// If the body is charged to the client's byte budget, attaches an empty reservation for the same
/// client, so that `charge_compressed` can charge the compressed body too.
pub(super) fn attach_reservation(response: &mut Response, reservation: &Reservation) {
    if let ResponseBody::Whole(body) = response.body()
        && Reservation::counts(body)
    {
        response.extensions_mut().insert(Arc::new(reservation.empty_for_same_client()));
    }
}

/// Counts a compressed body with the reservation attached by `attach_reservation`.
pub(super) fn charge_compressed(response: &mut Response) {
    let attached = response.extensions_mut().remove::<Arc<Reservation>>();
    if let Some(reservation) = attached.and_then(Arc::into_inner)
        && response.headers().contains_key(header::CONTENT_ENCODING)
        && let ResponseBody::Whole(body) = response.body_mut()
    {
        *body = reservation.attach(std::mem::take(body));
    }
}

/// Adds the headers that every response has and removes those that this response must not have.
/// This is the last step before the response is sent.
#[must_use]
pub fn finish(mut response: Response, context: &ResponseContext) -> Response {
    let length = response.body().size_hint().exact();
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, context.request_id.header_value());
    headers.insert(header::DATE, http_date::now());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default_header(headers, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if context.is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    match length.filter(|_| !is_bodiless(status.as_u16())) {
        Some(length) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        // The framing of a streamed body marks its end (RFC 9112 §7.1, RFC 9113 §8.1).
        None => headers.remove(header::CONTENT_LENGTH),
    };
    if context.version == Version::HTTP_2 {
        // HTTP/2 forbids this header (RFC 9113 §8.2.2).
        headers.remove(header::CONNECTION);
    }
    if context.method == Method::HEAD {
        // The length is kept: it is the length of the response to GET (RFC 9110 §9.3.2).
        *response.body_mut() = ResponseBody::default();
    }
    response
}

fn default_header(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
