//! Promise: a group of workers that follows the published load serves a day's requests with fewer worker hours than a
//! fixed fleet, and only a few requests have to wait. The load is computed by the function that `fjord ec2 publish`
//! uses.
//!
//! `make simulate-growth` prints the tables that docs/OPERATIONS.md quotes.

mod day;
mod group;
mod queue;

use day::Day;
use fjord::telemetry::count_as_f64;
use group::{Fixed, Following, Group};
use queue::{SimulatedQueue, WaitSummary};

/// The slots of a worker.
const SLOTS: u64 = 8;
/// The time from the launch of an instance until its worker serves requests, in seconds.
const START_SECONDS: u64 = 90;

/// The result of a day.
#[derive(Debug)]
struct DayResult {
    name: String,
    worker_hours: f64,
    /// The share of the slots that were in use.
    utilization: f64,
    fewest: u64,
    most: u64,
    waits: WaitSummary,
    hours: Vec<HourResult>,
}

/// The result of an hour.
#[derive(Debug)]
struct HourResult {
    requests_per_second: f64,
    /// The number of workers at the end of the hour.
    workers: u64,
    utilization: f64,
    waits: WaitSummary,
}

/// Runs some hours of a day, second by second.
fn simulate(day: Day, hours: u64, group: &mut dyn Group) -> DayResult {
    let mut queue = SimulatedQueue::new();
    let mut arrivals = day.arrivals();
    let (mut worker_seconds, mut slot_seconds) = (0, 0);
    let (mut fewest, mut most) = (u64::MAX, 0);
    let mut results = Vec::new();
    for hour in 0..hours {
        let (slots_before, used_before) = (slot_seconds, queue.used_seconds());
        let mut ready = 0;
        for second in hour * 3600..(hour + 1) * 3600 {
            let workers = group.advance(second, &mut queue);
            ready = workers.ready;
            queue.set_slots(ready * SLOTS);
            let until = count_as_f64(second + 1);
            while let Some(arrival) = arrivals.next_before(until) {
                queue.arrive(arrival.time, arrival.call_seconds);
            }
            queue.advance(until);
            worker_seconds += workers.running;
            slot_seconds += ready * SLOTS;
            (fewest, most) = (fewest.min(ready), most.max(ready));
        }
        let used = queue.used_seconds() - used_before;
        let waits = queue.take_hour();
        results.push(HourResult {
            requests_per_second: count_as_f64(waits.requests) / 3600.0,
            workers: ready,
            utilization: used / count_as_f64(slot_seconds - slots_before),
            waits,
        });
    }
    DayResult {
        name: group.name(),
        worker_hours: count_as_f64(worker_seconds) / 3600.0,
        utilization: queue.used_seconds() / count_as_f64(slot_seconds),
        fewest,
        most,
        waits: queue.summary(),
        hours: results,
    }
}

fn print_row(result: &DayResult) {
    let DayResult { name, worker_hours, utilization, fewest, most, waits, .. } = result;
    println!(
        "| {name} | {fewest} to {most} | {worker_hours:.0} | {:.0} % | {:.2} s | {:.2} s | {:.2} % | {:.3} % |",
        utilization * 100.0,
        waits.p99,
        waits.longest,
        waits.share_over_second * 100.0,
        count_as_f64(waits.refused) / count_as_f64(waits.requests) * 100.0,
    );
}

#[test]
fn a_group_that_follows_the_load_needs_fewer_worker_hours_than_a_fixed_fleet() {
    let day = Day::new(20_261_130);
    // This fleet has the slots that the peak needs according to docs/OPERATIONS.md: 54 requests per second × 0.8 s ÷
    // 0.8.
    let peak = simulate(day, 24, &mut Fixed::new(7));
    // This fleet has about as many worker hours as the group that follows the load.
    let mean = simulate(day, 24, &mut Fixed::new(5));
    let following = simulate(day, 24, &mut Following::new(2, 12));
    println!(
        "| fleet | workers | worker hours | slots used | wait p99 | longest wait | waited over 1 s | refused |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for result in [&peak, &mean, &following] {
        print_row(result);
    }
    println!("\n| hour | requests/s | workers | slots used | wait p99 | refused |");
    println!("|---|---|---|---|---|---|");
    for (hour, result) in following.hours.iter().enumerate() {
        let HourResult { requests_per_second, workers, utilization, waits } = result;
        println!(
            "| {hour} | {requests_per_second:.0} | {workers} | {:.0} % | {:.2} s | {} |",
            utilization * 100.0,
            waits.p99,
            waits.refused,
        );
    }
    assert_eq!(peak.waits.requests, following.waits.requests, "the same requests");
    assert!(following.worker_hours < 0.7 * peak.worker_hours, "{following:?}");
    assert!(following.utilization > 1.4 * peak.utilization, "{following:?}");
    assert!(following.waits.share_over_second < 0.005, "{following:?}");
    assert!(mean.waits.share_over_second > 10.0 * following.waits.share_over_second, "{mean:?}");
    assert!(following.fewest == 2 && following.most <= 12, "{following:?}");
}

#[test]
fn a_day_is_the_same_every_time() {
    let run = || simulate(Day::new(1), 2, &mut Following::new(2, 12));
    let (first, second) = (run(), run());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}
