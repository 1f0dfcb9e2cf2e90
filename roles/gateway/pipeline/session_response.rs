//! Turns the end of a session into the response and outcome of its request.

use http::request::Parts;
use http::{HeaderValue, header};

use crate::catalogue::{Endpoint, Execution};
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::conditions::{self, Condition};

use crate::roles::gateway::admission::prefer;
use crate::roles::gateway::admission::prefer::PREFERENCE_APPLIED;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::roles::gateway::dispatch::{DispatchFailure, SessionSummary};
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::StreamedBody;

use super::conditional;
use super::rejection::Rejection;
use crate::envelope::AnswerHead;

/// Logged when responses begin to be truncated. Each of them also has an access line.
const TRUNCATED: Condition = Condition::new("responses are truncated");

/// Returns the response to a request whose session ended before anything was sent to the client.
pub(super) fn complete(
    mut result: SessionSummary,
    endpoint: &Endpoint,
    request: &Parts,
    log: &mut RequestLog,
) -> Result<Response, Box<Rejection>> {
    let reservation = result.reservation.take();
    let answer = match result.into_answer() {
        Ok(answer) => answer,
        Err(DispatchFailure { problem, outcome }) => {
            return Err(Box::new(Rejection { outcome: Some(outcome), ..problem.into() }));
        }
    };
    log.outcome = answer.outcome;
    let applied = prefer::applied(log.transaction_end, &answer, endpoint)?;
    let response = response::from_final(answer);
    let mut response = response.map_err(|problem| invalid_reply(problem, endpoint))?;
    set_endpoint_headers(&mut response, endpoint);
    if let Some(applied) = applied {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    let mut response = conditional::evaluate(request, endpoint, response)?;
    if let Some(reservation) = &reservation {
        response::attach_reservation(&mut response, reservation);
    }
    Ok(response)
}

/// Returns the response to a request whose session streams its answer. `Preference-Applied` is left
/// out, because its value is known only at the end of the session.
pub(super) fn streamed(
    head: &AnswerHead,
    body: StreamedBody,
    endpoint: &Endpoint,
) -> Result<Response, Problem> {
    let response = response::from_head(head, body);
    let mut response = response.map_err(|problem| invalid_reply(problem, endpoint))?;
    set_endpoint_headers(&mut response, endpoint);
    Ok(response)
}

/// Returns the outcome of a request whose answer was streamed, and logs a truncated response.
pub(super) fn streamed_outcome(end: &SessionEnd) -> Outcome {
    if let SessionEnd::CutOff(outcome) = end
        && conditions::raise(&TRUNCATED, outcome.as_str())
    {
        tracing::warn!(%outcome, "truncated a response: the rest was not received");
    }
    end.outcome()
}

/// Returns the problem for a reply that was received but cannot be forwarded. An at-most-once
/// request was granted and may have been executed.
fn invalid_reply(problem: Problem, endpoint: &Endpoint) -> Problem {
    match endpoint.execution {
        Execution::AtMostOnce => Problem::new(ProblemKind::BadAnswerOutcomeUnknown),
        Execution::AtLeastOnce => problem,
    }
}

/// Sets the headers that an endpoint declares for successful responses.
fn set_endpoint_headers(response: &mut Response, endpoint: &Endpoint) {
    if !response.status().is_success() {
        return;
    }
    let headers = response.headers_mut();
    if let Some(value) = &endpoint.cache_control
        && let Ok(value) = HeaderValue::try_from(value)
    {
        headers.insert(header::CACHE_CONTROL, value);
    }
    if endpoint.deprecated {
        // RFC 9745 requires a date and the catalogue has none; 1970 means "already deprecated".
        headers.insert("deprecation", HeaderValue::from_static("@0"));
    }
}
