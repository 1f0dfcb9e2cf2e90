//! A benchmark with four callers for each slot, and calls that are shorter than a round trip. A request with queueing
//! must cost only slightly more than a request without queueing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;

use super::super::support::client::{Client, ClientOptions, HttpVersion};
use super::super::support::eventually::for_a_while;
use super::super::support::fleet::{Fleet, FleetOptions};
use super::published_messages;

const SLOTS: usize = 64;
const CALLERS_QUEUEING: usize = 4 * SLOTS;
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 7;
/// The maximum CPU time of a request with queueing, as a multiple of the CPU time without it.
const COST_MAX: f64 = 1.1;
const MESSAGES_MAX: f64 = 2.2;
/// The number of clock ticks per second: `USER_HZ` on Linux.
const TICKS: f64 = 100.0;

/// The CPU time of both roles and the number of NATS messages per request, and the number of requests per second.
#[derive(Clone, Copy, Debug)]
struct RequestCost {
    cpu_us: f64,
    messages: f64,
    per_second: f64,
}

fn as_f64(number: usize) -> f64 {
    u32::try_from(number).expect("the number fits u32").into()
}

/// Returns the CPU time that both roles have used, in seconds.
fn cpu_seconds(fleet: &Fleet) -> f64 {
    let seconds = |pid: u32| {
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is running");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("the line has fields after the name")
            .split(' ')
            .collect();
        let ticks =
            |index: usize| fields[index].parse::<f64>().expect("the field is a number of ticks");
        (ticks(12) + ticks(13)) / TICKS
    };
    let nodes = fleet.gateways.iter().chain(&fleet.workers);
    nodes.map(|node| seconds(node.process.pid())).sum()
}

async fn measure(fleet: &Fleet, client: &Client, callers: usize) -> RequestCost {
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (client, stop, answers) = (client.clone(), Arc::clone(&stop), Arc::clone(&answers));
            Tasks::new().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.get("/v1/echo/short").await.is(200);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for_a_while(WARM_UP).await;
    let before =
        (cpu_seconds(fleet), published_messages(fleet).await, answers.load(Ordering::Relaxed));
    for_a_while(MEASURED).await;
    let after =
        (cpu_seconds(fleet), published_messages(fleet).await, answers.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("the caller does not panic");
    }
    let requests = as_f64(after.2 - before.2);
    RequestCost {
        cpu_us: (after.0 - before.0) * 1e6 / requests,
        messages: (after.1 - before.1) / requests,
        per_second: requests / MEASURED.as_secs_f64(),
    }
}

fn median(samples: &[RequestCost], figure: impl Fn(&RequestCost) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: make bench-overload"]
async fn bench_overload_of_short_calls() {
    let options = FleetOptions { concurrency: SLOTS, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client =
        fleet.client_with(ClientOptions { http: HttpVersion::One, ..ClientOptions::default() });
    let (mut alone, mut queueing, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = measure(&fleet, &client, SLOTS).await;
        let with = measure(&fleet, &client, CALLERS_QUEUEING).await;
        ratios.push(with.cpu_us / without.cpu_us);
        alone.push(without);
        queueing.push(with);
    }
    for (callers, samples) in [(SLOTS, &alone), (CALLERS_QUEUEING, &queueing)] {
        println!(
            "short calls, {callers} callers on {SLOTS} slots: {:.0}/s, {:.1} us of CPU, {:.2} messages per request",
            median(samples, |sample| sample.per_second),
            median(samples, |sample| sample.cpu_us),
            median(samples, |sample| sample.messages),
        );
    }
    ratios.sort_by(f64::total_cmp);
    let (cost, messages) = (ratios[ratios.len() / 2], median(&queueing, |sample| sample.messages));
    println!(
        "short calls: a request costs {cost:.2} times as much with queueing, by round {ratios:.2?}"
    );
    assert!(messages <= MESSAGES_MAX, "{messages:.2} messages per request");
    assert!(cost <= COST_MAX, "{cost:.2} times the CPU");
}
