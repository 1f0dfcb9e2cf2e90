//! How loaded a queue is: what runs, how much of its slots is used, and for how long it was full.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::QueueName;
use crate::telemetry::{Counter, Gauge, counter, gauge, names};

use crate::roles::worker::intake::slots::Slots;

/// The time over which utilisation is averaged: an autoscaler wants a trend, and soon.
const AVERAGED: Duration = Duration::from_mins(1);
/// Microseconds in a second.
const MICROS: u64 = 1_000_000;

/// The load of one queue and its figures.
pub(crate) struct Load {
    limit: Gauge,
    running: Gauge,
    waiting: Gauge,
    utilization: Gauge,
    slot_time: Counter,
    saturated: Counter,
    state: Mutex<State>,
}

/// What has been so since `at`.
struct State {
    at: Instant,
    running: u32,
    limit: u32,
    is_full: bool,
    utilization: f64,
    slot_time: Carry,
    saturated: Carry,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").finish_non_exhaustive()
    }
}

impl Load {
    /// Of a queue on which nothing runs yet.
    pub(crate) fn of<W>(name: &QueueName, slots: &Slots<W>, now: Instant) -> Self {
        let label = [(names::QUEUE, name.to_string())];
        let load = Self {
            limit: gauge(&names::WORKER_LIMIT, &label),
            running: gauge(&names::WORKER_RUNNING, &label),
            waiting: gauge(&names::WORKER_WAITING, &label),
            utilization: gauge(&names::WORKER_UTILIZATION, &label),
            slot_time: counter(&names::WORKER_SLOT_SECONDS, &label),
            saturated: counter(&names::WORKER_SATURATED, &label),
            state: Mutex::new(State::new(now)),
        };
        load.note(slots, now);
        load
    }

    /// The time that calls held slots, and the time that all slots were taken, since the start.
    pub(crate) fn totals(&self) -> (Duration, Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.slot_time.total(), state.saturated.total())
    }

    /// Takes what is so now. To be called whenever it has changed, and now and then: what was so until now is counted.
    pub(crate) fn note<W>(&self, slots: &Slots<W>, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = state.pass(now);
        self.slot_time.increment(passed.slot_seconds);
        self.saturated.increment(passed.saturated_seconds);
        state.running = u32::try_from(slots.running()).unwrap_or(u32::MAX);
        state.limit = u32::try_from(slots.limit()).unwrap_or(u32::MAX);
        state.is_full = slots.is_full();
        self.running.set(f64::from(state.running));
        self.waiting.set(f64::from(u32::try_from(slots.waiting()).unwrap_or(u32::MAX)));
        self.limit.set(f64::from(state.limit));
        self.utilization.set(state.utilization);
    }
}

/// What a counter gets: whole seconds.
struct Passed {
    slot_seconds: u64,
    saturated_seconds: u64,
}

impl State {
    fn new(now: Instant) -> Self {
        let (slot_time, saturated) = (Carry::default(), Carry::default());
        let (running, limit, is_full, utilization) = (0, 0, false, 0.0);
        Self { at: now, running, limit, is_full, utilization, slot_time, saturated }
    }

    fn pass(&mut self, now: Instant) -> Passed {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        // Exponentially weighted, exact between two changes: the load was constant.
        let load = f64::from(self.running) / f64::from(self.limit.max(1));
        let weight = 1.0 - (-passed.as_secs_f64() / AVERAGED.as_secs_f64()).exp();
        self.utilization += weight * (load - self.utilization);
        let full = if self.is_full { passed } else { Duration::ZERO };
        Passed {
            slot_seconds: self.slot_time.add(passed.saturating_mul(self.running)),
            saturated_seconds: self.saturated.add(full),
        }
    }
}

/// A counter holds whole numbers, and its unit is the second: the rest is carried over.
#[derive(Default)]
struct Carry {
    micros: u64,
    told: u64,
}

impl Carry {
    /// The whole seconds that the counter does not have yet.
    fn add(&mut self, passed: Duration) -> u64 {
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        self.micros = self.micros.saturating_add(micros);
        let seconds = (self.micros / MICROS).saturating_sub(self.told);
        self.told = self.told.saturating_add(seconds);
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
    fn slot_time_and_full_time_are_counted_to_the_microsecond() {
        let mut now = Instant::now();
        let mut state = State::new(now);
        (state.running, state.limit, state.is_full) = (3, 3, true);
        let (mut slot_seconds, mut saturated) = (0, 0);
        for _ in 0..1000 {
            now += Duration::from_micros(7_001);
            let passed = state.pass(now);
            slot_seconds += passed.slot_seconds;
            saturated += passed.saturated_seconds;
        }
        assert_eq!((slot_seconds, saturated), (21, 7), "7.001 s, three slots");
        let total = state.slot_time.total();
        assert_eq!(total, Duration::from_millis(21_003), "and to the microsecond");
    }

    #[test]
    fn utilisation_follows_the_load_within_a_minute_or_two() {
        let mut now = Instant::now();
        let mut state = State::new(now);
        (state.running, state.limit) = (2, 4);
        now += AVERAGED;
        state.pass(now);
        assert!((state.utilization - 0.5 * (1.0 - 1.0_f64.exp().recip())).abs() < 1e-9);
        for _ in 0..600 {
            now += Duration::from_secs(1);
            state.pass(now);
        }
        assert!((state.utilization - 0.5).abs() < 1e-3, "{}", state.utilization);
    }
}
