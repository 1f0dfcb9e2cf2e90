//! `make bench-scrape`: measures the cost of scraping at full load.
//!
//! Rounds with and without scraping alternate in the order A B B A, so that drift affects both. There is a scrape every
//! second, which is fifteen times as often as in production. The cost at an interval of 15 s is computed from the
//! processor time.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{ClientOptions, HttpVersion};
use crate::support::eventually::for_a_while;
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};

const CALLERS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(3);
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 24;
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
/// The number of consecutive scrapes over which the processor time is measured.
const SCRAPES: u32 = 200;
/// The scrape interval in production, in seconds.
const PRODUCTION: f64 = 15.0;
/// The number of clock ticks per second in `/proc`. It is the same on every Linux that fjord supports.
const TICKS: f64 = 100.0;

/// Scrapes with as little client code as possible, because Prometheus bears that cost in production.
async fn scrape(admin: SocketAddr) -> usize {
    let mut stream =
        TcpStream::connect(admin).await.expect("the admin listener accepts connections");
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut text = Vec::with_capacity(1 << 20);
    stream.read_to_end(&mut text).await.expect("the response");
    text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"fjord_")).count()
}

/// Returns the processor time of a process, in seconds.
fn used(node: &FjordProcess) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.process.pid()))
        .expect("the process is running");
    let fields =
        stat.rsplit(')').next().expect("the line has fields after the name").split_whitespace();
    let times = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    times.sum::<f64>() / TICKS
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(answers: u64, took: Duration) -> f64 {
    answers as f64 / took.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench of two minutes, not a test: make bench-scrape"]
async fn bench_scrape() {
    let fleet = Fleet::start(FleetOptions { concurrency: 64, ..FleetOptions::default() }).await;
    let nodes = [&fleet.gateways[0], &fleet.workers[0]];
    let admins = nodes.map(FjordProcess::admin);
    let client =
        fleet.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
    let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, answers, stop) = (client.clone(), Arc::clone(&answers), Arc::clone(&stop));
            Tasks::new().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.get("/v1/echo/7?text=t").await.is(200);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for_a_while(WARM_UP).await;
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let scrapes = matches!(round % 4, 1 | 2);
        let (before, start) = (answers.load(Ordering::Relaxed), Instant::now());
        while start.elapsed() < ROUND {
            let pause = tokio::time::Instant::now() + SCRAPED_EVERY;
            if scrapes {
                for admin in admins {
                    scrape(admin).await;
                }
            }
            for_a_while(pause.saturating_duration_since(tokio::time::Instant::now())).await;
        }
        let made = answers.load(Ordering::Relaxed) - before;
        rates[usize::from(scrapes)].push(rate(made, start.elapsed()));
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("the caller does not panic");
    }
    // Each block contains two rounds of each kind, which are close together in time.
    let blocks = rates[0].chunks(2).zip(rates[1].chunks(2));
    let mut changes: Vec<f64> = blocks
        .map(|(without, with)| {
            (with.iter().sum::<f64>() / without.iter().sum::<f64>() - 1.0) * 100.0
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    let (least, most) = (changes[0], changes[changes.len() - 1]);
    let middle = changes.len() / 2;
    let median = f64::midpoint(changes[middle - 1], changes[middle]);
    println!(
        "SCRAPE every 1 s at {:.0} requests/s: {median:+.2} % of throughput, {least:+.2} to {most:+.2} %",
        rates[0][0]
    );
    for (name, (node, admin)) in ["gateway", "worker"].iter().zip(nodes.into_iter().zip(admins)) {
        let before = used(node);
        let mut series = 0;
        for _ in 0..SCRAPES {
            series = scrape(admin).await;
        }
        let each = (used(node) - before) / f64::from(SCRAPES);
        let share = each / PRODUCTION * 100.0;
        println!(
            "SCRAPE of a {name}, {series} series: {:.2} ms of processor time, {share:.4} % of one at 15 s",
            each * 1000.0
        );
    }
}
