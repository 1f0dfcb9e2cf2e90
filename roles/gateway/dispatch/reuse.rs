//! Reuses answers: identical concurrent requests share one call, and an answer can be stored for a short time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::config::gateway::HttpLimits;
use crate::envelope::Request;
use crate::roles::gateway::client::CallerPermit;
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::telemetry::{counter, names};

use super::session::SessionEnd;
use super::{AnswerReservation, DispatchRequest, DispatchResult, Dispatcher};

mod answer_cache;
mod coalescer;
mod completed_call;
mod key;

use answer_cache::AnswerCache;
use coalescer::{CoalescedRole, Coalescer, Requester};
use completed_call::CompletedCall;
use key::AnswerKey;

/// Reuses the answers of endpoints that allow it.
#[derive(Debug)]
pub struct AnswerReuse {
    cache: Arc<AnswerCache>,
    coalescer: Arc<Coalescer>,
}

/// A request whose answer can be reused.
#[derive(Debug)]
pub struct ReusableRequest {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The index of the endpoint's queue to which the request was assigned.
    pub queue: usize,
    /// The request for the workers.
    pub envelope: Request,
    /// The memory reserved for the request.
    pub reservation: Reservation,
    /// The permit of the request's caller.
    pub permit: CallerPermit,
    /// Whether the client wants only the headers (HEAD). The answer can come from the cache, but the call is not
    /// shared.
    pub is_head: bool,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerSource {
    /// A call made for this request.
    Call,
    /// The call of an identical request.
    SharedCall,
    /// The cache, where the answer was stored this long ago.
    Cache(Duration),
}

impl AnswerSource {
    /// Returns the name in the access log and in metrics, or `None` for an answer that was not reused.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Call => None,
            Self::SharedCall => Some("shared_call"),
            Self::Cache(_) => Some("cache"),
        }
    }
}

impl AnswerReuse {
    /// Creates an empty cache.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            cache: Arc::new(AnswerCache::new(limits.cached_bytes_max)),
            coalescer: Arc::default(),
        }
    }

    /// Changes the limit and empties the cache, because the catalogue may have changed.
    pub fn reload(&self, limits: &HttpLimits) {
        self.cache.reset(limits.cached_bytes_max);
    }

    /// Returns the answer to a request: from the cache, from the call of an identical request, or from the request's
    /// own call.
    pub async fn dispatch(
        &self,
        dispatcher: &Dispatcher,
        request: ReusableRequest,
    ) -> (DispatchResult, AnswerSource) {
        let ReusableRequest { endpoint, queue, envelope, reservation, permit, is_head } = request;
        let key = AnswerKey::new((&endpoint, queue), &envelope);
        let destination = (&endpoint, &endpoint.queues.get(queue).name);
        let request_id = Arc::clone(&envelope.request_id);
        if let Some((answer, age)) = self.cache.get(&key, Instant::now()) {
            let source = AnswerSource::Cache(age);
            count(&endpoint, source);
            let stored = CompletedCall::with_end(SessionEnd::Answer(answer));
            return (
                DispatchResult::Complete(stored.reused_summary(&request_id, reservation)),
                source,
            );
        }
        if is_head {
            let reservation = AnswerReservation::new(false, reservation);
            let request = DispatchRequest { envelope, reservation, permit };
            let result = dispatcher.dispatch(destination, request).await;
            return (result, AnswerSource::Call);
        }
        let called_at = Instant::now();
        let store = endpoint.cache.ttl.map(|ttl| (Arc::clone(&self.cache), ttl));
        if !endpoint.cache.coalesce {
            let reservation = AnswerReservation::new(true, reservation);
            let request = DispatchRequest { envelope, reservation, permit };
            let result = dispatcher.dispatch(destination, request).await;
            if let (Some((cache, ttl)), DispatchResult::Complete(summary)) = (store, &result) {
                cache.put(key, &summary.end, ttl, (called_at, Instant::now()));
            }
            return (result, AnswerSource::Call);
        }
        let own = AnswerReservation::new(true, reservation.empty_for_same_client());
        // Each request that waits for the call is counted, so the call itself is not.
        let caller = permit.caller();
        let shared = CallerPermit::uncounted(caller);
        let call = {
            let (dispatcher, key) = (dispatcher.clone(), key.clone());
            let endpoint = Arc::clone(&endpoint);
            async move {
                let destination = (&endpoint, &endpoint.queues.get(queue).name);
                let request = DispatchRequest { envelope, reservation: own, permit: shared };
                let call = dispatcher.dispatch(destination, request).await;
                let call = CompletedCall::new(call);
                if let Some((cache, ttl)) = store {
                    cache.put(key, &call.end, ttl, (called_at, Instant::now()));
                }
                call
            }
        };
        let waiters_of = |caller| dispatcher.waiters_of(destination.1, caller);
        let requester = Requester { caller, waiters_of: &waiters_of };
        let call = self.coalescer.call((key, requester), call, dispatcher.tasks());
        let (shared, role) = call.await;
        let shared = shared.unwrap_or_else(|| Arc::new(CompletedCall::failed()));
        let (summary, source) = match role {
            CoalescedRole::Leader => (shared.summary(reservation), AnswerSource::Call),
            CoalescedRole::Follower => {
                (shared.reused_summary(&request_id, reservation), AnswerSource::SharedCall)
            }
        };
        count(&endpoint, source);
        (DispatchResult::Complete(summary), source)
    }
}

fn count(endpoint: &Endpoint, source: AnswerSource) {
    if let Some(source) = source.as_str() {
        let labels =
            [(names::ENDPOINT, endpoint.id.to_string()), (names::RESULT, source.to_owned())];
        counter(&names::GATEWAY_REUSED, &labels).increment(1);
    }
}
