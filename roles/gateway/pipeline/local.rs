//! Answers requests for `fjord test`, without a connection, authentication or NATS. All other steps are those of
//! `Pipeline`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::request::Parts;

use crate::catalogue::{Catalogue, Endpoint};
use crate::envelope::{Final, Request as Envelope};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::admission::router::{RouteLookup, Router};
use crate::roles::gateway::client::caller::{Caller, Peer};
use crate::roles::gateway::dispatch::SessionSummary;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response::{self, RequestId, Response, ResponseContext};

use super::negotiation::NegotiatedRequest;
use super::rejection::Rejection;
use super::{MatchedRequest, session_response, vary_by_accept};

/// The routes of a catalogue.
#[derive(Debug)]
pub struct LocalGateway {
    router: Router,
}

impl LocalGateway {
    /// Creates the routes.
    ///
    /// # Errors
    /// A line for each route that conflicts with another. A loaded catalogue has no conflicts.
    pub fn new(catalogue: &Catalogue) -> Result<Self, Vec<String>> {
        Ok(Self { router: Router::new(catalogue)? })
    }

    /// Answers a caller's request. `execute` returns a worker's answer.
    pub async fn respond<E, F>(
        &self,
        request: http::Request<Bytes>,
        caller: Caller,
        execute: E,
    ) -> http::Response<Bytes>
    where
        E: FnOnce(Arc<Endpoint>, Envelope) -> F,
        F: Future<Output = Final>,
    {
        let (parts, body) = request.into_parts();
        let peer = Peer::new(Ipv4Addr::LOCALHOST.into(), true);
        let mut log = RequestLog::begin(&parts, &peer, RequestId::from_headers(&parts.headers));
        let answered = self.answer((&parts, &body), (&caller, &peer), execute, &mut log).await;
        let mut response =
            answered.unwrap_or_else(|rejection: Box<Rejection>| rejection.into_response(&mut log));
        vary_by_accept(&log, response.headers_mut());
        log.end(response.status());
        let context = ResponseContext {
            request_id: log.request_id.clone(),
            method: parts.method,
            version: Version::HTTP_11,
            is_tls: true,
        };
        // The body is complete, because the request has no window for parts.
        response::finish(response, &context).map(|body| body.into_whole().unwrap_or_default())
    }

    async fn answer<E, F>(
        &self,
        (parts, body): (&Parts, &Bytes),
        (caller, peer): (&Caller, &Peer),
        execute: E,
        log: &mut RequestLog,
    ) -> Result<Response, Box<Rejection>>
    where
        E: FnOnce(Arc<Endpoint>, Envelope) -> F,
        F: Future<Output = Final>,
    {
        let matched = match self.router.find(&parts.method, parts.uri.path()) {
            RouteLookup::Matched(matched) => matched,
            RouteLookup::Malformed(problem) => return Err(problem.into()),
            RouteLookup::NotFound => return Err(Problem::new(ProblemKind::NoRoute).into()),
            RouteLookup::Options { allow } | RouteLookup::MethodNotAllowed { allow } => {
                let problem = Problem::new(ProblemKind::MethodNotAllowed);
                return Err(Box::new(Rejection { allow: Some(allow), ..problem.into() }));
            }
        };
        let endpoint = &matched.endpoint;
        log.endpoint = Some(Arc::clone(endpoint));
        let negotiated = NegotiatedRequest::new(parts, endpoint)?;
        log.transaction_end = negotiated.preferences.transaction_end;
        if body.len() > endpoint.body_bytes_max {
            return Err(Problem::new(ProblemKind::BodyTooLarge).into());
        }
        let request = MatchedRequest { parts, matched: &matched, body };
        let mut envelope = request.envelope(caller, peer, log)?;
        envelope.accept = negotiated.accept();
        envelope.timeout = endpoint.session;
        let answer = execute(Arc::clone(endpoint), envelope).await;
        let summary = SessionSummary {
            end: SessionEnd::Answer(answer),
            retry_after: None,
            queue_wait: Duration::ZERO,
            exchange_time: Duration::ZERO,
            attempts: 1,
            reservation: None,
        };
        session_response::complete(summary, &negotiated, log)
    }
}
