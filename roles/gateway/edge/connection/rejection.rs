//! Builds the responses to requests that are rejected before routing: ambiguous requests, and heads
//! that are not valid HTTP.

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::catalogue::route::METHODS;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::observation::request_log;
use crate::roles::gateway::response;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::ResponseContext;

/// The first line of HTTP/2 (RFC 9113 §3.4).
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// An empty SETTINGS frame, which must precede all others (RFC 9113 §3.4).
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The type of a GOAWAY frame (RFC 9113 §6.8).
const GOAWAY: u8 = 7;
/// Error codes in GOAWAY frames (RFC 9113 §7).
const INADEQUATE_SECURITY: u32 = 0xc;
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// Logs and counts a rejected request, because it never reaches the pipeline. Returns its response.
pub(super) fn respond(problem: &Problem, peer: &Peer, request_id: &RequestId) -> Response {
    let status = problem.kind.status();
    let outcome = problem.kind.outcome();
    tracing::info!(
        target: "fjord::access",
        %request_id,
        outcome = outcome.as_str(),
        client = %peer.address,
        status = status.as_u16(),
        detail = problem.detail,
        "request rejected before routing"
    );
    request_log::count("none", status, outcome);
    let mut response = response::problem(problem, request_id);
    if problem.kind == ProblemKind::NotImplemented {
        let methods = METHODS.iter().chain([&Method::OPTIONS]);
        response = response::with_allow(response, methods);
    }
    // If this request is ambiguous, so is the start of the next request.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Returns the problem for the status with which hyper would have rejected a head.
pub(super) fn problem_for_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::URI_TOO_LONG => Problem::new(ProblemKind::UriTooLong),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(ProblemKind::HeadersTooLarge),
        _ => Problem::with_detail(
            ProblemKind::InvalidRequest,
            "the request head is not valid HTTP/1.1 (RFC 9112)",
        ),
    }
}

/// Writes the response to a head that could not be parsed, and closes the stream. `StallTimeout` limits the writes.
pub(super) async fn write_and_close<IO>(mut io: IO, problem: &Problem, peer: &Peer)
where
    IO: AsyncWrite + Unpin,
{
    let request_id = RequestId::from_headers(&HeaderMap::new());
    let response = respond(problem, peer, &request_id);
    // The method is unknown. If it was HEAD, closing the connection ends the response.
    let (method, version) = (Method::GET, Version::HTTP_11);
    let context = ResponseContext { request_id, method, version, is_tls: peer.is_tls };
    let (parts, body) = response::finish(response, &context).into_parts();
    // A problem is never streamed.
    let bytes = serialize(&parts, &body.into_whole().unwrap_or_default());
    let writing = async {
        io.write_all(&bytes).await?;
        io.shutdown().await
    };
    if let Err(error) = writing.await {
        tracing::debug!(%error, "cannot write the response to a rejected request");
    }
}

/// Returns the problem for a request in plain text on a connection that should begin with a TLS handshake.
pub(super) fn lacks_tls() -> Problem {
    let detail = "this port serves HTTPS only: expected TLS (https://), got plain HTTP";
    Problem::with_detail(ProblemKind::InvalidRequest, detail)
}

/// Rejects a client that speaks HTTP/2 without having negotiated it with TLS (RFC 9113 §3.3). The client gets the
/// reason in the debug data of GOAWAY, because it would not understand HTTP/1.1.
pub(super) async fn reject_http2<IO>(mut io: IO, lacks_tls: bool, peer: &Peer)
where
    IO: AsyncWrite + Unpin,
{
    let (error, detail) = match (lacks_tls, peer.is_tls) {
        (true, _) => (
            INADEQUATE_SECURITY,
            "this port serves HTTPS only: expected TLS, got HTTP/2 in plain text",
        ),
        (false, true) => {
            (HTTP_1_1_REQUIRED, "HTTP/2 was not negotiated: expected h2 in ALPN, or HTTP/1.1")
        }
        (false, false) => {
            (HTTP_1_1_REQUIRED, "this port does not serve HTTP/2 in plain text: expected HTTP/1.1")
        }
    };
    let problem = Problem::with_detail(ProblemKind::InvalidRequest, detail);
    drop(respond(&problem, peer, &RequestId::from_headers(&HeaderMap::new())));
    let mut frames = EMPTY_SETTINGS.to_vec();
    // The length, type, flags and stream of the frame, and the last stream that was processed.
    let length = u8::try_from(8 + detail.len()).unwrap_or(8);
    frames.extend([0, 0, length, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frames.extend(error.to_be_bytes());
    frames.extend(detail.as_bytes());
    let writing = async {
        io.write_all(&frames).await?;
        io.shutdown().await
    };
    if let Err(error) = writing.await {
        tracing::debug!(%error, "cannot write GOAWAY to a client of HTTP/2 in plain text");
    }
}

/// Serializes a response for HTTP/1.1.
fn serialize(parts: &http::response::Parts, body: &Bytes) -> Vec<u8> {
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
