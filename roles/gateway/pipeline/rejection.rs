//! The response to a request that the gateway itself answers with a problem document.

use http::{HeaderValue, header};

use crate::outcome::Outcome;
use crate::problem::Problem;
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response;
use crate::roles::gateway::response::CloseReason;
use crate::roles::gateway::response::Response;

/// A request that ends with a problem document.
pub(super) struct Rejection {
    pub(super) problem: Problem,
    /// The value of `Allow`.
    pub(super) allow: Option<String>,
    /// The value of `WWW-Authenticate`.
    pub(super) challenge: Option<HeaderValue>,
    /// The outcome in logs and metrics, if it differs from the problem's.
    pub(super) outcome: Option<Outcome>,
    /// The reason why the connection is closed after the response, or `None` if it stays open.
    pub(super) close: Option<CloseReason>,
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self { problem, allow: None, challenge: None, outcome: None, close: None }
    }
}

impl From<Problem> for Box<Rejection> {
    fn from(problem: Problem) -> Self {
        Box::new(problem.into())
    }
}

impl Rejection {
    pub(super) fn into_response(self, log: &mut RequestLog) -> Response {
        log.outcome = self.outcome.unwrap_or_else(|| self.problem.kind.outcome());
        let mut response = response::problem(&self.problem, &log.request_id);
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if let Some(reason) = self.close {
            reason.mark(&mut response);
        }
        match self.challenge {
            Some(challenge) => response::with_challenge(response, challenge),
            None => response,
        }
    }
}
