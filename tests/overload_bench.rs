//! `make bench-overload`: a benchmark with ten callers for each slot, on a cluster of three NATS servers and three workers
//! with four slots each.

mod short_calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, HeaderMap};
use fjord::lifecycle::Tasks;

use super::support::client::{Client, ClientOptions, HttpVersion, get_json};
use super::support::eventually::for_a_while;
use super::support::fleet::{Fleet, FleetOptions};

const WORKERS: usize = 3;
const LIMIT: usize = 4;
const SLOTS: usize = WORKERS * LIMIT;
const CALLERS: usize = 10 * SLOTS;
const WORK: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// A way to send requests and handle refusals.
#[derive(Clone, Debug)]
enum LoadCaller {
    /// Sends requests through the gateway. A worker that refused a request offers it the next free slot.
    Gateway(Client),
    /// Sends requests directly to the queue group, and sends a refused request again after this pause. This is the
    /// obvious alternative design. Only this benchmark uses it.
    BlindRetry(async_nats::Client, Duration),
}

impl LoadCaller {
    /// Sends a request. Returns whether the response was a 200.
    async fn call(&self) -> bool {
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
                let reply = client.request_with_headers(subject, headers, body.into()).await;
                let Ok(reply) = reply else { return false };
                let headers = reply.headers.unwrap_or_default();
                if headers.get("Fjord-Reply").is_some_and(|kind| kind.as_str() == "final") {
                    return headers
                        .get("Fjord-Status")
                        .is_some_and(|status| status.as_str() == "200");
                }
                for_a_while(*pause).await;
            },
        }
    }
}

/// Returns the number of messages that the processes in the fleet have published.
async fn published_messages(fleet: &Fleet) -> f64 {
    let mut sum = 0.0;
    for server in &fleet.nats.servers {
        let connections = get_json(&format!("{}/connz", server.monitoring())).await;
        let connections = connections.expect("the server answers with its connections");
        for connection in connections["connections"].as_array().expect("a list") {
            sum += connection["in_msgs"].as_f64().expect("a number");
        }
    }
    sum
}

/// Returns the time that workers have spent in calls, in seconds, and the number of calls.
async fn call_totals(fleet: &Fleet) -> (f64, f64) {
    let (mut seconds, mut calls) = (0.0, 0.0);
    for worker in &fleet.workers {
        seconds += worker.metric("fjord_worker_call_duration_seconds_sum").await;
        calls += worker.metric("fjord_worker_call_duration_seconds_count").await;
    }
    (seconds, calls)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the results are approximate and printed for people"
)]
async fn round(fleet: &Fleet, design: &str, caller: &LoadCaller) {
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
                    let is_ok = caller.call().await;
                    if !measuring.load(Ordering::Relaxed) {
                        continue;
                    }
                    if is_ok {
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
        (published_messages(fleet).await, call_totals(fleet).await, Instant::now());
    for_a_while(MEASURED).await;
    let took = start.elapsed().as_secs_f64();
    measuring.store(false, Ordering::Relaxed);
    let messages = published_messages(fleet).await - messages;
    let (seconds, calls) = {
        let now = call_totals(fleet).await;
        (now.0 - seconds, now.1 - calls)
    };
    stop.store(true, Ordering::Relaxed);
    let (mut waits, mut others) = (Vec::new(), 0);
    for caller in callers {
        let (caller_waits, other) = caller.await.expect("the caller does not panic");
        waits.extend(caller_waits);
        others += other;
    }
    waits.sort_unstable();
    let percentile = |share: f64| {
        let index = (waits.len() as f64 * share) as usize;
        waits.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    let slots = SLOTS as f64;
    let call_ms = seconds / calls * 1000.0;
    let capacity = slots / WORK.as_secs_f64();
    let per_second = waits.len() as f64 / took;
    // In a single queue in order of arrival, each caller would wait once for all other callers.
    let ideal = WORK.as_secs_f64() * 1000.0 * (CALLERS as f64 / slots - 1.0);
    println!(
        "{design}: {per_second:.0}/s = {:.1} % of {capacity:.0}/s ({SLOTS} slots, 10 ms), {:.1} % of the maximum for calls of \
         {call_ms:.2} ms | slots busy {:.1} % | {:.2} messages per request | \
         wait p50 {:.1} p99 {:.1} max {:.1} ms, p99 = {:.2} x {ideal:.0} ms | other answers {others}",
        per_second / capacity * 100.0,
        per_second * call_ms / 1000.0 / slots * 100.0,
        seconds / took / slots * 100.0,
        messages / waits.len() as f64,
        percentile(0.5),
        percentile(0.99),
        percentile(1.0 - f64::EPSILON),
        percentile(0.99) / ideal,
    );
}

/// Connects to NATS, to send requests without the gateway.
async fn nats(fleet: &Fleet) -> async_nats::Client {
    let options = ConnectOptions::new()
        .add_root_certificates(fleet.certs.ca.clone())
        .request_timeout(Some(Duration::from_mins(1)));
    options.connect(fleet.nats.urls()[0].as_str()).await.expect("the connection succeeds")
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
#[ignore = "takes minutes: make bench-overload"]
async fn bench_overload() {
    let offering = fleet("").await;
    let client =
        offering.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
    // These workers make no offers. The callers retry blindly, so an offer would only reserve a slot that nobody uses.
    let plain = fleet("[worker]\nremembered_refusals_max = 0\n").await;
    let nats = nats(&plain).await;
    for _ in 0..ROUNDS {
        round(&offering, "offers", &LoadCaller::Gateway(client.clone())).await;
        for pause in [Duration::ZERO, WORK] {
            let design = format!("blind retry after {} ms", pause.as_millis());
            round(&plain, &design, &LoadCaller::BlindRetry(nats.clone(), pause)).await;
        }
    }
}
