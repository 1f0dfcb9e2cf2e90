//! Turns problems and finals into HTTP responses.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Body;

use crate::catalogue::endpoint::is_bodiless;
use crate::envelope::reply::JSON;
use crate::envelope::{AnswerHead, Final};
use crate::problem::{PROBLEM_JSON, Problem, ProblemKind};

use crate::roles::gateway::client::byte_budget::Reservation;

mod body;
mod connection_end;
mod request_id;

pub(super) use body::Piece;
pub use body::{AnswerBody, Coder, CutOff, Streamed};
pub use connection_end::ConnectionEnd;
pub use request_id::RequestId;

/// Every response.
pub type Response = http::Response<AnswerBody>;

/// The header that carries the request's id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where the time of a request went (W3C Server Timing).
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// One year: what a browser then refuses to do is to speak plain HTTP to this host.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// What a caller without credentials is asked for, unless `with_challenge` says more (RFC 6750 §3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");

/// Room for the headers of an ordinary answer, so that they are put in their places once.
const HEADERS: usize = 12;

/// What the request tells about how its response is written.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The request's id.
    pub request_id: RequestId,
    /// The request's method.
    pub method: Method,
    /// The request's version.
    pub version: Version,
    /// Whether the connection is TLS.
    pub is_tls: bool,
}

/// The response that tells a problem (RFC 9457).
#[must_use]
pub fn problem(problem: &Problem, request_id: &RequestId) -> Response {
    let meaning = problem.kind.definition();
    let mut response = Response::new(Bytes::from(problem.to_json(request_id.as_str())).into());
    *response.status_mut() = meaning.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(after) = problem.retry_after {
        // Whole seconds, rounded up: coming back too early would only be refused again.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if problem.kind == ProblemKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    if meaning.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same response, naming what credentials would do (RFC 9110 §11.6.1); for 401.
#[must_use]
pub fn with_challenge(mut response: Response, challenge: HeaderValue) -> Response {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// The same response, naming the methods that there are (RFC 9110 §10.2.1); for 405 and OPTIONS.
#[must_use]
pub fn with_allow(mut response: Response, methods: &[Method]) -> Response {
    let list = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// The response that passes a worker's answer on, unparsed.
///
/// # Errors
/// `BadAnswer` when its status or media type cannot be a final response's.
pub fn answer(answer: Final) -> Result<Response, Problem> {
    let status = status(answer.status)?;
    if answer.parts > 0 {
        // Nobody wanted them: of what length the body is was not kept (RFC 9110 §8.6).
        return with_body(status, &answer.content_type, AnswerBody::Streamed(Streamed::unread()));
    }
    let body = if is_bodiless(status.as_u16()) { Bytes::new() } else { answer.body };
    let content_type = if body.is_empty() { "" } else { &*answer.content_type };
    with_body(status, content_type, body.into())
}

/// The response that begins a worker's answer, whose end is not known yet.
///
/// # Errors
/// `BadAnswer` when its status or media type cannot be that of a response with a body.
pub fn beginning(head: &AnswerHead, body: Streamed) -> Result<Response, Problem> {
    let status = status(head.status)?;
    if is_bodiless(status.as_u16()) {
        return Err(Problem::new(ProblemKind::BadAnswer));
    }
    with_body(status, &head.content_type, AnswerBody::Streamed(body))
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
    body: AnswerBody,
) -> Result<Response, Problem> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS);
    if !content_type.is_empty() {
        let media_type = match content_type {
            // Nearly every answer: nothing to check, nothing to copy.
            JSON => Ok(HeaderValue::from_static(JSON)),
            other => HeaderValue::from_str(other),
        };
        let media_type = media_type.map_err(|_| Problem::new(ProblemKind::BadAnswer))?;
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    }
    Ok(response)
}

/// Remembers for whom a counted answer is: what it becomes counts as well.
pub(super) fn remember(response: &mut Response, room: &Reservation) {
    if let AnswerBody::Whole(body) = response.body()
        && Reservation::counts(body)
    {
        let again = room.another();
        response.extensions_mut().insert(Arc::new(again));
    }
}

/// Counts what the body of a counted answer has become.
pub(super) fn count_again(response: &mut Response) {
    let room = response.extensions_mut().remove::<Arc<Reservation>>().and_then(Arc::into_inner);
    if let Some(room) = room
        && response.headers().contains_key(header::CONTENT_ENCODING)
        && let AnswerBody::Whole(body) = response.body_mut()
    {
        *body = room.holding(std::mem::take(body));
    }
}

/// Adds what every response has, and takes away what this one must not have. The last step before the wire.
#[must_use]
pub fn finish(mut response: Response, shape: &Shape) -> Response {
    let length = response.body().size_hint().exact();
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, shape.request_id.header_value());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default_header(headers, header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if shape.is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    match length.filter(|_| !is_bodiless(status.as_u16())) {
        Some(length) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        // One that streams says by its framing where it ends (RFC 9112 §7.1, RFC 9113 §8.1).
        None => headers.remove(header::CONTENT_LENGTH),
    };
    if shape.version == Version::HTTP_2 {
        // A connection is not a request's to close there (RFC 9113 §8.2.2).
        headers.remove(header::CONNECTION);
    }
    if shape.method == Method::HEAD {
        // The length stays: it is that of the same GET (RFC 9110 §9.3.2).
        *response.body_mut() = AnswerBody::default();
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
