//! The history of the fleet and its queues over `HISTORY_TIME`, in less than 1 MiB.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use tokio::time::Instant;

use crate::fleet::view::{CallRates, FleetView, QueueView, known_sum};
use crate::telemetry::{Distribution, count_as_f64};

use super::HISTORY_TIME;

/// The maximum number of points: one per `INTERVAL` in `HISTORY_TIME`, plus the first.
const POINTS_MAX: usize = 181;
/// The maximum number of queues with a history. A queue gets one when it first receives requests, if there is room.
const QUEUES_MAX: usize = 100;
/// The maximum length in bytes of the name of a queue with a history.
const NAME_BYTES_MAX: usize = 256;

/// The history of the fleet and its queues.
#[derive(Debug, Default)]
pub(super) struct FleetHistory {
    times: VecDeque<Instant>,
    fleet: VecDeque<HistoryPoint>,
    /// The points of each queue, aligned with the end of `times`.
    queues: HashMap<String, VecDeque<HistoryPoint>>,
}

/// The activity during one interval. NaN represents an unknown value and becomes `null` in JSON.
#[derive(Clone, Copy, Debug)]
struct HistoryPoint {
    requests_per_second: f32,
    calls_per_second: f32,
    request_p50_seconds: f32,
    request_p99_seconds: f32,
    call_p99_seconds: f32,
    failed_per_second: f32,
    errors_per_second: f32,
    utilization: f32,
    waiting: f32,
}

/// The history of the fleet or of a queue, in the form that the page reads: one list per series.
#[derive(Debug, Default, Serialize)]
pub(super) struct HistorySeries {
    /// The age of each point in seconds.
    age_seconds: Vec<f32>,
    requests_per_second: Vec<f32>,
    calls_per_second: Vec<f32>,
    request_p50_seconds: Vec<f32>,
    request_p99_seconds: Vec<f32>,
    call_p99_seconds: Vec<f32>,
    failed_per_second: Vec<f32>,
    errors_per_second: Vec<f32>,
    utilization: Vec<f32>,
    waiting: Vec<f32>,
}

impl FleetHistory {
    /// Adds a point with the activity since the previous point.
    pub(super) fn add(&mut self, now: Instant, view: &FleetView) {
        let queues: HashMap<&str, &QueueView> =
            view.queues.iter().map(|queue| (queue.name.as_str(), queue)).collect();
        for (name, points) in &mut self.queues {
            let queue = queues.get(name.as_str());
            points
                .push_back(queue.map_or(HistoryPoint::GAP, |queue| HistoryPoint::of_queue(queue)));
        }
        for queue in &view.queues {
            let point = HistoryPoint::of_queue(queue);
            let is_kept = self.queues.contains_key(&queue.name);
            let has_room = self.queues.len() < QUEUES_MAX && queue.name.len() <= NAME_BYTES_MAX;
            if !is_kept && has_room && point.has_traffic() {
                self.queues.insert(queue.name.clone(), VecDeque::from([point]));
            }
        }
        self.fleet.push_back(HistoryPoint::of_fleet(&view.queues));
        self.finish(now);
    }

    /// Adds a point without values.
    pub(super) fn add_gap(&mut self, now: Instant) {
        let all = self.queues.values_mut().chain([&mut self.fleet]);
        all.for_each(|points| points.push_back(HistoryPoint::GAP));
        self.finish(now);
    }

    /// Returns the history of a queue, or of the fleet if `queue` is `None`. Returns `None` if no history of the queue
    /// is kept.
    pub(super) fn series(&self, queue: Option<&str>, now: Instant) -> Option<HistorySeries> {
        let points = match queue {
            Some(queue) => self.queues.get(queue)?,
            None => &self.fleet,
        };
        let mut series = HistorySeries::default();
        let times = self.times.iter().skip(self.times.len().saturating_sub(points.len()));
        for (time, point) in times.zip(points) {
            series.push(now.saturating_duration_since(*time).as_secs_f32(), point);
        }
        Some(series)
    }

    /// Returns the age of the oldest point in seconds.
    pub(super) fn age_seconds(&self, now: Instant) -> Option<f64> {
        let oldest = self.times.front()?;
        Some(now.saturating_duration_since(*oldest).as_secs_f64())
    }

    /// Adds the time of the new point. Removes old points, and the queues that had no requests in any remaining point.
    fn finish(&mut self, now: Instant) {
        self.times.push_back(now);
        let is_old = |time: &Instant| now.saturating_duration_since(*time) > HISTORY_TIME;
        let excess = self.times.len().saturating_sub(POINTS_MAX);
        let removed = excess.max(self.times.iter().take_while(|time| is_old(time)).count());
        self.times.drain(..removed);
        let length = self.times.len();
        for points in self.queues.values_mut().chain([&mut self.fleet]) {
            points.drain(..points.len().saturating_sub(length));
        }
        self.queues.retain(|_, points| points.iter().any(HistoryPoint::has_traffic));
    }
}

impl HistoryPoint {
    /// A point without values.
    const GAP: Self = Self {
        requests_per_second: f32::NAN,
        calls_per_second: f32::NAN,
        request_p50_seconds: f32::NAN,
        request_p99_seconds: f32::NAN,
        call_p99_seconds: f32::NAN,
        failed_per_second: f32::NAN,
        errors_per_second: f32::NAN,
        utilization: f32::NAN,
        waiting: f32::NAN,
    };

    fn of_queue(queue: &QueueView) -> Self {
        Self::of_fleet(std::slice::from_ref(queue))
    }

    /// Returns the sum over all queues.
    fn of_fleet(queues: &[QueueView]) -> Self {
        let sum = |value: &dyn Fn(&QueueView) -> f64| known_sum(queues.iter().map(value));
        let measured = queues.iter().filter(|queue| !queue.utilization.is_nan());
        let slots: u64 = measured.map(|queue| queue.limit).sum();
        let used = sum(&|queue| queue.utilization * count_as_f64(queue.limit));
        let mut requests = Distribution::default();
        let mut calls = CallRates::UNKNOWN;
        for queue in queues {
            requests.add(&queue.request_times);
            calls.add(&queue.rates);
        }
        Self {
            requests_per_second: narrow(Some(sum(&|queue| queue.arrivals_per_second))),
            calls_per_second: narrow(Some(calls.calls_per_second)),
            request_p50_seconds: narrow(requests.quantile(0.5)),
            request_p99_seconds: narrow(requests.quantile(0.99)),
            call_p99_seconds: narrow(calls.p99_seconds),
            failed_per_second: narrow(Some(sum(&|queue| queue.failed_per_second))),
            errors_per_second: narrow(Some(calls.errors_per_second)),
            utilization: narrow((slots > 0).then(|| used / count_as_f64(slots))),
            waiting: narrow(Some(sum(&|queue| count_as_f64(queue.waiting)))),
        }
    }

    fn has_traffic(&self) -> bool {
        self.requests_per_second > 0.0 || self.calls_per_second > 0.0 || self.waiting > 0.0
    }
}

impl HistorySeries {
    fn push(&mut self, age_seconds: f32, point: &HistoryPoint) {
        self.age_seconds.push(age_seconds);
        self.requests_per_second.push(point.requests_per_second);
        self.calls_per_second.push(point.calls_per_second);
        self.request_p50_seconds.push(point.request_p50_seconds);
        self.request_p99_seconds.push(point.request_p99_seconds);
        self.call_p99_seconds.push(point.call_p99_seconds);
        self.failed_per_second.push(point.failed_per_second);
        self.errors_per_second.push(point.errors_per_second);
        self.utilization.push(point.utilization);
        self.waiting.push(point.waiting);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "charts need few digits")]
fn narrow(value: Option<f64>) -> f32 {
    value.map_or(f32::NAN, |value| value as f32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::INTERVAL;
    use super::*;
    use crate::fleet::view::{Baseline, FleetSnapshot};

    /// Returns an upper bound on the memory that the history uses, in bytes.
    fn bytes(history: &FleetHistory) -> usize {
        let points =
            |points: &VecDeque<HistoryPoint>| points.capacity() * size_of::<HistoryPoint>();
        let queues =
            history.queues.iter().map(|(name, of)| name.capacity() + points(of)).sum::<usize>();
        let entries = history.queues.capacity() * size_of::<(String, VecDeque<HistoryPoint>)>();
        queues + entries + points(&history.fleet) + history.times.capacity() * size_of::<Instant>()
    }

    fn view(queues: impl Iterator<Item = String>, arrivals_per_second: f64) -> FleetView {
        let empty = FleetSnapshot { reports: Vec::new(), is_cut_off: false, servers: Vec::new() };
        let queue = |name| QueueView { name, arrivals_per_second, ..QueueView::default() };
        let view = FleetView::since(&Baseline::new(INTERVAL), &empty);
        FleetView { queues: queues.map(queue).collect(), ..view }
    }

    #[test]
    fn hours_with_many_queues_stay_below_one_mebibyte() {
        let mut history = FleetHistory::default();
        let start = Instant::now();
        let mut now = start;
        let names = |hour: u64| (0..150).map(move |n| format!("{hour}-{n:0>250}"));
        while now < start + Duration::from_hours(3) {
            // The names change over time, as if queues were being renamed.
            let hour = (now - start).as_secs() / 3600;
            history.add(now, &view(names(hour), 1.0));
            now += INTERVAL;
        }
        assert_eq!(history.times.len(), POINTS_MAX);
        assert_eq!(history.queues.len(), QUEUES_MAX);
        assert!(bytes(&history) < 1 << 20, "{} bytes", bytes(&history));
        let series = history.series(None, now).unwrap();
        assert_eq!(series.requests_per_second.len(), POINTS_MAX);
        assert!(series.age_seconds[0] <= (HISTORY_TIME + INTERVAL).as_secs_f32());
        let current = names(2).next().unwrap();
        assert!(history.series(Some(&current), now).is_some(), "new queues replace old ones");
    }

    #[test]
    fn gaps_and_queues_that_appear_later_keep_the_points_aligned() {
        let mut history = FleetHistory::default();
        let start = Instant::now();
        let at = |n: u32| start + INTERVAL * n;
        history.add(at(0), &view(["a".to_owned()].into_iter(), 1.0));
        history.add(at(1), &view(["a".to_owned(), "b".to_owned()].into_iter(), 2.0));
        history.add_gap(at(2));
        history.add(at(3), &view(["b".to_owned()].into_iter(), 3.0));
        let requests = |queue| {
            let series = history.series(queue, at(3)).unwrap();
            serde_json::to_string(&(series.age_seconds, series.requests_per_second)).unwrap()
        };
        assert_eq!(requests(None), "[[15.0,10.0,5.0,0.0],[1.0,4.0,null,3.0]]");
        assert_eq!(requests(Some("a")), "[[15.0,10.0,5.0,0.0],[1.0,2.0,null,null]]");
        assert_eq!(requests(Some("b")), "[[10.0,5.0,0.0],[2.0,null,3.0]]");
        assert!(history.series(Some("c"), at(3)).is_none());
    }

    #[test]
    fn a_queue_without_requests_gets_no_history() {
        let mut history = FleetHistory::default();
        let mut now = Instant::now();
        history.add(now, &view(["a".to_owned()].into_iter(), 1.0));
        for _ in 0..POINTS_MAX {
            now += INTERVAL;
            history.add(now, &view(["a".to_owned(), "b".to_owned()].into_iter(), 0.0));
        }
        assert!(history.queues.is_empty(), "{:?}", history.queues.keys());
    }
}
