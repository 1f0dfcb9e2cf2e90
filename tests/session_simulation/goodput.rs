//! Promise: under overload, nearly all of the capacity is used regardless of the distance to the workers, and nearly
//! every request without an answer was certainly not executed.

use std::time::Duration;

use super::scenario::{Faults, Guards, RunReport, SimulatedLoad};
use super::workers::LIMIT;
use super::world::{WORKERS, World};

const CALL: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(15);
/// The number of runs with calls of one length, and of runs with calls of different lengths. Their results vary by a
/// tenth.
const SEEDS: u32 = 2;
const SEEDS_OF_MIXED_CALLS: u32 = 8;
/// At most one request in this number may end with an unknown outcome.
const UNKNOWN_ONE_IN: usize = 200;

/// Returns the share of the capacity that was used under a load of 1.5 times the capacity. It is the mean over all
/// seeds.
fn used(round_trip: u64, at_most_once: bool, calls: (Duration, Duration)) -> f64 {
    let slots = u32::try_from(WORKERS * LIMIT).unwrap();
    let mean = (calls.0 + calls.1) / 2;
    let capacity = f64::from(slots) / mean.as_secs_f64();
    let per_second = slots * 1500 / u32::try_from(mean.as_millis()).unwrap();
    let lasts = WARM_UP + MEASURED;
    let load = SimulatedLoad { per_second, at_most_once, warm_up: WARM_UP, lasts };
    let latency = Duration::from_millis(round_trip / 2);
    let faults = Faults { crowd: 0, load: Some(load), latency, calls, ..Faults::NONE };
    let mut total = RunReport::default();
    let seeds = if calls.0 == calls.1 { SEEDS } else { SEEDS_OF_MIXED_CALLS };
    for seed in 0..seeds {
        let report = World::new(seed.into(), faults, Guards::default()).run();
        assert_eq!(report.violation, None, "seed {seed}");
        total.add(&report);
    }
    let (unknown, requests) = (total.outcome_unknown, total.requests);
    println!("round trip {round_trip} ms: {unknown} of {requests} have an unknown outcome");
    assert!(unknown * UNKNOWN_ONE_IN <= requests, "{round_trip} ms: {total:?}");
    let answered = f64::from(u32::try_from(total.answered_after_warm_up).unwrap());
    answered / f64::from(seeds) / MEASURED.as_secs_f64() / capacity
}

fn check(at_most_once: bool, used_min: f64, calls: (Duration, Duration)) {
    for round_trip in [0, 100, 300, 800] {
        let used = used(round_trip, at_most_once, calls);
        println!("round trip {round_trip} ms, at most once {at_most_once}: {used:.3}");
        assert!(used >= used_min, "{round_trip} ms: {used:.3} of the capacity");
    }
}

#[test]
fn at_least_once_requests_use_nine_tenths_of_the_capacity() {
    check(false, 0.9, (CALL, CALL));
}

#[test]
fn at_most_once_requests_use_eight_tenths_of_the_capacity() {
    check(true, 0.8, (CALL, CALL));
}

#[test]
fn calls_of_all_lengths_use_most_of_the_capacity() {
    check(false, 0.9, (Duration::from_millis(10), Duration::from_millis(390)));
    check(true, 0.8, (Duration::from_millis(10), Duration::from_millis(390)));
}
