//! Runs one call for `fjord call`, with a gateway's sessions, claims, offers and deadlines.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint_call::{EndpointCall, EndpointCallResult};
use crate::future::BoxFuture;
use crate::lifecycle::Tasks;
use crate::messaging::TransportError;

use super::client::byte_budget::ByteBudget;
use super::client::{CallerKey, CallerPermit, ClientNetwork};
use super::dispatch::session::SessionEnd;
use super::dispatch::{AnswerReservation, DispatchRequest, Dispatcher};
use super::observation::phases::{RequestPhase, RequestPhases};

/// The time limit for sending the messages at the end of a call.
const LAST_MESSAGES_LIMIT: Duration = Duration::from_secs(2);

/// Dispatches one call and waits for its answer. Ctrl-C has the same effect as a client's
/// disconnect: a granted call with `on_disconnect = finish` continues, and its answer is returned
/// if it arrives soon.
///
/// # Errors
/// `TransportError` if the subscription to replies fails.
pub fn execute(
    call: EndpointCall,
) -> BoxFuture<'static, Result<EndpointCallResult, TransportError>> {
    Box::pin(async move {
        let EndpointCall { endpoint, request, config, transport } = call;
        let tasks = Tasks::new();
        let queue = &endpoint.queues.get(endpoint.queues.choose(request.key().as_ref())).name;
        let queues = std::slice::from_ref(queue);
        let dispatcher = Dispatcher::start(&config, queues, transport, &tasks).await?;
        let started_at = Instant::now();
        let client = ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0);
        let reservation =
            AnswerReservation::new(true, ByteBudget::unbounded().empty_reservation(client));
        let permit = CallerPermit::uncounted(CallerKey::new(None, client));
        let request = DispatchRequest { envelope: request, reservation, permit };
        let interrupted = async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // The request has no window, so its answer is never streamed.
        let result = dispatcher.dispatch_until((&endpoint, queue), request, interrupted).await;
        let duration = started_at.elapsed();
        // A worker must be answered even if its claim or offer came too late.
        let _all_ended = tasks.wait(LAST_MESSAGES_LIMIT).await;
        let mut phases = RequestPhases::default();
        phases.set(RequestPhase::QueueWait, result.queue_wait);
        if let SessionEnd::Answer(answer) = &result.end {
            phases.split(result.exchange_time, answer.phases);
        }
        let attempts = result.attempts;
        let answer = result.into_answer().map_err(|failure| failure.problem);
        let phases = phases.passed().collect();
        let queue = queue.clone();
        Ok(EndpointCallResult { answer, queue, attempts, duration, phases })
    })
}
