//! Diagnoses why a queue's requests do not make progress, from two reports of each process.

use serde::Serialize;

use crate::fleet::report::QueueReport;

/// The age at which an unaccepted request shows that its queue makes no progress. Workers normally accept or refuse a
/// request within milliseconds.
const UNACCEPTED_SECONDS: f64 = 2.0;
/// Replaces `UNACCEPTED_SECONDS` if no request was answered between the reports. It is shorter because the endpoint's
/// timeout limits the age of an unaccepted request.
const UNACCEPTED_IDLE_SECONDS: f64 = 0.5;
/// A call seems to hang after this multiple of the 99th percentile of the durations of answered calls.
const LONG_CALL_FACTOR: f64 = 3.0;
/// The minimum duration of a call that seems to hang.
const LONG_CALL_SECONDS_MIN: f64 = 5.0;
/// The duration after which a call seems to hang if no call has been answered.
const LONG_CALL_SECONDS_UNKNOWN: f64 = 10.0;
/// The largest share of its session timeout that a call is assumed to take normally. If calls take longer, a hanging
/// call cannot be reliably distinguished from a normal one.
const SESSION_SHARE_MAX: f64 = 0.8;

/// The progress of a queue's requests, summed over all processes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct QueueDiagnosis {
    /// The number of requests that were sent but have not been accepted by a worker.
    pub(crate) unaccepted: u64,
    /// The time since the oldest unaccepted request was sent.
    pub(crate) unaccepted_seconds: f64,
    /// The number of requests that workers have accepted and that are still in progress.
    pub(crate) accepted: u64,
    /// The time since the oldest accepted request was accepted.
    pub(crate) accepted_seconds: f64,
    /// The number of attempts for which NATS found no worker between the reports.
    pub(crate) unserved: u64,
    /// The number of slots currently reserved for offers.
    pub(crate) offered: u64,
    /// The number of offers made between the reports.
    pub(crate) offers_made: u64,
    /// The number of offers that lapsed unanswered between the reports.
    pub(crate) offers_lapsed: u64,
    /// The number of requests that workers answered between the reports. Requests that timed out or whose clients
    /// disconnected do not count.
    pub(crate) answered: u64,
    /// Whether the counts between the reports exclude gateways that have not sent two reports containing the queue.
    #[serde(skip)]
    pub(crate) is_partial: bool,
    /// The 99th percentile of the time from acceptance to answer since the gateway started. This is the highest value
    /// of all gateways. Zero if no request was answered.
    #[serde(skip)]
    pub(crate) answered_p99_seconds: f64,
    /// The session timeout of the oldest accepted request. Zero if unknown.
    #[serde(skip)]
    pub(crate) accepted_session_seconds: f64,
}

impl QueueDiagnosis {
    /// Adds the queue of one process. Without an earlier report of the process, the changes between the reports are
    /// unknown and are not counted.
    pub(crate) fn add(&mut self, now: &QueueReport, before: Option<&QueueReport>) {
        if let Some(delivery) = &now.delivery {
            let earlier = before.and_then(|before| before.delivery.as_ref());
            self.is_partial |= earlier.is_none();
            self.unaccepted += delivery.unaccepted;
            self.unaccepted_seconds = self.unaccepted_seconds.max(delivery.unaccepted_seconds);
            self.accepted += delivery.accepted;
            if delivery.accepted_seconds >= self.accepted_seconds {
                self.accepted_seconds = delivery.accepted_seconds;
                self.accepted_session_seconds = delivery.accepted_session_seconds;
            }
            self.answered_p99_seconds =
                self.answered_p99_seconds.max(delivery.answered_p99_seconds);
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
            }
        }
    }

    /// Returns whether workers are failing to accept the requests sent to them.
    pub(crate) fn is_not_accepted(&self) -> bool {
        let is_idle = self.answered == 0 && !self.is_partial;
        let age = if is_idle { UNACCEPTED_IDLE_SECONDS } else { UNACCEPTED_SECONDS };
        self.unaccepted > 0 && self.unaccepted_seconds >= age
    }

    /// Returns whether the accepted calls seem to hang: none was answered between the reports, and the oldest has taken
    /// much longer than the calls that were answered earlier.
    pub(crate) fn is_hanging(&self) -> bool {
        let is_idle = self.answered == 0 && !self.is_partial;
        self.accepted > 0 && is_idle && self.accepted_seconds >= self.long_call_seconds()
    }

    /// Returns the duration after which a call seems to hang.
    fn long_call_seconds(&self) -> f64 {
        let usual = self.answered_p99_seconds;
        let long = if usual > 0.0 {
            (LONG_CALL_FACTOR * usual).max(LONG_CALL_SECONDS_MIN)
        } else {
            LONG_CALL_SECONDS_UNKNOWN
        };
        let session = self.accepted_session_seconds;
        if session > 0.0 {
            // No call outlives its session, and most requests have already spent part of it waiting for a worker.
            return long.min(f64::midpoint(usual.min(SESSION_SHARE_MAX * session), session));
        }
        long
    }

    /// Returns whether most offers lapse without a timely answer.
    pub(crate) fn has_lapsing_offers(&self) -> bool {
        self.offers_lapsed > 0 && self.offers_lapsed * 2 >= self.offers_made
    }
}
