//! The result of a call that several requests share.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::problem::{self, PROBLEM_JSON, ProblemKind};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::roles::gateway::dispatch::{DispatchResult, SessionSummary};

/// The result of a call, without the parts that belong to a single request.
#[derive(Clone, Debug)]
pub(super) struct CompletedCall {
    pub(super) end: SessionEnd,
    retry_after: Option<Duration>,
    queue_wait: Duration,
    exchange_time: Duration,
    attempts: u32,
}

impl CompletedCall {
    /// Returns the result of a session. A streamed answer cannot be shared, and is never requested.
    pub(super) fn new(result: DispatchResult) -> Self {
        match result {
            DispatchResult::Complete(summary) => {
                let SessionSummary {
                    end, retry_after, queue_wait, exchange_time, attempts, ..
                } = summary;
                Self { end, retry_after, queue_wait, exchange_time, attempts }
            }
            DispatchResult::Streaming(_) => Self::failed(),
        }
    }

    /// Returns the result of a call that panicked.
    pub(super) fn failed() -> Self {
        Self::with_end(SessionEnd::Problem(ProblemKind::Internal))
    }

    /// Returns a result for which no call was made, such as a stored answer.
    pub(super) fn with_end(end: SessionEnd) -> Self {
        let (queue_wait, exchange_time) = (Duration::ZERO, Duration::ZERO);
        Self { end, retry_after: None, queue_wait, exchange_time, attempts: 0 }
    }

    /// Returns the summary for the request that made the call.
    pub(super) fn summary(&self, reservation: Reservation) -> SessionSummary {
        SessionSummary {
            end: self.end.clone(),
            retry_after: self.retry_after,
            queue_wait: self.queue_wait,
            exchange_time: self.exchange_time,
            attempts: self.attempts,
            reservation: Some(reservation),
        }
    }

    /// Returns the summary for a request that made no call. The phases of the call are recorded only once, for the
    /// request that made it. A problem document names the request that receives it.
    pub(super) fn reused_summary(
        &self,
        request_id: &str,
        reservation: Reservation,
    ) -> SessionSummary {
        let (queue_wait, exchange_time) = (Duration::ZERO, Duration::ZERO);
        let mut summary =
            SessionSummary { queue_wait, exchange_time, attempts: 0, ..self.summary(reservation) };
        if let SessionEnd::Answer(answer) = &mut summary.end {
            answer.phases = None;
            if answer.content_type == PROBLEM_JSON {
                answer.body = for_request(&answer.body, request_id);
            }
        }
        summary
    }
}

/// Returns a worker's problem document, with the id replaced by that of another request.
fn for_request(document: &Bytes, request_id: &str) -> Bytes {
    let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(document) else {
        return document.clone();
    };
    members.insert("request_id".to_owned(), request_id.into());
    members.insert("instance".to_owned(), problem::instance(request_id).into());
    serde_json::to_vec(&members).map_or_else(|_| document.clone(), Bytes::from)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::envelope::Final;
    use crate::outcome::Outcome;

    /// Returns a call with an answer.
    pub(in super::super) fn answered(body: &'static str) -> CompletedCall {
        let body = Bytes::from_static(body.as_bytes());
        let answer = Final::whole(200, "text/plain", body, Outcome::Ok);
        CompletedCall::with_end(SessionEnd::Answer(answer))
    }
}
