//! Runs one call for `fjord call`, with a gateway's sessions, claims, offers and deadlines.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint_call::{EndpointCall, EndpointCallResult};
use crate::future::BoxFuture;
use crate::lifecycle::Tasks;
use crate::messaging::TransportError;
use crate::problem::{Problem, ProblemKind};

use super::client::ClientNetwork;
use super::client::byte_budget::ByteBudget;
use super::dispatch::session::SessionEnd;
use super::dispatch::{AnswerMemory, Dispatched, Dispatcher};
use super::observation::phases::{RequestPhase, RequestPhases};

/// How long an interrupted call may take to send its cancel to the worker.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// Dispatches one call and waits for its answer. Ctrl-C has the effect of a client's disconnect.
///
/// # Errors
/// `TransportError` if the subscription to replies fails.
pub fn execute(
    call: EndpointCall,
) -> BoxFuture<'static, Result<EndpointCallResult, TransportError>> {
    Box::pin(async move {
        let EndpointCall { endpoint, request, config, transport } = call;
        let tasks = Tasks::new();
        let queues = std::slice::from_ref(&endpoint.queue);
        let dispatcher = Dispatcher::start(&config, queues, transport, &tasks).await?;
        let started_at = Instant::now();
        let client = ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0);
        let memory = AnswerMemory::new(true, ByteBudget::unbounded().nothing(client));
        let completed = tokio::select! {
            answer = dispatcher.dispatch(&endpoint, request, memory) => Some(answer),
            _ = tokio::signal::ctrl_c() => None,
        };
        // The request has no window, so its answer never streams.
        let Some(Dispatched::Complete(result)) = completed else {
            let _all_ended = tasks.wait(CANCEL_LIMIT).await;
            let answer = Err(Problem::new(ProblemKind::Cancelled));
            let (duration, phases) = (started_at.elapsed(), Vec::new());
            return Ok(EndpointCallResult { answer, attempts: 0, duration, phases });
        };
        let mut phases = RequestPhases::default();
        phases.set(RequestPhase::QueueWait, result.queue_wait);
        if let SessionEnd::Answer(answer) = &result.end {
            phases.split(result.exchange, answer.phases);
        }
        let attempts = result.attempts;
        let answer = result.into_answer().map_err(|failure| failure.problem);
        let (duration, phases) = (started_at.elapsed(), phases.passed().collect());
        Ok(EndpointCallResult { answer, attempts, duration, phases })
    })
}
