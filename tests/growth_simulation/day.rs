//! The requests of a day: the times at which they arrive, and the time for which each of them occupies a slot.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use fjord::telemetry::snapshot::to_count;

/// The requests per second at each full hour. Between full hours, the rate changes linearly.
const CURVE: [f64; 25] = [
    6.0, 5.0, 4.0, 4.0, 5.0, 8.0, 15.0, 26.0, 40.0, 50.0, 54.0, 52.0, 44.0, 46.0, 52.0, 50.0, 44.0,
    34.0, 26.0, 22.0, 18.0, 14.0, 11.0, 8.0, 6.0,
];
/// A burst: the second at which it begins, its duration in seconds, and the additional requests per second.
const BURST: (f64, f64, f64) = (19.0 * 3600.0, 900.0, 18.0);
/// The times for which calls occupy a slot, in seconds, and the share of the requests that are fast. The mean is
/// 0.8 s.
const FAST: f64 = 0.4;
const SLOW: f64 = 2.4;
const FAST_SHARE: f64 = 0.8;

/// A day, identified by the seed of its random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day(u64);

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) time: f64,
    pub(super) call_seconds: f64,
}

/// The requests of a day, in order of arrival.
#[derive(Debug)]
pub(super) struct Arrivals {
    random: StdRng,
    next: Option<Arrival>,
    time: f64,
}

impl Day {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn arrivals(self) -> Arrivals {
        Arrivals { random: StdRng::seed_from_u64(self.0), next: None, time: 0.0 }
    }
}

/// Returns the expected number of requests per second at a time.
fn rate(time: f64) -> f64 {
    let hour = (time / 3600.0).clamp(0.0, 23.999);
    let index = usize::try_from(to_count(hour.floor())).expect("an hour");
    let part = hour.fract();
    let base = CURVE[index] * (1.0 - part) + CURVE[index + 1] * part;
    let (start, length, additional) = BURST;
    if (start..start + length).contains(&time) { base + additional } else { base }
}

impl Arrivals {
    /// Returns the next request before a time. Requests arrive as a Poisson process with the rate of the curve.
    pub(super) fn next_before(&mut self, until: f64) -> Option<Arrival> {
        if self.next.is_none() {
            let pause = -(1.0 - self.random.random::<f64>()).ln() / rate(self.time);
            self.time += pause;
            let is_fast = self.random.random::<f64>() < FAST_SHARE;
            let call_seconds = if is_fast { FAST } else { SLOW };
            self.next = Some(Arrival { time: self.time, call_seconds });
        }
        self.next.take_if(|next| next.time < until)
    }
}
