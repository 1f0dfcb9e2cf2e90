//! A bench: four times as many callers as slots of a call that is shorter than a round trip. Queueing there must cost hardly
//! more than no queueing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;

use super::super::support::client::{Client, ClientOptions, Http};
use super::super::support::eventually::for_a_while;
use super::super::support::fjord::{Fleet, FleetOptions};
use super::published;

const SLOTS: usize = 64;
const CROWD: usize = 4 * SLOTS;
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 7;
/// What a request of the crowd may cost, as a multiple of one without it.
const COST_MAX: f64 = 1.1;
const MESSAGES_MAX: f64 = 2.2;
/// Ticks of processor time in a second, as Linux tells them to everybody.
const TICKS: f64 = 100.0;

/// One sample: processor time of both roles in microseconds, and messages, of one request.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_us: f64,
    messages: f64,
    per_second: f64,
}

fn as_f64(number: usize) -> f64 {
    u32::try_from(number).expect("a small number").into()
}

/// Seconds of processor time that both roles have used.
fn cpu(fleet: &Fleet) -> f64 {
    let seconds = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split(' ').collect();
        let ticks = |place: usize| fields[place].parse::<f64>().expect("ticks");
        (ticks(12) + ticks(13)) / TICKS
    };
    let nodes = fleet.gateways.iter().chain(&fleet.workers);
    nodes.map(|node| seconds(node.process.pid())).sum()
}

async fn sample(fleet: &Fleet, client: &Client, callers: usize) -> Sample {
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
    let before = (cpu(fleet), published(fleet).await, answers.load(Ordering::Relaxed));
    for_a_while(MEASURED).await;
    let after = (cpu(fleet), published(fleet).await, answers.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a caller");
    }
    let requests = as_f64(after.2 - before.2);
    Sample {
        cpu_us: (after.0 - before.0) * 1e6 / requests,
        messages: (after.1 - before.1) / requests,
        per_second: requests / MEASURED.as_secs_f64(),
    }
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench of a minute: make bench-overload"]
async fn bench_overload_of_short_calls() {
    let options = FleetOptions { concurrency: SLOTS, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client = fleet.client_with(ClientOptions { http: Http::One, ..ClientOptions::default() });
    let (mut few, mut crowd, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = sample(&fleet, &client, SLOTS).await;
        let together = sample(&fleet, &client, CROWD).await;
        costs.push(together.cpu_us / alone.cpu_us);
        few.push(alone);
        crowd.push(together);
    }
    for (callers, samples) in [(SLOTS, &few), (CROWD, &crowd)] {
        println!(
            "short calls, {callers} callers on {SLOTS} slots: {:.0}/s, {:.1} us of CPU, {:.2} messages per request",
            median(samples, |sample| sample.per_second),
            median(samples, |sample| sample.cpu_us),
            median(samples, |sample| sample.messages),
        );
    }
    costs.sort_by(f64::total_cmp);
    let (cost, messages) = (costs[costs.len() / 2], median(&crowd, |sample| sample.messages));
    println!("short calls: the crowd costs {cost:.2} times as much, paired {costs:.2?}");
    assert!(messages <= MESSAGES_MAX, "{messages:.2} messages per request");
    assert!(cost <= COST_MAX, "{cost:.2} times the CPU");
}
