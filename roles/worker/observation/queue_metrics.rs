//! The metrics of a queue: calls, refusals and offers.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::catalogue::QueueName;
use crate::envelope::RefusalReason;
use crate::outcome::Outcome;
use crate::telemetry::names::Metric;
use crate::telemetry::{Counter, Gauge, Histogram, counter, gauge, histogram, names};

/// The gauges that have a series for each queue.
pub const GAUGES: [Metric; 8] = [
    names::WORKER_LIMIT,
    names::WORKER_RUNNING,
    names::WORKER_WAITING,
    names::WORKER_OFFERED,
    names::WORKER_UTILIZATION,
    names::WORKER_ROUND_TRIP,
    names::WORKER_QUEUE_READY,
    names::WORKER_QUEUE_PAUSED,
];

/// The metrics of one queue. The metrics that every call updates are looked up once.
pub struct QueueMetrics {
    queue: String,
    duration: Histogram,
    calls_ok: Counter,
    paused: Gauge,
    /// The outcome of the last failed call.
    last_failure: Mutex<Option<Outcome>>,
}

impl fmt::Debug for QueueMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueMetrics").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl QueueMetrics {
    /// Looks up the metrics of a queue.
    #[must_use]
    pub fn new(name: &QueueName) -> Self {
        let label = [(names::QUEUE, name.to_string())];
        let duration = histogram(&names::WORKER_CALL_DURATION, &label);
        let calls_ok = calls(name.as_str(), Outcome::Ok);
        // The counter is exported as zero from the start, so that rates include the first calls.
        calls_ok.increment(0);
        let paused = gauge(&names::WORKER_QUEUE_PAUSED, &label);
        paused.set(0.0);
        let (queue, last_failure) = (name.to_string(), Mutex::default());
        Self { queue, duration, calls_ok, paused, last_failure }
    }

    /// Records whether an operator has paused the queue.
    pub fn set_paused(&self, is_paused: bool) {
        self.paused.set(if is_paused { 1.0 } else { 0.0 });
    }

    /// Records a call that has ended.
    pub fn record_call(&self, outcome: Outcome, took: Duration) {
        self.duration.record(took.as_secs_f64());
        if outcome == Outcome::Ok {
            self.calls_ok.increment(1);
        } else {
            calls(&self.queue, outcome).increment(1);
        }
        if outcome.is_failure() {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }
    }

    /// Counts a job whose gateway did not consent.
    pub fn count_unstarted(&self, outcome: Outcome) {
        calls(&self.queue, outcome).increment(1);
    }

    /// Counts a refused request.
    pub fn count_refusal(&self, reason: RefusalReason) {
        let reason = (names::REASON, reason.as_str().to_owned());
        counter(&names::WORKER_REFUSALS, &[(names::QUEUE, self.queue.clone()), reason])
            .increment(1);
    }

    /// Counts a step of an offer: `made`, `accepted`, `declined` or `lapsed`, or `late` if the offer was answered after
    /// it had lapsed.
    pub fn count_offer(&self, result: &str) {
        let result = (names::RESULT, result.to_owned());
        counter(&names::WORKER_OFFERS, &[(names::QUEUE, self.queue.clone()), result]).increment(1);
    }

    /// Returns the outcome of the last failed call.
    pub fn last_failure(&self) -> Option<Outcome> {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn calls(queue: &str, outcome: Outcome) -> Counter {
    let labels = [(names::QUEUE, queue.to_owned()), (names::OUTCOME, outcome.as_str().to_owned())];
    counter(&names::WORKER_CALLS, &labels)
}
