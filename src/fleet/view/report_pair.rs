//! A pair of reports of the same process, from which rates are computed.

use std::collections::HashMap;

use crate::fleet::Report;
use crate::fleet::report::{DatabaseReport, QueueReport, WeightedQueueReport};
use crate::telemetry::{Distribution, count_as_f64};

use super::rates::{CallRates, UNKNOWN};

/// The minimum time in seconds between two different reports. A process reuses a report for 0.1 s, so reports that are
/// closer together may be the same one.
const SECONDS_MIN: f64 = 0.2;

/// The last report of a process and, if available, an earlier one. A rate is known only if both reports contain the
/// counter and the counter was not reset in between.
#[derive(Clone, Copy)]
pub(crate) struct ReportPair<'a> {
    pub(crate) now: &'a Report,
    before: Option<&'a Report>,
    seconds: f64,
}

impl<'a> ReportPair<'a> {
    pub(crate) fn new(before: Option<&'a Report>, now: &'a Report) -> Self {
        let seconds = before.map_or(0.0, |before| now.uptime_seconds - before.uptime_seconds);
        let before = before.filter(|_| seconds >= SECONDS_MIN);
        Self { now, before, seconds: seconds.max(SECONDS_MIN) }
    }

    /// Returns the time between the reports in seconds. `None` if there is only one report.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.before.map(|_| self.seconds)
    }

    /// Returns the entry of every queue in the last report, with its entry in the earlier one.
    pub(crate) fn queues(
        &self,
    ) -> impl Iterator<Item = (&'a QueueReport, Option<&'a QueueReport>)> {
        let before = self.before.into_iter().flat_map(|before| &before.queues);
        let before: HashMap<&str, &QueueReport> =
            before.map(|queue| (queue.name.as_str(), queue)).collect();
        self.now.queues.iter().map(move |queue| {
            let earlier = before.get(queue.name.as_str()).copied();
            (queue, earlier.filter(|earlier| continues(queue, earlier)))
        })
    }

    /// Like `queues`, but returns the queues of endpoints that have several queues.
    pub(crate) fn weighted_queues(
        &self,
    ) -> impl Iterator<Item = (&'a WeightedQueueReport, Option<&'a WeightedQueueReport>)> {
        let before = self.before;
        self.now.weighted_queues.iter().map(move |now| {
            let mut queues = before.into_iter().flat_map(|before| &before.weighted_queues);
            let is_same = |other: &&WeightedQueueReport| {
                (&other.endpoint, &other.queue) == (&now.endpoint, &now.queue)
            };
            let earlier = queues.find(is_same);
            (now, earlier.filter(|earlier| now.requests >= earlier.requests))
        })
    }

    /// Returns the rate of a counter. `UNKNOWN` if `before` is `None`.
    pub(crate) fn rate(&self, now: u64, before: Option<u64>) -> f64 {
        before.map_or(UNKNOWN, |before| count_as_f64(now.saturating_sub(before)) / self.seconds)
    }

    /// Returns the share of the elapsed time by which a duration has grown. If `now` and `before` are sums, the result
    /// can exceed 1. `UNKNOWN` if `before` is `None`.
    pub(crate) fn share(&self, now: f64, before: Option<f64>) -> f64 {
        before.map_or(UNKNOWN, |before| ((now - before) / self.seconds).max(0.0))
    }

    /// Returns the rates of the calls of a queue.
    pub(crate) fn rates(&self, now: &QueueReport, before: Option<&QueueReport>) -> CallRates {
        let rates = CallRates {
            calls_per_second: self.rate(now.calls, before.map(|before| before.calls)),
            errors_per_second: self.rate(now.errors, before.map(|before| before.errors)),
            ..CallRates::default()
        };
        rates.with_times(since(&now.times, before.map(|before| &before.times)))
    }

    /// Returns the rates of all calls or requests, and whether some rates are missing because only one of the reports
    /// contains their queue.
    pub(crate) fn total(&self) -> (CallRates, bool) {
        let Some(before) = self.before.filter(|before| !before.is_truncated) else {
            return (CallRates::UNKNOWN, true);
        };
        if self.now.is_truncated {
            return (CallRates::UNKNOWN, true);
        }
        let mut total = self.rates(&self.now.without_queue, Some(&before.without_queue));
        let mut is_partial = false;
        for (queue, earlier) in self.queues() {
            is_partial |= earlier.is_none();
            total.add(&self.rates(queue, earlier));
        }
        (total, is_partial)
    }

    /// Returns the CPU time per second, in cores.
    pub(crate) fn cpu_cores(&self) -> Option<f64> {
        let before = self.before?.cpu_seconds?;
        Some(self.share(self.now.cpu_seconds?, Some(before)))
    }

    /// Returns the mean time for which a call waits for a connection to a database.
    pub(crate) fn database_wait(&self, now: &DatabaseReport) -> Option<f64> {
        let before = self.before?.databases.iter().find(|other| other.name == now.name)?;
        now.waits.since(&before.waits).mean()
    }
}

/// Returns the durations recorded since an earlier report. Empty if there is no earlier report.
pub(crate) fn since(now: &Distribution, before: Option<&Distribution>) -> Distribution {
    before.map_or_else(Distribution::default, |before| now.since(before))
}

/// Returns whether the counters of a queue have only grown. They restart if the queue is removed and added again.
fn continues(now: &QueueReport, before: &QueueReport) -> bool {
    let arrivals = |queue: &QueueReport| queue.demand.as_ref().map_or(0, |demand| demand.arrivals);
    now.calls >= before.calls
        && now.times.count >= before.times.count
        && arrivals(now) >= arrivals(before)
}
