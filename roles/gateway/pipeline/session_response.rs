//! Turns the end of a session into the response and outcome of its request.

use std::mem;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::catalogue::{Endpoint, Execution, ResponseHeader};
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::conditions::{self, ConditionKind};

use crate::roles::gateway::admission::prefer;
use crate::roles::gateway::admission::prefer::PREFERENCE_APPLIED;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::roles::gateway::dispatch::{DispatchFailure, SessionSummary};
use crate::roles::gateway::observation::request_log::RequestLog;
use crate::roles::gateway::response;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::{ResponseBody, StreamedBody};

use super::conditional;
use super::negotiation::NegotiatedRequest;
use super::rejection::Rejection;
use crate::envelope::AnswerHead;

/// Logged when the first response is truncated. Each truncated response also has a line in the access log.
const TRUNCATED: ConditionKind = ConditionKind::new("responses are truncated");

/// Logged when answers with invalid headers begin to arrive. Each affected request also has a line in the access log.
const INVALID_HEADERS: ConditionKind = ConditionKind::new("workers send invalid response headers");

/// Returns the response to a request whose session ended before anything was sent to the client.
pub(super) fn complete(
    mut result: SessionSummary,
    request: &NegotiatedRequest<'_>,
    log: &mut RequestLog,
) -> Result<Response, Box<Rejection>> {
    let endpoint = request.endpoint;
    let reservation = result.reservation.take();
    let mut answer = match result.into_answer() {
        Ok(answer) => answer,
        Err(DispatchFailure { problem, outcome }) => {
            return Err(Box::new(Rejection { outcome: Some(outcome), ..problem.into() }));
        }
    };
    log.outcome = answer.outcome;
    let applied = prefer::applied(log.transaction_end, &answer, endpoint)?;
    if answer.status < 300 && !answer.body.is_empty() {
        request.check_media_type(&answer.content_type).map_err(|it| invalid_reply(it, endpoint))?;
    }
    let headers = mem::take(&mut answer.headers);
    let response = response::from_final(answer);
    let mut response = response.map_err(|problem| invalid_reply(problem, endpoint))?;
    set_endpoint_headers(&mut response, endpoint);
    forward_headers(headers, endpoint, &mut response)
        .map_err(|problem| invalid_reply(problem, endpoint))?;
    let is_minimal = request.preferences.is_minimal && response.status().is_success();
    if is_minimal {
        discard_content(&mut response);
    }
    if let Some(applied) = prefer::header_value(applied, is_minimal) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    let mut response = conditional::evaluate(request.parts, endpoint, response)?;
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
    request: &NegotiatedRequest<'_>,
) -> Result<Response, Problem> {
    let endpoint = request.endpoint;
    if head.status < 300 {
        request.check_media_type(&head.content_type).map_err(|it| invalid_reply(it, endpoint))?;
    }
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

/// Removes the content of an answer to `Prefer: return=minimal` (RFC 7240 §4.2). Statuses other
/// than 200, such as 201, tell the client something that 204 would not.
fn discard_content(response: &mut Response) {
    *response.body_mut() = ResponseBody::default();
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().remove(header::CONTENT_DISPOSITION);
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
}

/// Forwards those headers of an answer that the endpoint declares. A worker is not trusted to have checked their
/// values.
fn forward_headers(
    headers: Vec<(ResponseHeader, String)>,
    endpoint: &Endpoint,
    response: &mut Response,
) -> Result<(), Problem> {
    if response.status().as_u16() >= 400 {
        return Ok(());
    }
    for (header, value) in headers {
        if !endpoint.has_header(header) {
            continue;
        }
        let checked = header.check(&value);
        let (Ok(()), Ok(value)) = (checked, HeaderValue::try_from(value)) else {
            if conditions::raise(&INVALID_HEADERS, endpoint.id.as_str()) {
                let (header, expected) = (header.as_str(), checked.err());
                tracing::warn!(endpoint = %endpoint.id, header, expected, "a worker sent an invalid response header");
            }
            return Err(Problem::new(ProblemKind::BadAnswer));
        };
        response.headers_mut().insert(HeaderName::from_static(header.lower_case()), value);
    }
    Ok(())
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
        // RFC 9745 requires a date, but the catalogue has none. The date 1970 means "already deprecated".
        headers.insert("deprecation", HeaderValue::from_static("@0"));
    }
}
