//! Refuses what is not routed: requests that could mean two things, and heads that are not even HTTP.

use bytes::Bytes;
use http::header::{CONNECTION, DATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::catalogue::route::METHODS;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::observation::trip;
use crate::roles::gateway::response;
use crate::roles::gateway::response::RequestId;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::Shape;

/// Logs and counts a refusal, and makes the answer that tells it. Nobody else does for what has not been routed.
pub(super) fn refuse(problem: &Problem, peer: &Peer, request_id: &RequestId) -> Response {
    let status = problem.kind.status();
    let outcome = problem.kind.outcome();
    tracing::info!(
        target: "fjord::access",
        %request_id,
        outcome = outcome.as_str(),
        client = %peer.address,
        status = status.as_u16(),
        detail = problem.detail,
        "refused before routing"
    );
    trip::count("none", status, outcome);
    let mut response = response::problem(problem, request_id);
    if problem.kind == ProblemKind::NotImplemented {
        response = response::with_allow(response, &[&METHODS[..], &[Method::OPTIONS]].concat());
    }
    // Where one request is in doubt, so is where the next one begins.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What hyper found, as a problem of ours.
pub(super) fn problem_of(status: StatusCode) -> Problem {
    match status {
        StatusCode::URI_TOO_LONG => Problem::new(ProblemKind::UriTooLong),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(ProblemKind::HeadersTooLarge),
        _ => Problem::with_detail(
            ProblemKind::InvalidRequest,
            "the request's head is not HTTP/1.1 (RFC 9112)",
        ),
    }
}

/// Writes the answer to a head that nobody could read, and closes. Bounded by the connection's own write limit.
pub(super) async fn answer_and_close<IO>(mut io: IO, problem: &Problem, peer: &Peer)
where
    IO: AsyncWrite + Unpin,
{
    let request_id = RequestId::from_headers(&HeaderMap::new());
    let response = refuse(problem, peer, &request_id);
    // Whether it asked for HEAD cannot be known: the connection ends behind the body.
    let shape =
        Shape { request_id, method: Method::GET, version: Version::HTTP_11, is_tls: peer.is_tls };
    let (parts, body) = response::finish(response, &shape).into_parts();
    // A problem is always whole.
    let bytes = written(&parts, &body.into_whole().unwrap_or_default());
    let said = async {
        io.write_all(&bytes).await?;
        io.shutdown().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "a client did not hear why it was refused");
    }
}

/// An answer as HTTP/1.1 writes it.
fn written(parts: &http::response::Parts, body: &Bytes) -> Vec<u8> {
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    // RFC 9110 §6.6.1: whoever has a clock says when.
    let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    bytes.extend(format!("{DATE}: {date}\r\n").into_bytes());
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
