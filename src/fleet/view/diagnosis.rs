//! Why the requests of a queue do not progress, computed from two reports of each process.

use serde::Serialize;

use crate::fleet::report::QueueReport;
use crate::telemetry::Distribution;

/// A queue whose oldest unaccepted request is at least this old does not progress. Workers accept or refuse within milliseconds.
const UNACCEPTED_SECONDS: f64 = 2.0;
/// The same if no request was answered between the reports. The timeout of the endpoint limits the age of such a request.
const UNACCEPTED_IDLE_SECONDS: f64 = 0.5;
/// A call may take this many times as long as 99 % of the earlier calls before it seems to hang.
const LONG_CALL_FACTOR: f64 = 3.0;
/// The minimum duration of a call that seems to hang.
const LONG_CALL_SECONDS_MIN: f64 = 5.0;
/// The duration from which a call seems to hang if no earlier call has ended.
const LONG_CALL_SECONDS_UNKNOWN: f64 = 10.0;

/// The progress of a queue's requests, summed over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct QueueDiagnosis {
    /// The number of requests that were sent and that no worker has accepted.
    pub(crate) unaccepted: u64,
    /// The time since the oldest of them was sent.
    pub(crate) unaccepted_seconds: f64,
    /// The number of requests that workers have accepted and that have not ended.
    pub(crate) accepted: u64,
    /// The time since the oldest of them was accepted.
    pub(crate) accepted_seconds: f64,
    /// The number of attempts between the reports for which NATS found no worker.
    pub(crate) unserved: u64,
    /// The number of slots that are reserved for offers now.
    pub(crate) offered: u64,
    /// The number of offers between the reports.
    pub(crate) offers_made: u64,
    /// The number of those that were not answered, or too late.
    pub(crate) offers_lapsed: u64,
    /// The number of requests that workers answered without a server error between the reports. Requests that time out, or whose
    /// clients leave, are no progress.
    pub(crate) answered: u64,
    /// Whether the numbers between the reports leave out processes that have not sent two reports with the queue.
    #[serde(skip)]
    pub(crate) is_partial: bool,
    /// The durations of all calls and requests since the processes started.
    #[serde(skip)]
    pub(crate) times: Distribution,
}

impl QueueDiagnosis {
    /// Adds the queue of one process.
    pub(crate) fn add(&mut self, now: &QueueReport, before: Option<&QueueReport>) {
        self.times.add(&now.times);
        self.is_partial |= before.is_none();
        if let Some(delivery) = &now.delivery {
            let earlier = before.and_then(|before| before.delivery.as_ref());
            self.unaccepted += delivery.unaccepted;
            self.unaccepted_seconds = self.unaccepted_seconds.max(delivery.unaccepted_seconds);
            self.accepted += delivery.accepted;
            self.accepted_seconds = self.accepted_seconds.max(delivery.accepted_seconds);
            if let Some(earlier) = earlier {
                self.answered += delivery.answered.saturating_sub(earlier.answered);
                self.unserved += delivery.unserved.saturating_sub(earlier.unserved);
            }
        }
        if let Some(offers) = &now.offers {
            self.offered += offers.open;
            if let Some(earlier) = before.and_then(|before| before.offers.as_ref()) {
                self.offers_made += offers.made.saturating_sub(earlier.made);
                self.offers_lapsed += offers.lapsed.saturating_sub(earlier.lapsed);
                self.offers_lapsed += offers.late.saturating_sub(earlier.late);
            }
        }
    }

    /// Returns whether workers do not accept the requests that are sent to them.
    pub(crate) fn is_not_accepted(&self) -> bool {
        let is_idle = self.answered == 0 && !self.is_partial;
        let age = if is_idle { UNACCEPTED_IDLE_SECONDS } else { UNACCEPTED_SECONDS };
        self.unaccepted > 0 && self.unaccepted_seconds >= age
    }

    /// Returns whether the calls that workers have accepted do not end: none was answered between the reports, and the oldest takes
    /// much longer than earlier ones.
    pub(crate) fn is_hanging(&self) -> bool {
        let long = match self.times.quantile(0.99) {
            Some(usual) => (LONG_CALL_FACTOR * usual).max(LONG_CALL_SECONDS_MIN),
            None => LONG_CALL_SECONDS_UNKNOWN,
        };
        let is_idle = self.answered == 0 && !self.is_partial;
        self.accepted > 0 && is_idle && self.accepted_seconds >= long
    }

    /// Returns whether most offers are not answered in time.
    pub(crate) fn has_lapsing_offers(&self) -> bool {
        self.offers_lapsed > 0 && self.offers_lapsed * 2 >= self.offers_made
    }
}
