//! The access line, metrics and span of one request, written when it ends.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::catalogue::AuthMethod;
use crate::catalogue::Endpoint;
use crate::catalogue::QueueName;
use crate::outcome::Outcome;
use crate::telemetry::context::LogContext;
use crate::telemetry::trace_context::TraceContext;

use crate::roles::gateway::admission::auth::AuthRejection;
use crate::roles::gateway::admission::prefer::TransactionEnd;
use crate::roles::gateway::admission::rate_limit::RateLimitHeaders;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::roles::gateway::dispatch::{AnswerSource, SessionSummary};
use crate::roles::gateway::observation::phases::RequestPhase;
use crate::roles::gateway::observation::phases::RequestPhases;
use crate::roles::gateway::observation::phases::millis;
use crate::roles::gateway::response::RequestId;

mod client_address;
mod request_metrics;
mod request_span;

use client_address::ClientAddress;
pub(in crate::roles::gateway) use request_metrics::{count, forget_endpoints};

/// The header with the trace and parent span of a client's request (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with vendor data about the trace (W3C Trace Context).
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The status in logs and metrics after the client disconnected early: 499 by convention.
const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// The data about one request for its access line, metrics and span. They are written when the
/// request ends, or when this value is dropped early.
#[derive(Debug)]
pub(in crate::roles::gateway) struct RequestLog {
    pub(in crate::roles::gateway) request_id: RequestId,
    pub(in crate::roles::gateway) trace: TraceContext,
    pub(in crate::roles::gateway) endpoint: Option<Arc<Endpoint>>,
    pub(in crate::roles::gateway) principal: Option<Arc<str>>,
    /// The reason why authentication or authorization failed, if it did.
    pub(in crate::roles::gateway) refused: Option<Box<AuthRejection>>,
    /// The index of the queue to which the request was assigned, or `None` if it has not been assigned yet.
    pub(in crate::roles::gateway) queue: Option<usize>,
    pub(in crate::roles::gateway) attempts: u32,
    pub(in crate::roles::gateway) outcome: Outcome,
    /// How the caller wants the transaction to end, if it has stated a preference.
    pub(in crate::roles::gateway) transaction_end: Option<TransactionEnd>,
    /// Where the answer came from.
    pub(in crate::roles::gateway) answer_source: AnswerSource,
    pub(in crate::roles::gateway) rate: RateLimitHeaders,
    /// Whether the caller may see the durations of the phases.
    pub(in crate::roles::gateway) shows_timing: bool,
    started_at: Instant,
    phases: RequestPhases,
    current_phase: Option<RequestPhase>,
    phase_started_at: Instant,
    method: Method,
    client: IpAddr,
    is_tls: bool,
    has_ended: bool,
}

impl RequestLog {
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
            queue: None,
            attempts: 0,
            outcome: Outcome::Ok,
            transaction_end: None,
            answer_source: AnswerSource::Call,
            rate: RateLimitHeaders::default(),
            shows_timing: false,
            started_at: now,
            phases: RequestPhases::default(),
            current_phase: Some(RequestPhase::Auth),
            phase_started_at: now,
            method: parts.method.clone(),
            client: peer.address,
            is_tls: peer.is_tls,
            has_ended: false,
        }
    }

    /// Returns the ids that every log line about the request carries.
    pub(in crate::roles::gateway) fn log_context(&self) -> Arc<LogContext> {
        Arc::new(LogContext {
            request_id: Arc::clone(self.request_id.shared()),
            traceparent: Arc::clone(self.trace.traceparent()),
        })
    }

    /// Ends the current phase and begins the next. During the dispatch the phase is `None`, because
    /// the durations of its phases are known only afterwards.
    pub(in crate::roles::gateway) fn enter(&mut self, phase: Option<RequestPhase>) {
        let now = Instant::now();
        if let Some(phase) = std::mem::replace(&mut self.current_phase, phase) {
            self.phases.set(phase, now.saturating_duration_since(self.phase_started_at));
        }
        self.phase_started_at = now;
    }

    pub(in crate::roles::gateway) fn authenticated(&mut self, principal: &Arc<str>) {
        self.principal = Some(Arc::clone(principal));
        self.trace.on_authenticated();
    }

    pub(in crate::roles::gateway) fn dispatched(&mut self, result: &SessionSummary) {
        self.attempts = result.attempts;
        self.phases.set(RequestPhase::QueueWait, result.queue_wait);
        if let SessionEnd::Answer(answer) = &result.end {
            self.phases.split(result.exchange_time, answer.phases);
        } else if !result.exchange_time.is_zero() {
            self.phases.split(result.exchange_time, None);
        }
        self.enter(Some(RequestPhase::Response));
    }

    /// Returns the durations of the phases so far, if the caller may see them.
    pub(in crate::roles::gateway) fn server_timing(&mut self) -> Option<HeaderValue> {
        self.enter(None);
        if self.shows_timing { self.phases.server_timing(self.started_at.elapsed()) } else { None }
    }

    /// Returns whether the call's transaction is rolled back.
    pub(in crate::roles::gateway) fn is_dry_run(&self) -> bool {
        self.transaction_end == Some(TransactionEnd::Rollback)
    }

    /// Returns the queue to which the request was assigned.
    fn queue(&self) -> Option<&QueueName> {
        let endpoint = self.endpoint.as_ref()?;
        self.queue.map(|index| &endpoint.queues.get(index).name)
    }

    /// Returns the queue to which the request was assigned, if the endpoint has several. With a single queue, the endpoint
    /// already determines it.
    fn chosen_queue(&self) -> Option<&QueueName> {
        self.queue().filter(|_| self.endpoint.as_ref().is_some_and(|it| it.queues.has_several()))
    }

    /// Ends the request with its response's status, and writes the access line, metrics and
    /// span.
    pub(in crate::roles::gateway) fn end(&mut self, status: StatusCode) {
        self.has_ended = true;
        self.enter(None);
        self.phases.record();
        let phase = |phase| self.phases.millis(phase);
        let duration = self.started_at.elapsed();
        let id = self.endpoint.as_ref().map(|endpoint| &endpoint.id);
        request_metrics::record((id, self.queue()), status, self.outcome, duration);
        let endpoint = id.map_or("none", |id| id.as_str());
        let refused = self.refused.as_deref();
        let presented = refused.map(|refused| &refused.presented);
        tracing::info!(
            target: "fjord::access",
            request_id = %self.request_id,
            trace_id = self.trace.trace_id(),
            endpoint,
            queue = self.chosen_queue().map(QueueName::as_str),
            method = %self.method,
            status = status.as_u16(),
            outcome = self.outcome.as_str(),
            attempts = self.attempts,
            reused = self.answer_source.as_str(),
            dry_run = self.is_dry_run().then_some(true),
            principal = self.principal.as_deref(),
            client = %ClientAddress(self.client),
            auth_failure = refused.map(|refused| refused.failure.as_str()),
            auth_method = presented.and_then(|it| it.method).map(AuthMethod::as_str),
            auth_issuer = presented.and_then(|it| it.issuer.as_deref()),
            auth_key = presented.and_then(|it| it.key.as_deref()),
            duration_ms = millis(duration),
            auth_ms = phase(RequestPhase::Auth),
            parameters_ms = phase(RequestPhase::Parameters),
            queue_wait_ms = phase(RequestPhase::QueueWait),
            nats_ms = phase(RequestPhase::Nats),
            worker_ms = phase(RequestPhase::Worker),
            pool_wait_ms = phase(RequestPhase::PoolWait),
            sql_ms = phase(RequestPhase::Sql),
            response_ms = phase(RequestPhase::Response),
            "request"
        );
        self.end_span(status);
    }
}

impl Drop for RequestLog {
    /// Ends a request that is dropped early, by the HTTP server after a disconnect or by a panic.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (outcome, status) = if std::thread::panicking() {
            (Outcome::Panic, StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            (Outcome::ClientGone, CLIENT_GONE)
        };
        self.outcome = outcome;
        self.end(status);
    }
}
