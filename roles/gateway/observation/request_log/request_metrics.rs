//! The metrics of requests, looked up once per thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::catalogue::{EndpointId, QueueName};
use crate::outcome::Outcome;
use crate::telemetry::{Counter, Histogram, counter, histogram, names};

/// The label of requests without an endpoint.
const NONE: &str = "none";

/// The metrics of one endpoint.
struct EndpointMetrics {
    duration: Histogram,
    /// One counter for each combination of status and outcome that has occurred; there are few.
    requests: Vec<RequestCounter>,
    /// The same by queue, if the endpoint has several.
    by_queue: Vec<RequestCounter>,
}

struct RequestCounter {
    queue: Option<QueueName>,
    status: StatusCode,
    outcome: Outcome,
    counter: Counter,
}

/// The metrics of each endpoint in a catalogue.
#[derive(Default)]
struct CatalogueMetrics {
    /// The number of catalogues loaded before this one.
    catalogue: u64,
    endpoints: HashMap<EndpointId, EndpointMetrics>,
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

/// Counts a request to an endpoint and records its duration. `queue` is the queue to which it was assigned, if the endpoint has
/// several.
pub(super) fn record(
    (endpoint, queue): (Option<&EndpointId>, Option<&QueueName>),
    status: StatusCode,
    outcome: Outcome,
    duration: Duration,
) {
    let Some(id) = endpoint else {
        count(NONE, status, outcome);
        return duration_histogram(NONE).record(duration.as_secs_f64());
    };
    METRICS.with_borrow_mut(|all| {
        let catalogue = CATALOGUE.load(Ordering::Relaxed);
        if all.catalogue != catalogue {
            *all = CatalogueMetrics { catalogue, ..CatalogueMetrics::default() };
        }
        if let Some(metrics) = all.endpoints.get_mut(id) {
            return metrics.record((id, queue), status, outcome, duration);
        }
        let new = all.endpoints.entry(id.clone()).or_insert_with(|| EndpointMetrics::new(id));
        new.record((id, queue), status, outcome, duration);
    });
}

impl EndpointMetrics {
    fn new(id: &EndpointId) -> Self {
        let duration = duration_histogram(id.as_str());
        Self { duration, requests: Vec::new(), by_queue: Vec::new() }
    }

    fn record(
        &mut self,
        (id, queue): (&EndpointId, Option<&QueueName>),
        status: StatusCode,
        outcome: Outcome,
        duration: Duration,
    ) {
        self.duration.record(duration.as_secs_f64());
        let new = || request_counter(id.as_str(), status, outcome);
        increment(&mut self.requests, (None, status, outcome), new);
        if let Some(queue) = queue {
            let new = || queue_counter((id, queue), status, outcome);
            increment(&mut self.by_queue, (Some(queue), status, outcome), new);
        }
    }
}

/// Increments the counter with these labels, which `new` creates on first use.
fn increment(
    counters: &mut Vec<RequestCounter>,
    (queue, status, outcome): (Option<&QueueName>, StatusCode, Outcome),
    new: impl FnOnce() -> Counter,
) {
    let is_same = |known: &&RequestCounter| {
        known.status == status && known.outcome == outcome && known.queue.as_ref() == queue
    };
    if let Some(known) = counters.iter().find(is_same) {
        return known.counter.increment(1);
    }
    let counter = new();
    counter.increment(1);
    counters.push(RequestCounter { queue: queue.cloned(), status, outcome, counter });
}

/// Counts a request. `endpoint` is the id of an endpoint in the catalogue, or `none`.
pub(in crate::roles::gateway) fn count(endpoint: &str, status: StatusCode, outcome: Outcome) {
    request_counter(endpoint, status, outcome).increment(1);
}

fn request_counter(endpoint: &str, status: StatusCode, outcome: Outcome) -> Counter {
    let labels = [
        (names::ENDPOINT, endpoint.to_owned()),
        (names::STATUS, status.as_str().to_owned()),
        (names::OUTCOME, outcome.as_str().to_owned()),
    ];
    counter(&names::GATEWAY_REQUESTS, &labels)
}

fn queue_counter(
    (endpoint, queue): (&EndpointId, &QueueName),
    status: StatusCode,
    outcome: Outcome,
) -> Counter {
    let labels = [
        (names::ENDPOINT, endpoint.to_string()),
        (names::QUEUE, queue.to_string()),
        (names::STATUS, status.as_str().to_owned()),
        (names::OUTCOME, outcome.as_str().to_owned()),
    ];
    counter(&names::GATEWAY_QUEUE_REQUESTS, &labels)
}

fn duration_histogram(endpoint: &str) -> Histogram {
    histogram(&names::GATEWAY_REQUEST_DURATION, &[(names::ENDPOINT, endpoint.to_owned())])
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
