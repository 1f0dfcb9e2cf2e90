//! What a queue counts.

use std::fmt;

use crate::catalogue::QueueName;
use crate::outcome::Word;
use crate::telemetry::{Counter, Histogram, counter, histogram, names};

/// The queue's metrics, looked up once.
pub(crate) struct Figures {
    pub(crate) duration: Histogram,
    pub(crate) calls_ok: Counter,
    pub(crate) queue: String,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Figures {
    pub(crate) fn of(name: &QueueName) -> Self {
        let calls_ok = calls(name.as_str(), Word::Ok);
        // At zero from the start, so that the first calls count in a rate.
        calls_ok.increment(0);
        let duration = histogram(&names::WORKER_CALL_DURATION, &[(names::QUEUE, name.to_string())]);
        Self { duration, calls_ok, queue: name.to_string() }
    }
}

/// Calls of a queue that ended so.
pub(crate) fn calls(queue: &str, outcome: Word) -> Counter {
    let labels = [(names::QUEUE, queue.to_owned()), (names::OUTCOME, outcome.as_str().to_owned())];
    counter(&names::WORKER_CALLS, &labels)
}
