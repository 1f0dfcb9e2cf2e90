//! Diagnoses why a queue's requests do not make progress, from two reports of each process.

use serde::Serialize;

use crate::fleet::report::QueueReport;
use crate::telemetry::count_as_f64;

/// The age at which an unaccepted request shows that its queue is making no progress. Workers normally accept or refuse a request within
/// milliseconds.
const UNACCEPTED_SECONDS: f64 = 2.0;
/// Replaces `UNACCEPTED_SECONDS` if no request was answered between the reports. It is shorter because the endpoint's
/// timeout limits the age of an unaccepted request.
const UNACCEPTED_IDLE_SECONDS: f64 = 0.5;
/// The number of requests that must have run out of time before a worker accepted them. A few requests can also be lost when a worker
/// exits.
const TIMED_OUT_UNACCEPTED_MIN: u64 = 3;
/// The number of calls that workers must have stopped if the usual duration of a call is unknown.
const STOPPED_MIN: u64 = 3;
/// A call seems to hang if it takes at least this many times the 99th percentile of the answered calls. If no call was answered between
/// the reports, the factor also applies to the total duration of the calls.
const LONG_CALL_FACTOR: f64 = 3.0;
/// A call takes unusually long if it takes at least this many times the 99th percentile of the answered calls, because a call that is
/// stopped keeps its slot until it has ended.
const UNUSUAL_FACTOR: f64 = 1.25;
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
    /// The number of requests that workers answered between the reports. Requests that timed out or whose clients disconnected are not
    /// counted.
    pub(crate) answered: u64,
    /// The number of requests that, between the reports, ran out of time before a worker accepted them.
    pub(crate) timed_out_unaccepted: u64,
    /// The number of requests that, between the reports, ran out of time or whose calls took too long after a worker had accepted them.
    pub(crate) timed_out_accepted: u64,
    /// The number of calls that workers stopped between the reports, because the call had run out of time or its session had ended.
    pub(crate) stopped: u64,
    /// The number of calls that workers ran to completion between the reports.
    pub(crate) completed: u64,
    /// Whether the reports of some gateways omit the queue.
    pub(crate) may_lack_gateways: bool,
    /// Whether the reports of some workers omit the queue, so that further workers may serve it.
    pub(crate) may_lack_workers: bool,
    /// The total time, from sending to timeout, of the requests in `timed_out_unaccepted`.
    #[serde(skip)]
    pub(crate) timed_out_unaccepted_seconds: f64,
    /// The number of all calls that ended between the reports, including those that were not started.
    #[serde(skip)]
    pub(crate) calls: u64,
    /// The number of calls that ended between the reports, and the total time for which they occupied slots.
    #[serde(skip)]
    pub(crate) call_times: (u64, f64),
    /// Whether the counts of events between the reports exclude gateways that have not sent two reports with the queue.
    #[serde(skip)]
    pub(crate) is_partial: bool,
    /// The 99th percentile of the time from sending a request to its answer since the gateway started. This is the highest value
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
                self.timed_out_unaccepted +=
                    delivery.timed_out_unaccepted.saturating_sub(earlier.timed_out_unaccepted);
                self.timed_out_accepted +=
                    delivery.timed_out_accepted.saturating_sub(earlier.timed_out_accepted);
                self.timed_out_unaccepted_seconds += (delivery.timed_out_unaccepted_seconds
                    - earlier.timed_out_unaccepted_seconds)
                    .max(0.0);
            }
        }
        if let (Some(_), Some(earlier)) = (&now.slots, before) {
            let calls = now.calls.saturating_sub(earlier.calls);
            let stopped = now.stopped.saturating_sub(earlier.stopped);
            let not_started = now.not_started.saturating_sub(earlier.not_started);
            self.calls += calls;
            self.stopped += stopped;
            self.completed += calls.saturating_sub(stopped + not_started);
            let (count, seconds) = &mut self.call_times;
            *count += now.times.count.saturating_sub(earlier.times.count);
            *seconds += (now.times.seconds - earlier.times.seconds).max(0.0);
        }
        if let Some(offers) = &now.offers {
            self.offered += offers.open;
            if let Some(earlier) = before.and_then(|before| before.offers.as_ref()) {
                self.offers_made += offers.made.saturating_sub(earlier.made);
                self.offers_lapsed += offers.lapsed.saturating_sub(earlier.lapsed);
            }
        }
    }

    /// Returns whether no request was answered between the reports. If the report of a gateway omits the queue, only the reports of
    /// all workers show whether the gateway can have received answers.
    fn is_idle(&self) -> bool {
        let may_be_answered =
            self.may_lack_gateways && (self.completed > 0 || self.may_lack_workers);
        self.answered == 0 && !self.is_partial && !may_be_answered
    }

    /// Returns whether workers fail to accept requests. This is the case if the oldest unaccepted request was sent long ago.
    pub(crate) fn has_old_unaccepted(&self) -> bool {
        let age = if self.is_idle() { UNACCEPTED_IDLE_SECONDS } else { UNACCEPTED_SECONDS };
        self.unaccepted > 0 && self.unaccepted_seconds >= age
    }

    /// Returns whether no request was answered and no call ended between the reports, while several requests ran out of time before a
    /// worker accepted them and waited for a long time in total. If requests keep arriving and running out of time early, no single
    /// request becomes old.
    pub(crate) fn runs_out_unaccepted(&self) -> bool {
        // If workers end calls, they do accept requests, but their first reply may come too late for a request that has waited for a
        // slot.
        let is_unserved = self.is_idle() && self.calls == 0;
        is_unserved
            && self.timed_out_unaccepted >= TIMED_OUT_UNACCEPTED_MIN
            && self.timed_out_unaccepted_seconds >= UNACCEPTED_IDLE_SECONDS
    }

    /// Returns whether a call seems to hang: no request was answered between the reports, and the oldest call has already taken much
    /// longer than the calls that were answered earlier.
    pub(crate) fn has_old_call(&self) -> bool {
        let is_old = self.accepted_seconds >= self.long_call_seconds();
        self.accepted > 0 && self.is_idle() && is_old
    }

    /// Returns whether no request was answered between the reports and workers completed no call but had to stop calls, although the
    /// calls together ran long enough for several calls of the usual duration to complete. In a saturated queue whose requests keep
    /// arriving and running out of time, this is the only sign of calls that hang: a slot that becomes free is given to a request that
    /// has already waited for most of its session time, so no call becomes old. Calls that were stopped only because clients
    /// disconnected are not a sign of a fault.
    pub(crate) fn stops_all_calls(&self) -> bool {
        let has_timed_out = self.timed_out_unaccepted + self.timed_out_accepted > 0;
        // `call_times` also contains calls that waited for a connection in vain, and calls that were not started.
        let is_stopped =
            self.stopped > 0 && self.completed == 0 && self.call_times.0 <= 2 * self.stopped;
        let is_enough = if self.answered_p99_seconds > 0.0 {
            self.call_times.1 >= LONG_CALL_FACTOR * self.answered_p99_seconds
        } else {
            self.stopped >= STOPPED_MIN
        };
        self.is_idle() && has_timed_out && is_stopped && is_enough
    }

    /// Returns the mean time for which the calls that ended between the reports occupied their slots.
    pub(crate) fn call_seconds_mean(&self) -> f64 {
        let (count, seconds) = self.call_times;
        seconds / count_as_f64(count.max(1))
    }

    /// Returns whether a call that takes this long takes longer than almost all calls that were answered. Otherwise, the call may not be
    /// hanging, but may need more time than it was given.
    pub(crate) fn is_unusual(&self, call_seconds: f64) -> bool {
        self.answered_p99_seconds > 0.0
            && call_seconds >= UNUSUAL_FACTOR * self.answered_p99_seconds
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
