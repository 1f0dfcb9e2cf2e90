//! The load of a queue over time: running calls, slot utilization, and time without a free slot.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::QueueName;
use crate::telemetry::{Counter, Gauge, counter, gauge, names};

/// The time constant of the average utilization. It is short, because autoscalers need a trend with
/// little delay.
const AVERAGING_TIME: Duration = Duration::from_mins(1);
const MICROS: u64 = 1_000_000;

/// The usage of the slots of a queue at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotUsage {
    /// The number of slots.
    pub limit: usize,
    /// The number of running calls.
    pub running: usize,
    /// The length of the backlog.
    pub waiting: usize,
    /// The number of slots that are reserved for offers.
    pub offered: usize,
    /// Whether no slot is free.
    pub is_full: bool,
}

/// The load of one queue, and its metrics.
pub struct Load {
    limit: Gauge,
    running: Gauge,
    waiting: Gauge,
    offered: Gauge,
    utilization: Gauge,
    slot_seconds: Counter,
    saturated_seconds: Counter,
    state: State,
}

/// The usage since `since`, and the totals up to that time.
struct State {
    since: Instant,
    running: u32,
    limit: u32,
    is_full: bool,
    utilization: f64,
    slot_time: TimeCounter,
    saturated_time: TimeCounter,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").finish_non_exhaustive()
    }
}

impl Load {
    /// Creates the load of an idle queue.
    #[must_use]
    pub fn new(name: &QueueName, now: Instant) -> Self {
        let label = [(names::QUEUE, name.to_string())];
        Self {
            limit: gauge(&names::WORKER_LIMIT, &label),
            running: gauge(&names::WORKER_RUNNING, &label),
            waiting: gauge(&names::WORKER_WAITING, &label),
            offered: gauge(&names::WORKER_OFFERED, &label),
            utilization: gauge(&names::WORKER_UTILIZATION, &label),
            slot_seconds: counter(&names::WORKER_SLOT_SECONDS, &label),
            saturated_seconds: counter(&names::WORKER_SATURATED, &label),
            state: State::new(now),
        }
    }

    /// Returns the total time for which calls have held slots, and the total time without a free
    /// slot.
    #[must_use]
    pub fn totals(&self) -> (Duration, Duration) {
        (self.state.slot_time.total(), self.state.saturated_time.total())
    }

    /// Accounts for the time since the previous `record`, and begins a period with the given usage.
    /// Must be called after every change to the usage, and periodically in between.
    pub fn record(&mut self, usage: SlotUsage, now: Instant) {
        let elapsed = self.state.advance(now);
        self.slot_seconds.increment(elapsed.slot_seconds);
        self.saturated_seconds.increment(elapsed.saturated_seconds);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.state.running = count(usage.running);
        self.state.limit = count(usage.limit);
        self.state.is_full = usage.is_full;
        self.running.set(f64::from(self.state.running));
        self.waiting.set(f64::from(count(usage.waiting)));
        self.offered.set(f64::from(count(usage.offered)));
        self.limit.set(f64::from(self.state.limit));
        self.utilization.set(self.state.utilization);
    }
}

/// The whole seconds that a period adds to the counters.
struct ElapsedSeconds {
    slot_seconds: u64,
    saturated_seconds: u64,
}

impl State {
    fn new(now: Instant) -> Self {
        let (slot_time, saturated_time) = (TimeCounter::default(), TimeCounter::default());
        let (running, limit, is_full, utilization) = (0, 0, false, 0.0);
        Self { since: now, running, limit, is_full, utilization, slot_time, saturated_time }
    }

    fn advance(&mut self, now: Instant) -> ElapsedSeconds {
        let elapsed = now.saturating_duration_since(self.since);
        self.since = now;
        // An exponentially weighted average, which is exact because the load was constant.
        let load = f64::from(self.running) / f64::from(self.limit.max(1));
        let weight = 1.0 - (-elapsed.as_secs_f64() / AVERAGING_TIME.as_secs_f64()).exp();
        self.utilization += weight * (load - self.utilization);
        let saturated = if self.is_full { elapsed } else { Duration::ZERO };
        ElapsedSeconds {
            slot_seconds: self.slot_time.add(elapsed.saturating_mul(self.running)),
            saturated_seconds: self.saturated_time.add(saturated),
        }
    }
}

/// A sum of durations, exported in whole seconds because counters take only integers.
#[derive(Default)]
struct TimeCounter {
    micros: u64,
    /// The number of seconds already returned.
    counted_seconds: u64,
}

impl TimeCounter {
    /// Adds a duration. Returns the whole seconds that have not been returned yet.
    fn add(&mut self, time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros = self.micros.saturating_add(micros);
        let seconds = (self.micros / MICROS).saturating_sub(self.counted_seconds);
        self.counted_seconds = self.counted_seconds.saturating_add(seconds);
        seconds
    }

    fn total(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_time_and_saturated_time_are_counted_to_the_microsecond() {
        let mut now = Instant::now();
        let mut state = State::new(now);
        (state.running, state.limit, state.is_full) = (3, 3, true);
        let (mut slot_seconds, mut saturated) = (0, 0);
        for _ in 0..1000 {
            now += Duration::from_micros(7_001);
            let elapsed = state.advance(now);
            slot_seconds += elapsed.slot_seconds;
            saturated += elapsed.saturated_seconds;
        }
        assert_eq!((slot_seconds, saturated), (21, 7), "7.001 s of three slots");
        let total = state.slot_time.total();
        assert_eq!(total, Duration::from_millis(21_003));
    }

    #[test]
    fn utilization_follows_the_load_within_minutes() {
        let mut now = Instant::now();
        let mut state = State::new(now);
        (state.running, state.limit) = (2, 4);
        now += AVERAGING_TIME;
        state.advance(now);
        assert!((state.utilization - 0.5 * (1.0 - 1.0_f64.exp().recip())).abs() < 1e-9);
        for _ in 0..600 {
            now += Duration::from_secs(1);
            state.advance(now);
        }
        assert!((state.utilization - 0.5).abs() < 1e-3, "{}", state.utilization);
    }
}
