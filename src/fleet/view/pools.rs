//! The pools of workers and their headroom.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::config::DEFAULT_POOL;
use crate::fleet::Report;
use crate::fleet::headroom::{Headroom, QueueLoad};
use crate::telemetry::count_as_f64;

use super::QueueView;

/// A pool: the workers that have the same `worker.pool`, and the queues that they serve.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PoolView {
    pub(crate) name: String,
    /// The number of workers that serve at least one queue.
    pub(crate) workers: u64,
    /// The number of workers that the load requires. `None` if the load is unknown.
    pub(crate) workers_needed: Option<u64>,
    /// The number of workers that are not needed. Negative if workers are missing. `None` if the load is unknown.
    pub(crate) workers_free: Option<i64>,
    /// The share of the busiest queue's slots that the load occupies, by Little's law. Above 1 if there are too few
    /// slots. `None` if the load of a queue is unknown.
    pub(crate) load: Option<f64>,
    /// The queues for which the workers have slots.
    pub(crate) queues: Vec<String>,
    /// Whether the workers have slots for different queues. False if `is_truncated`.
    pub(crate) is_mixed: bool,
    /// Whether the reports of some workers omit queues. The load is then unknown, and `queues` may be incomplete.
    pub(crate) is_truncated: bool,
}

impl PoolView {
    /// Returns a sentence that describes a pool whose workers serve different queues.
    pub(crate) fn mixed_note(&self) -> String {
        format!(
            "the workers of pool {} serve different queues: the headroom assumes that each new worker serves all of them, so give \
             each kind of worker its own worker.pool",
            self.name
        )
    }
}

/// The workers of one pool.
#[derive(Default)]
struct PoolWorkers<'a> {
    number: u64,
    /// The number of slots for each queue that is served and not paused.
    slots: BTreeMap<&'a str, u64>,
    /// The distinct sets of queues for which workers have slots.
    kinds: BTreeSet<BTreeSet<&'a str>>,
    /// Whether a worker's report omits queues.
    is_truncated: bool,
}

/// Returns all pools in which at least one worker serves a queue. If several pools serve a queue, its load is divided
/// in proportion to their slots.
pub(crate) fn pools(reports: &[Report], queues: &[QueueView]) -> Vec<PoolView> {
    let mut pools: BTreeMap<&str, PoolWorkers<'_>> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.role == "worker") {
        let name = if report.pool.is_empty() { DEFAULT_POOL } else { &report.pool };
        let pool = pools.entry(name).or_default();
        pool.is_truncated |= report.is_truncated;
        let slots =
            report.queues.iter().filter_map(|queue| Some((&*queue.name, queue.slots.as_ref()?)));
        let slots: Vec<_> = slots.collect();
        pool.kinds.insert(slots.iter().map(|(queue, _)| *queue).collect());
        let mut is_serving = false;
        for (queue, slots) in
            slots.into_iter().filter(|(_, slots)| slots.is_served && !slots.is_paused)
        {
            is_serving = true;
            *pool.slots.entry(queue).or_default() += slots.limit;
        }
        pool.number += u64::from(is_serving);
    }
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (queue, slots) in pools.values().flat_map(|pool| &pool.slots) {
        *totals.entry(queue).or_default() += slots;
    }
    pools.into_iter().filter_map(|(name, workers)| workers.view(name, queues, &totals)).collect()
}

impl PoolWorkers<'_> {
    /// Returns the view of the pool. `totals` contains the number of slots of all pools for each queue.
    fn view(
        &self,
        name: &str,
        queues: &[QueueView],
        totals: &BTreeMap<&str, u64>,
    ) -> Option<PoolView> {
        let loads = queues.iter().filter_map(|queue| {
            let slots = *self.slots.get(&*queue.name)?;
            let total = totals.get(&*queue.name).copied().unwrap_or(slots);
            let share = count_as_f64(slots) / count_as_f64(total.max(1));
            Some(queue.load(count_as_f64(slots), share))
        });
        if self.number == 0 {
            return None;
        }
        let headroom = Headroom::new(self.number, loads).filter(|_| !self.is_truncated);
        let served: BTreeSet<&str> = self.kinds.iter().flatten().copied().collect();
        Some(PoolView {
            name: name.to_owned(),
            workers: self.number,
            workers_needed: headroom.map(|headroom| headroom.workers_needed),
            workers_free: headroom.map(|headroom| headroom.workers_free()),
            load: headroom.map(|headroom| headroom.load),
            queues: served.into_iter().map(str::to_owned).collect(),
            is_mixed: self.kinds.len() > 1 && !self.is_truncated,
            is_truncated: self.is_truncated,
        })
    }
}

impl QueueView {
    /// Returns the given share of the queue's load, to be served by `slots`.
    pub(super) fn load(&self, slots: f64, share: f64) -> QueueLoad {
        let used = self.utilization * count_as_f64(self.limit);
        // `f64::max` ignores an unknown rate. If the rate of calls is unknown, their duration is unknown too.
        let calls = self.rates.calls_per_second;
        let arrivals = if calls.is_nan() { calls } else { calls.max(self.arrivals_per_second) };
        let in_progress = used + count_as_f64(self.waiting);
        QueueLoad {
            arrivals_per_second: share * arrivals,
            call_seconds: self.rates.times.mean(),
            in_progress: share * in_progress,
            slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CallRates;
    use super::*;
    use crate::fleet::report::{QueueReport, SlotsReport};
    use crate::telemetry::Distribution;

    fn worker(pool: &str, queues: &[(&str, u64, bool)]) -> Report {
        let report = |&(name, limit, is_served): &(&str, u64, bool)| QueueReport {
            name: name.to_owned(),
            slots: Some(SlotsReport { limit, is_served, ..SlotsReport::default() }),
            ..QueueReport::default()
        };
        let queues = queues.iter().map(report).collect();
        Report { role: "worker".to_owned(), pool: pool.to_owned(), queues, ..Report::default() }
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    /// A queue whose calls take 0.5 s.
    fn queue(name: &str, limit: u64, arrivals_per_second: f64) -> QueueView {
        let times = Distribution { count: 10, seconds: 5.0, buckets: Vec::new() };
        let rates = CallRates { times, ..CallRates::default() };
        QueueView {
            name: name.to_owned(),
            limit,
            arrivals_per_second,
            rates,
            ..QueueView::default()
        }
    }

    #[test]
    fn a_queue_of_two_pools_is_divided_by_slots() {
        let reports = [
            worker("", &[("a", 4, true), ("b", 4, true)]),
            worker("heavy", &[("b", 12, true)]),
            Report { role: "gateway".to_owned(), ..Report::default() },
        ];
        let pools = pools(&reports, &[queue("a", 4, 2.0), queue("b", 16, 16.0)]);
        let [default, heavy] = &pools[..] else { panic!("{pools:?}") };
        assert_eq!((&*default.name, &*heavy.name), (DEFAULT_POOL, "heavy"));
        let is_half = |pool: &PoolView| pool.load.is_some_and(|load| is_near(load, 0.5));
        assert!(is_half(default) && is_half(heavy), "{pools:?}");
        assert_eq!(default.queues, ["a", "b"]);
        assert!(!default.is_mixed && !heavy.is_mixed);
    }

    #[test]
    fn queues_and_workers_that_are_not_served_do_not_count() {
        let reports =
            [worker("p", &[("a", 4, true), ("b", 4, false)]), worker("p", &[("a", 4, false)])];
        let pools = pools(&reports, &[queue("a", 4, 16.0), queue("b", 0, 99.0)]);
        let [pool] = &pools[..] else { panic!("{pools:?}") };
        assert_eq!((pool.workers, pool.workers_needed), (1, Some(3)), "{pool:?}");
        assert!(pool.load.is_some_and(|load| is_near(load, 2.0)), "{pool:?}");
        assert!(pool.is_mixed, "{pool:?}");
        assert!(super::pools(&reports[1..], &[]).is_empty());
    }

    #[test]
    fn the_load_of_workers_whose_reports_omit_queues_is_unknown() {
        let short = |queue| Report { is_truncated: true, ..worker("p", &[(queue, 4, true)]) };
        let pools = pools(&[short("a"), short("b")], &[queue("a", 4, 2.0), queue("b", 4, 2.0)]);
        let [pool] = &pools[..] else { panic!("{pools:?}") };
        assert_eq!((pool.workers, pool.load, pool.workers_free), (2, None, None), "{pool:?}");
        assert!(pool.is_truncated && !pool.is_mixed, "each report keeps its own queues: {pool:?}");
    }

    #[test]
    fn the_load_is_unknown_until_the_rates_of_all_queues_are_known() {
        let reports = [worker("p", &[("a", 4, true), ("b", 4, true)])];
        let pools = pools(&reports, &[queue("a", 4, 2.0), QueueView::new("b")]);
        let [pool] = &pools[..] else { panic!("{pools:?}") };
        assert_eq!((pool.workers, pool.load), (1, None), "{pool:?}");
        assert_eq!((pool.workers_needed, pool.workers_free), (None, None), "{pool:?}");
    }
}
