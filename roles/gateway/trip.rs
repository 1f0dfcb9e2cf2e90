//! What is known of a request when it ends, however it ends: its one access line and its figures.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::outcome::Word;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::{counter, histogram, names};

use super::caller::Peer;
use super::rate::RateHeaders;
use super::respond::RequestId;

/// What logs and metrics have for a status when the client left before there was one, as is the custom.
const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// A request on its way. Ends with an access line: also when it is dropped, because its client left.
#[derive(Debug)]
pub(super) struct Trip {
    pub(super) request_id: RequestId,
    pub(super) trace: TraceContext,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) principal: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) outcome: Word,
    pub(super) rate: RateHeaders,
    began: Instant,
    method: Method,
    client: IpAddr,
    has_ended: bool,
}

impl Trip {
    pub(super) fn begin(parts: &Parts, peer: &Peer, request_id: RequestId) -> Self {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            request_id,
            trace: TraceContext::continued(text("traceparent"), text("tracestate")),
            endpoint: None,
            principal: None,
            attempts: 0,
            outcome: Word::Ok,
            rate: RateHeaders::default(),
            began: Instant::now(),
            method: parts.method.clone(),
            client: peer.address,
            has_ended: false,
        }
    }

    /// It was answered.
    pub(super) fn end(&mut self, status: StatusCode) {
        self.has_ended = true;
        let took = self.began.elapsed();
        let endpoint = self.endpoint.as_ref().map_or("none", |endpoint| endpoint.id.as_str());
        count(endpoint, status, self.outcome);
        let label = [(names::ENDPOINT, endpoint.to_owned())];
        histogram(&names::GATEWAY_REQUEST_DURATION, &label).record(took.as_secs_f64());
        tracing::info!(
            target: "fjord::access",
            request_id = %self.request_id,
            trace_id = self.trace.trace_id(),
            endpoint,
            method = %self.method,
            status = status.as_u16(),
            outcome = self.outcome.as_str(),
            attempts = self.attempts,
            principal = self.principal.as_deref(),
            client = %self.client,
            duration_ms = took.as_secs_f64() * 1000.0,
            "request"
        );
    }
}

impl Drop for Trip {
    /// The HTTP server drops what serves a client that left; a panic drops it too.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (outcome, status) = if std::thread::panicking() {
            (Word::Panic, StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            (Word::ClientGone, CLIENT_GONE)
        };
        self.outcome = outcome;
        self.end(status);
    }
}

/// Counts a request. `endpoint` is an id of the catalogue, or `none`.
pub(super) fn count(endpoint: &str, status: StatusCode, outcome: Word) {
    let labels = [
        (names::ENDPOINT, endpoint.to_owned()),
        (names::STATUS, status.as_str().to_owned()),
        (names::OUTCOME, outcome.as_str().to_owned()),
    ];
    counter(&names::GATEWAY_REQUESTS, &labels).increment(1);
}
