//! Turns the ending of a session into the response and the outcome of its request.

use http::{HeaderValue, header};

use crate::catalogue::{Endpoint, Execution};
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::conditions::{self, Condition};

use crate::roles::gateway::admission::prefer;
use crate::roles::gateway::admission::prefer::PREFERENCE_APPLIED;
use crate::roles::gateway::dispatch::place::Placed;
use crate::roles::gateway::dispatch::session::Ending;
use crate::roles::gateway::observation::trip::Trip;
use crate::roles::gateway::response;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::StreamedBody;

use super::rejection::Rejection;
use crate::envelope::AnswerHead;

/// Each truncated response has an access line as well.
const TRUNCATED: Condition = Condition::new("responses are truncated");

/// Returns the response to a request whose session has ended before anything was sent to the client.
pub(super) fn ended(
    placed: Placed,
    endpoint: &Endpoint,
    trip: &mut Trip,
) -> Result<Response, Box<Rejection>> {
    match placed.ending {
        Ending::Final(answer) => {
            trip.outcome = answer.outcome;
            let applied = prefer::applied(trip.transaction_end, &answer, endpoint)?;
            let response = response::from_final(answer);
            let mut response = response.map_err(|problem| invalid_reply(problem, endpoint))?;
            set_endpoint_headers(&mut response, endpoint);
            if let Some(applied) = applied {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
            if let Some(reservation) = &placed.room {
                response::attach_reservation(&mut response, reservation);
            }
            Ok(response)
        }
        Ending::Cut(outcome) => {
            let problem = Problem::new(ProblemKind::BadAnswer);
            Err(Box::new(Rejection { outcome: Some(outcome), ..problem.into() }))
        }
        Ending::Problem(kind) => {
            let problem = Problem { retry_after: placed.retry_after, ..Problem::new(kind) };
            Err(problem.into())
        }
        // The response is never sent: hyper has dropped this future, or is about to.
        Ending::ClientGone => {
            let problem = Problem::new(ProblemKind::Cancelled);
            Err(Box::new(Rejection { outcome: Some(Word::ClientGone), ..problem.into() }))
        }
    }
}

/// Returns the response to a request whose session streams its answer. `Preference-Applied` is left out, because only the end
/// of the session would tell it.
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

/// Returns the outcome of a request whose answer was streamed.
pub(super) fn streamed_outcome(ending: &Ending) -> Word {
    match ending {
        Ending::Final(answer) => answer.outcome,
        Ending::Cut(outcome) => {
            if conditions::begins(&TRUNCATED, outcome.as_str()) {
                tracing::warn!(%outcome, "truncated a response: its rest was not received");
            }
            *outcome
        }
        Ending::Problem(kind) => kind.outcome(),
        Ending::ClientGone => Word::ClientGone,
    }
}

/// Returns the problem for a reply that was received but cannot be forwarded. An at-most-once request was granted, and executed.
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
        // RFC 9745 requires a date, which the catalogue does not have. 1970 is in the past.
        headers.insert("deprecation", HeaderValue::from_static("@0"));
    }
}
