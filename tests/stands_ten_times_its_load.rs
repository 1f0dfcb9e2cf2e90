//! A bench, not a test: ten times as many callers as slots, on a cluster of three NATS servers and three workers
//! with a limit of 4. `make bench-overload` prints what came of it.

mod short_calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, HeaderMap};
use fjord::lifecycle::Tasks;

use super::support::client::{Client, ClientOptions, Http, get_json};
use super::support::eventually::for_a_while;
use super::support::fjord::{Fleet, FleetOptions};

const WORKERS: usize = 3;
const LIMIT: usize = 4;
const SLOTS: usize = WORKERS * LIMIT;
const CALLERS: usize = 10 * SLOTS;
const WORK: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// Who calls, and what happens to a request that a worker refuses.
#[derive(Clone, Debug)]
enum Caller {
    /// Through the gateway: the worker offers the next slot that frees.
    Gateway(Client),
    /// Past the gateway, without HTTP: the refused request is sent to the group again after this pause. What
    /// everybody would build first; it is nowhere but in this bench.
    BlindRetry(async_nats::Client, Duration),
}

impl Caller {
    /// Whether a request was answered 200.
    async fn ask(&self) -> bool {
        match self {
            Self::Gateway(client) => {
                let path = format!("/v1/slow?ms={}", WORK.as_millis());
                client.get(&path).await.status == 200
            }
            Self::BlindRetry(client, pause) => loop {
                let mut headers = HeaderMap::new();
                headers.insert("Fjord-Endpoint", "slow");
                headers.insert("Fjord-Timeout-Ms", "60000");
                let body = format!("{{\"ms\":{}}}", WORK.as_millis());
                let subject = "fjord.q.slow";
                let asked = client.request_with_headers(subject, headers, body.into()).await;
                let Ok(reply) = asked else { return false };
                let said = reply.headers.unwrap_or_default();
                if said.get("Fjord-Reply").is_some_and(|kind| kind.as_str() == "final") {
                    return said.get("Fjord-Status").is_some_and(|status| status.as_str() == "200");
                }
                for_a_while(*pause).await;
            },
        }
    }
}

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
async fn round(fleet: &Fleet, design: &str, caller: &Caller) {
    let stop = Arc::new(AtomicBool::new(false));
    let measuring = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let caller = caller.clone();
            let (stop, measuring) = (Arc::clone(&stop), Arc::clone(&measuring));
            Tasks::new().spawn(async move {
                let (mut waits, mut others) = (Vec::new(), 0_usize);
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let is_good = caller.ask().await;
                    if !measuring.load(Ordering::Relaxed) {
                        continue;
                    }
                    if is_good {
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
    let slots = SLOTS as f64;
    let call_ms = seconds / calls * 1000.0;
    let capacity = slots / WORK.as_secs_f64();
    let per_second = waits.len() as f64 / took;
    // First come, first served, one queue: each of the callers waits for those before it.
    let ideal = WORK.as_secs_f64() * 1000.0 * (CALLERS as f64 / slots - 1.0);
    println!(
        "{design}: {per_second:.0}/s = {:.1} % of {capacity:.0}/s ({SLOTS} slots, 10 ms), {:.1} % of what calls of \
         {call_ms:.2} ms allow | slots busy {:.1} % | {:.2} messages per request | \
         wait p50 {:.1} p99 {:.1} max {:.1} ms, p99 = {:.2} x {ideal:.0} ms | other answers {others}",
        per_second / capacity * 100.0,
        per_second * call_ms / 1000.0 / slots * 100.0,
        seconds / took / slots * 100.0,
        messages / waits.len() as f64,
        at(0.5),
        at(0.99),
        at(1.0 - f64::EPSILON),
        at(0.99) / ideal,
    );
}

/// A connection past the gateway.
async fn nats(fleet: &Fleet) -> async_nats::Client {
    let options = ConnectOptions::new()
        .add_root_certificates(fleet.certs.ca.clone())
        .request_timeout(Some(Duration::from_mins(1)));
    options.connect(fleet.nats.urls()[0].as_str()).await.expect("a connection")
}

async fn fleet(worker_toml: &str) -> Fleet {
    Fleet::start(FleetOptions {
        nats_servers: 3,
        workers: WORKERS,
        concurrency: LIMIT,
        worker_toml: worker_toml.to_owned(),
        ..FleetOptions::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench of minutes: make bench-overload"]
async fn bench_overload() {
    let offering = fleet("").await;
    let client =
        offering.client_with(ClientOptions { http: Http::Two, ..ClientOptions::default() });
    // Workers that offer nothing: a blind caller would not hear it, and a slot would be kept for it.
    let plain = fleet("[worker]\nrefused_max = 0\n").await;
    let nats = nats(&plain).await;
    for _ in 0..ROUNDS {
        round(&offering, "offers", &Caller::Gateway(client.clone())).await;
        for pause in [Duration::ZERO, WORK] {
            let design = format!("blind retry after {} ms", pause.as_millis());
            round(&plain, &design, &Caller::BlindRetry(nats.clone(), pause)).await;
        }
    }
}
