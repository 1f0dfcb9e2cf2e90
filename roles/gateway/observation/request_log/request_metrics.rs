//! The metrics of requests, looked up once per thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::catalogue::{EndpointId, QueueName};
use crate::outcome::Outcome;
use crate::telemetry::{Counter, Histogram, LabelValue, counter, histogram, names};

/// The label of requests without an endpoint.
const NONE: &str = "none";

/// The metrics of an endpoint's requests that were assigned to one queue, or that were answered before they were
/// assigned to a queue.
struct QueueRequests {
    queue: Option<QueueName>,
    duration: Histogram,
    /// One counter for each combination of status and outcome that has occurred. There are few such combinations.
    requests: Vec<RequestCounter>,
}

struct RequestCounter {
    status: StatusCode,
    outcome: Outcome,
    counter: Counter,
}

/// The metrics of each endpoint in a catalogue.
#[derive(Default)]
struct CatalogueMetrics {
    /// The number of catalogues loaded before this one.
    catalogue: u64,
    /// One entry for each queue of an endpoint. An endpoint has few queues.
    endpoints: HashMap<EndpointId, Vec<QueueRequests>>,
}

/// The number of catalogues that a reload has replaced.
static CATALOGUE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The metrics of each endpoint. The catalogue limits their number.
    static METRICS: RefCell<CatalogueMetrics> = RefCell::default();
}

/// Lets every thread forget the endpoints in the old catalogue, some of which may have been
/// removed.
pub(in crate::roles::gateway) fn forget_endpoints() {
    CATALOGUE.fetch_add(1, Ordering::Relaxed);
}

/// Counts a request to an endpoint and records its duration. `queue` is the queue to which it was assigned.
pub(super) fn record(
    (endpoint, queue): (Option<&EndpointId>, Option<&QueueName>),
    status: StatusCode,
    outcome: Outcome,
    duration: Duration,
) {
    let Some(id) = endpoint else {
        count(NONE, status, outcome);
        return duration_histogram((NONE, None)).record(duration.as_secs_f64());
    };
    METRICS.with_borrow_mut(|all| {
        let catalogue = CATALOGUE.load(Ordering::Relaxed);
        if all.catalogue != catalogue {
            *all = CatalogueMetrics { catalogue, ..CatalogueMetrics::default() };
        }
        if let Some(queues) = all.endpoints.get_mut(id) {
            return record_in(queues, (id, queue), (status, outcome), duration);
        }
        let queues = all.endpoints.entry(id.clone()).or_default();
        record_in(queues, (id, queue), (status, outcome), duration);
    });
}

fn record_in(
    queues: &mut Vec<QueueRequests>,
    (id, queue): (&EndpointId, Option<&QueueName>),
    result: (StatusCode, Outcome),
    duration: Duration,
) {
    if let Some(known) = queues.iter_mut().find(|known| known.queue.as_ref() == queue) {
        return known.record(id, result, duration);
    }
    let mut new = QueueRequests::new((id, queue));
    new.record(id, result, duration);
    queues.push(new);
}

impl QueueRequests {
    fn new((id, queue): (&EndpointId, Option<&QueueName>)) -> Self {
        let duration = duration_histogram((id.as_str(), queue));
        Self { queue: queue.cloned(), duration, requests: Vec::new() }
    }

    fn record(
        &mut self,
        id: &EndpointId,
        (status, outcome): (StatusCode, Outcome),
        duration: Duration,
    ) {
        self.duration.record(duration.as_secs_f64());
        let is_same = |known: &&RequestCounter| known.status == status && known.outcome == outcome;
        if let Some(known) = self.requests.iter().find(is_same) {
            return known.counter.increment(1);
        }
        let counter = request_counter((id.as_str(), self.queue.as_ref()), status, outcome);
        counter.increment(1);
        self.requests.push(RequestCounter { status, outcome, counter });
    }
}

/// Counts a request that was not assigned to a queue. `endpoint` is the id of an endpoint in the catalogue, or `none`.
pub(in crate::roles::gateway) fn count(endpoint: &str, status: StatusCode, outcome: Outcome) {
    request_counter((endpoint, None), status, outcome).increment(1);
}

fn request_counter(
    of: (&str, Option<&QueueName>),
    status: StatusCode,
    outcome: Outcome,
) -> Counter {
    let mut labels = labels(of);
    labels.push((names::STATUS, status.as_str().to_owned()));
    labels.push((names::OUTCOME, outcome.as_str().to_owned()));
    counter(&names::GATEWAY_REQUESTS, &labels)
}

fn duration_histogram(of: (&str, Option<&QueueName>)) -> Histogram {
    histogram(&names::GATEWAY_REQUEST_DURATION, &labels(of))
}

/// Returns the labels for an endpoint and a queue. Without a queue, the label of the queue is omitted. Prometheus
/// treats a missing label like an empty one.
fn labels((endpoint, queue): (&str, Option<&QueueName>)) -> Vec<LabelValue> {
    let queue = queue.map(|queue| (names::QUEUE, queue.to_string()));
    [(names::ENDPOINT, endpoint.to_owned())].into_iter().chain(queue).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_of_an_old_catalogue_are_forgotten() {
        let record_of = |id: &str| {
            let id = EndpointId::new(id).unwrap();
            record((Some(&id), None), StatusCode::OK, Outcome::Ok, Duration::ZERO);
            METRICS.with_borrow(|all| all.endpoints.len())
        };
        assert_eq!((record_of("old"), record_of("kept")), (1, 2));
        forget_endpoints();
        assert_eq!(record_of("kept"), 1);
    }
}
