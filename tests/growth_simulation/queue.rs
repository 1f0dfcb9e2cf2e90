//! A queue with a number of slots. Requests wait in order of arrival, and are refused at their timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fjord::telemetry::count_as_f64;

/// The longest wait for a slot, in seconds: the default timeout of an endpoint.
const TIMEOUT: f64 = 10.0;

/// The end of a call. Ends are ordered by time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CallEnd(f64, f64);

impl Eq for CallEnd {}

impl PartialOrd for CallEnd {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CallEnd {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The waits of all requests of a period, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WaitSummary {
    pub(super) requests: u64,
    pub(super) p99: f64,
    pub(super) longest: f64,
    pub(super) share_over_second: f64,
    /// The requests that waited until their timeout.
    pub(super) refused: u64,
}

/// The counts of the gateways and workers since the last measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) arrivals: u64,
    pub(super) calls: u64,
    pub(super) call_seconds: f64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct SimulatedQueue {
    slots: u64,
    running: BinaryHeap<Reverse<CallEnd>>,
    waiting: VecDeque<(f64, f64)>,
    now: f64,
    used_seconds: f64,
    counts: Counts,
    /// The waits of the current hour, and those of the day.
    hour: Vec<f64>,
    all: Vec<f64>,
}

impl SimulatedQueue {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Changes the number of slots. If more calls are running, they end normally.
    pub(super) fn set_slots(&mut self, slots: u64) {
        self.slots = slots;
        self.start_calls();
    }

    /// Adds a request. The request must not arrive earlier than the previous one.
    pub(super) fn arrive(&mut self, time: f64, call_seconds: f64) {
        self.advance(time);
        self.counts.arrivals += 1;
        self.waiting.push_back((time, call_seconds));
        self.start_calls();
    }

    /// Ends all calls that end no later than `until`.
    pub(super) fn advance(&mut self, until: f64) {
        while let Some(Reverse(CallEnd(end, call_seconds))) = self.running.peek().copied()
            && end <= until
        {
            self.running.pop();
            self.pass_time(end);
            self.counts.calls += 1;
            self.counts.call_seconds += call_seconds;
            self.start_calls();
        }
        self.pass_time(until);
    }

    fn pass_time(&mut self, time: f64) {
        self.used_seconds += count_as_f64(self.running()) * (time - self.now);
        self.now = time;
    }

    /// Removes requests whose timeout has passed, and starts calls in free slots.
    fn start_calls(&mut self) {
        while let Some((arrived, call_seconds)) = self.waiting.front().copied() {
            let wait = self.now - arrived;
            if wait < TIMEOUT {
                if self.running() >= self.slots {
                    break;
                }
                self.running.push(Reverse(CallEnd(self.now + call_seconds, call_seconds)));
            }
            self.waiting.pop_front();
            self.hour.push(wait.min(TIMEOUT));
        }
    }

    /// Returns the slot time that calls have used so far, in seconds.
    pub(super) fn used_seconds(&self) -> f64 {
        self.used_seconds
    }

    /// Returns the number of waiting requests.
    pub(super) fn waiting(&self) -> u64 {
        count(self.waiting.len())
    }

    /// Returns the number of running calls.
    pub(super) fn running(&self) -> u64 {
        count(self.running.len())
    }

    /// Returns the counts since the last call to this function.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Returns the waits of the current hour, and begins a new hour.
    pub(super) fn take_hour(&mut self) -> WaitSummary {
        let mut hour = std::mem::take(&mut self.hour);
        self.all.extend_from_slice(&hour);
        summary(&mut hour)
    }

    /// Returns the waits in all hours that have ended.
    pub(super) fn summary(&mut self) -> WaitSummary {
        summary(&mut self.all)
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).expect("a small number")
}

fn summary(waits: &mut [f64]) -> WaitSummary {
    waits.sort_by(f64::total_cmp);
    let Some(longest) = waits.last().copied() else { return WaitSummary::default() };
    let over = |limit: f64| waits.len() - waits.partition_point(|wait| *wait < limit);
    let requests = count(waits.len());
    WaitSummary {
        requests,
        p99: waits[waits.len() * 99 / 100],
        longest,
        share_over_second: count_as_f64(count(over(1.0))) / count_as_f64(requests),
        refused: count(over(TIMEOUT)),
    }
}
