//! A bench, not a test: ten times as many callers as slots, on a cluster of three NATS servers and three workers
//! with a limit of 4. `make bench-overload` prints what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;

use super::support::client::{ClientOptions, Http, get_json};
use super::support::eventually::for_a_while;
use super::support::fjord::{Fleet, FleetOptions};

const WORKERS: usize = 3;
const LIMIT: usize = 4;
const CALLERS: usize = 10 * WORKERS * LIMIT;
const WORK: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// Messages that fjord's processes have published so far.
async fn published(fleet: &Fleet) -> f64 {
    let mut sum = 0.0;
    for server in &fleet.nats.servers {
        let connections = get_json(&format!("{}/connz", server.monitoring())).await;
        let connections = connections.expect("the server's monitoring");
        for connection in connections["connections"].as_array().expect("a list") {
            sum += connection["in_msgs"].as_f64().expect("a number");
        }
    }
    sum
}

/// Seconds that workers spent in calls, and how many calls there were.
async fn worked(fleet: &Fleet) -> (f64, f64) {
    let (mut seconds, mut calls) = (0.0, 0.0);
    for worker in &fleet.workers {
        seconds += worker.figure("fjord_worker_call_duration_seconds_sum").await;
        calls += worker.figure("fjord_worker_call_duration_seconds_count").await;
    }
    (seconds, calls)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, of one run told from its start to its end"
)]
async fn round(fleet: &Fleet, design: &str) {
    let client = fleet.client_with(ClientOptions { http: Http::Two, ..ClientOptions::default() });
    let stop = Arc::new(AtomicBool::new(false));
    let measuring = Arc::new(AtomicBool::new(false));
    let path = format!("/v1/slow?ms={}", WORK.as_millis());
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            let (stop, measuring) = (Arc::clone(&stop), Arc::clone(&measuring));
            Tasks::new().spawn(async move {
                let (mut waits, mut others) = (Vec::new(), 0_usize);
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let answer = client.get(&path).await;
                    if !measuring.load(Ordering::Relaxed) {
                        continue;
                    }
                    if answer.status == 200 {
                        waits.push(start.elapsed().saturating_sub(WORK));
                    } else {
                        others += 1;
                    }
                }
                (waits, others)
            })
        })
        .collect();
    for_a_while(WARM_UP).await;
    measuring.store(true, Ordering::Relaxed);
    let (messages, (seconds, calls), start) =
        (published(fleet).await, worked(fleet).await, Instant::now());
    for_a_while(MEASURED).await;
    let took = start.elapsed().as_secs_f64();
    measuring.store(false, Ordering::Relaxed);
    let messages = published(fleet).await - messages;
    let (seconds, calls) = {
        let now = worked(fleet).await;
        (now.0 - seconds, now.1 - calls)
    };
    stop.store(true, Ordering::Relaxed);
    let (mut waits, mut others) = (Vec::new(), 0);
    for caller in callers {
        let (some, other) = caller.await.expect("a caller");
        waits.extend(some);
        others += other;
    }
    waits.sort_unstable();
    let at = |share: f64| {
        let place = (waits.len() as f64 * share) as usize;
        waits.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    let slots = (WORKERS * LIMIT) as f64;
    let call_ms = seconds / calls * 1000.0;
    let capacity = slots / WORK.as_secs_f64();
    // First come, first served, one queue: each of the callers waits for those before it.
    let ideal = WORK.as_secs_f64() * 1000.0 * (CALLERS as f64 / slots - 1.0);
    println!(
        "{design}: {:.0}/s = {:.1} % of {capacity:.0}/s (12 slots, 10 ms) | slots busy {:.1} % | \
         {:.2} messages per request | wait p50 {:.1} p99 {:.1} ms, p99 = {:.2} x {ideal:.0} ms | \
         call {call_ms:.2} ms | other answers {others}",
        waits.len() as f64 / took,
        waits.len() as f64 / took / capacity * 100.0,
        seconds / took / slots * 100.0,
        messages / calls,
        at(0.5),
        at(0.99),
        at(0.99) / ideal,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench of a minute: make bench-overload"]
async fn bench_overload() {
    for (design, worker_toml) in
        [("offers", ""), ("no offers: the head asks again", "[worker]\nrefused_max = 0\n")]
    {
        let options = FleetOptions {
            nats_servers: 3,
            workers: WORKERS,
            concurrency: LIMIT,
            worker_toml: worker_toml.to_owned(),
            ..FleetOptions::default()
        };
        let fleet = Fleet::start(options).await;
        for _ in 0..ROUNDS {
            round(&fleet, design).await;
        }
    }
}
