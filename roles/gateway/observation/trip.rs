//! What is known of a request when it ends, however it ends: its one access line and its figures.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::catalogue::AuthMethod;
use crate::catalogue::Endpoint;
use crate::outcome::Word;
use crate::telemetry::context::RequestIds;
use crate::telemetry::trace_context::TraceContext;

use crate::roles::gateway::admission::auth::AuthRejection;
use crate::roles::gateway::admission::prefer::TransactionEnd;
use crate::roles::gateway::admission::rate_limit::RateLimitHeaders;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::dispatch::place::Placed;
use crate::roles::gateway::dispatch::session::Ending;
use crate::roles::gateway::observation::phases::Phase;
use crate::roles::gateway::observation::phases::Phases;
use crate::roles::gateway::observation::phases::millis;
use crate::roles::gateway::response::RequestId;

mod client;
mod figures;
mod span;

use client::Client;

pub(in crate::roles::gateway) use figures::count;

/// What trace a client's request belongs to (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// See `TRACEPARENT`.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What logs and metrics have for a status when the client left before there was one, as is the custom.
const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// A request on its way. Ends with an access line: also when it is dropped, because its client left.
#[derive(Debug)]
pub(in crate::roles::gateway) struct Trip {
    pub(in crate::roles::gateway) request_id: RequestId,
    pub(in crate::roles::gateway) trace: TraceContext,
    pub(in crate::roles::gateway) endpoint: Option<Arc<Endpoint>>,
    pub(in crate::roles::gateway) principal: Option<Arc<str>>,
    /// Why its caller was not let in.
    pub(in crate::roles::gateway) refused: Option<Box<AuthRejection>>,
    pub(in crate::roles::gateway) attempts: u32,
    pub(in crate::roles::gateway) outcome: Word,
    /// How the caller wants the call's transaction to end, when it says so.
    pub(in crate::roles::gateway) transaction_end: Option<TransactionEnd>,
    pub(in crate::roles::gateway) rate: RateLimitHeaders,
    /// Whether the caller may see where the time went.
    pub(in crate::roles::gateway) shows_timing: bool,
    began: Instant,
    phases: Phases,
    /// The phase it is in, and since when.
    phase: Option<Phase>,
    since: Instant,
    method: Method,
    client: IpAddr,
    is_tls: bool,
    has_ended: bool,
}

impl Trip {
    pub(in crate::roles::gateway) fn begin(
        parts: &Parts,
        peer: &Peer,
        request_id: RequestId,
    ) -> Self {
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let now = Instant::now();
        Self {
            request_id,
            trace: TraceContext::from_headers(text(TRACEPARENT), text(TRACESTATE)),
            endpoint: None,
            principal: None,
            refused: None,
            attempts: 0,
            outcome: Word::Ok,
            transaction_end: None,
            rate: RateLimitHeaders::default(),
            shows_timing: false,
            began: now,
            phases: Phases::default(),
            phase: Some(Phase::Auth),
            since: now,
            method: parts.method.clone(),
            client: peer.address,
            is_tls: peer.is_tls,
            has_ended: false,
        }
    }

    /// What every line that is logged for it says.
    pub(in crate::roles::gateway) fn served(&self) -> Arc<RequestIds> {
        Arc::new(RequestIds {
            request_id: Arc::clone(self.request_id.shared()),
            traceparent: Arc::clone(self.trace.traceparent()),
        })
    }

    /// The next phase begins; none while the request is with its placer, which tells afterwards.
    pub(in crate::roles::gateway) fn enter(&mut self, phase: Option<Phase>) {
        let now = Instant::now();
        if let Some(phase) = std::mem::replace(&mut self.phase, phase) {
            self.phases.set(phase, now.saturating_duration_since(self.since));
        }
        self.since = now;
    }

    /// Its caller proved who it is.
    pub(in crate::roles::gateway) fn authenticated(&mut self, principal: &Arc<str>) {
        self.principal = Some(Arc::clone(principal));
        self.trace.on_authenticated();
    }

    /// It was placed, and has an ending.
    pub(in crate::roles::gateway) fn placed(&mut self, placed: &Placed) {
        self.attempts = placed.attempts;
        self.phases.set(Phase::QueueWait, placed.waited);
        if let Ending::Final(answer) = &placed.ending {
            self.phases.split(placed.answered, answer.phases);
        } else if !placed.answered.is_zero() {
            self.phases.split(placed.answered, None);
        }
        self.enter(Some(Phase::Response));
    }

    /// Where the time went so far, for a caller that may see it.
    pub(in crate::roles::gateway) fn server_timing(&mut self) -> Option<HeaderValue> {
        self.enter(None);
        if self.shows_timing { self.phases.server_timing(self.began.elapsed()) } else { None }
    }

    /// Whether everything that it does is to be rolled back.
    pub(in crate::roles::gateway) fn is_dry_run(&self) -> bool {
        self.transaction_end == Some(TransactionEnd::Rollback)
    }

    /// It was answered.
    pub(in crate::roles::gateway) fn end(&mut self, status: StatusCode) {
        self.has_ended = true;
        self.enter(None);
        self.phases.record();
        let phase = |phase| self.phases.millis(phase);
        let took = self.began.elapsed();
        let id = self.endpoint.as_ref().map(|endpoint| &endpoint.id);
        figures::ended(id, status, self.outcome, took);
        let endpoint = id.map_or("none", |id| id.as_str());
        let refused = self.refused.as_deref();
        let presented = refused.map(|refused| &refused.presented);
        tracing::info!(
            target: "fjord::access",
            request_id = %self.request_id,
            trace_id = self.trace.trace_id(),
            endpoint,
            method = %self.method,
            status = status.as_u16(),
            outcome = self.outcome.as_str(),
            attempts = self.attempts,
            dry_run = self.is_dry_run().then_some(true),
            principal = self.principal.as_deref(),
            client = %Client(self.client),
            auth_failure = refused.map(|refused| refused.failure.as_str()),
            auth_method = presented.and_then(|it| it.method).map(AuthMethod::as_str),
            auth_issuer = presented.and_then(|it| it.issuer.as_deref()),
            auth_key = presented.and_then(|it| it.key.as_deref()),
            duration_ms = millis(took),
            auth_ms = phase(Phase::Auth),
            parameters_ms = phase(Phase::Parameters),
            queue_wait_ms = phase(Phase::QueueWait),
            nats_ms = phase(Phase::Nats),
            worker_ms = phase(Phase::Worker),
            pool_wait_ms = phase(Phase::PoolWait),
            sql_ms = phase(Phase::Sql),
            response_ms = phase(Phase::Response),
            "request"
        );
        self.end_span(status);
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
