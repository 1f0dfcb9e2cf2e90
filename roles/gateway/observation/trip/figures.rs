//! The figures that every request moves, looked up once by each thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;

use crate::catalogue::EndpointId;
use crate::outcome::Word;
use crate::telemetry::{Counter, Histogram, counter, histogram, names};

/// What requests that were for no endpoint have in its place.
const NONE: &str = "none";

/// The figures of one endpoint.
struct Figures {
    duration: Histogram,
    /// By status and outcome: as many as were met, a handful.
    requests: Vec<((StatusCode, Word), Counter)>,
}

thread_local! {
    /// By endpoint: the catalogue bounds it.
    static KNOWN: RefCell<HashMap<EndpointId, Figures>> = RefCell::default();
}

/// Counts a request of an endpoint, and the time that it took.
pub(super) fn ended(
    endpoint: Option<&EndpointId>,
    status: StatusCode,
    outcome: Word,
    took: Duration,
) {
    let Some(id) = endpoint else {
        count(NONE, status, outcome);
        return duration(NONE).record(took.as_secs_f64());
    };
    KNOWN.with_borrow_mut(|known| {
        if let Some(figures) = known.get_mut(id) {
            return figures.ended(id, status, outcome, took);
        }
        let duration = duration(id.as_str());
        let figures = known.entry(id.clone()).or_insert(Figures { duration, requests: Vec::new() });
        figures.ended(id, status, outcome, took);
    });
}

impl Figures {
    fn ended(&mut self, id: &EndpointId, status: StatusCode, outcome: Word, took: Duration) {
        self.duration.record(took.as_secs_f64());
        let end = (status, outcome);
        if let Some((_, requests)) = self.requests.iter().find(|(of, _)| *of == end) {
            return requests.increment(1);
        }
        let counted = requests(id.as_str(), status, outcome);
        counted.increment(1);
        self.requests.push((end, counted));
    }
}

/// Counts a request. `endpoint` is an id of the catalogue, or `none`.
pub(in crate::roles::gateway) fn count(endpoint: &str, status: StatusCode, outcome: Word) {
    requests(endpoint, status, outcome).increment(1);
}

fn requests(endpoint: &str, status: StatusCode, outcome: Word) -> Counter {
    let labels = [
        (names::ENDPOINT, endpoint.to_owned()),
        (names::STATUS, status.as_str().to_owned()),
        (names::OUTCOME, outcome.as_str().to_owned()),
    ];
    counter(&names::GATEWAY_REQUESTS, &labels)
}

fn duration(endpoint: &str) -> Histogram {
    histogram(&names::GATEWAY_REQUEST_DURATION, &[(names::ENDPOINT, endpoint.to_owned())])
}
