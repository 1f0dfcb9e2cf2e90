//! The load generator: a closed loop for capacity, a fixed arrival rate for latency.
//!
//! At a fixed rate a request's time counts from when it was due, not from when somebody was free to send it: a stall
//! is told by every request that it delayed (coordinated omission).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use fjord::lifecycle::Tasks;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};

use crate::support::eventually::for_a_while;

use super::https::{Connection, Dialler, Http};
use super::{ID_BYTES, REQUEST_BYTES, account, peers};

/// Requests that are due and not yet sent.
const DUE_MAX: usize = 1 << 16;

/// What is asked, how and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Caller {
    /// HTTPS servers that share the connections; without one, NATS is asked.
    #[arg(long)]
    pub(crate) https: Vec<SocketAddr>,
    #[arg(long)]
    pub(crate) nats: Option<String>,
    #[arg(long)]
    pub(crate) ca: PathBuf,
    #[arg(long, default_value = "h1")]
    pub(crate) http: Http,
    #[arg(long)]
    pub(crate) concurrency: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Requests per second; without it each request follows the answer to the one before.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Processes whose processor time counts; this one is counted too.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    /// Requests answered 200.
    pub(crate) answers: u64,
    /// Other answers, and none.
    pub(crate) failures: u64,
    /// Answers in a second.
    pub(crate) per_second: f64,
    /// Latency in microseconds: half, 99 %, 99.9 % of the requests were quicker.
    pub(crate) micros: [u32; 3],
    /// Processor seconds per 1,000 requests of each process that was named, and of the caller at the end.
    pub(crate) cpu: Vec<f64>,
    /// Resident KiB of each process that was named, under this load.
    pub(crate) resident_kib: Vec<f64>,
}

enum Line {
    Https(Connection),
    Nats(async_nats::Client),
}

impl Line {
    /// Whether it was answered well; nothing when there is nobody to ask any more.
    async fn ask(&mut self) -> Option<bool> {
        match self {
            Self::Https(connection) => connection.ask().await,
            Self::Nats(client) => {
                static BODY: [u8; REQUEST_BYTES] = [b'x'; REQUEST_BYTES];
                Some(client.request(peers::SUBJECT, Bytes::from_static(&BODY)).await.is_ok())
            }
        }
    }
}

/// What all lines share.
struct Meter {
    stop: AtomicBool,
    measuring: AtomicBool,
    due: Option<Mutex<mpsc::Receiver<Instant>>>,
}

impl Meter {
    /// One line's requests: times in microseconds, and how many failed.
    async fn drive(self: Arc<Self>, mut line: Line) -> (Vec<u32>, u64) {
        let (mut times, mut failures) = (Vec::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            let start = match &self.due {
                None => Instant::now(),
                Some(due) => match due.lock().await.recv().await {
                    Some(due) => due,
                    None => break,
                },
            };
            let Some(is_good) = line.ask().await else {
                failures += 1;
                break;
            };
            if self.measuring.load(Ordering::Relaxed) {
                if is_good {
                    times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
                } else {
                    failures += 1;
                }
            }
        }
        (times, failures)
    }
}

/// Says when requests are due, from a thread of its own: the runtime's timer has milliseconds only.
fn pace(rate: f64, until: Instant) -> mpsc::Receiver<Instant> {
    let (sender, due) = mpsc::channel(DUE_MAX);
    std::thread::spawn(move || {
        let (step, mut next) = (Duration::from_secs_f64(1.0 / rate), Instant::now());
        while next < until {
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            while next <= Instant::now() {
                // A target so slow that this is full has failed, and its times tell it.
                if sender.try_send(next).is_err() && sender.is_closed() {
                    return;
                }
                next += step;
            }
        }
    });
    due
}

impl Caller {
    pub(crate) async fn run(self) {
        let sample = self.measure().await;
        println!("{}", serde_json::to_string(&sample).expect("figures are JSON"));
    }

    async fn lines(&self) -> Vec<Line> {
        if !self.https.is_empty() {
            let path = format!("/v1/echo/{}", "x".repeat(ID_BYTES));
            let mut lines = Vec::new();
            for address in &self.https {
                let dialler = Dialler::new(*address, &self.ca, self.http, path.clone());
                let each = self.concurrency / self.https.len();
                lines.extend(dialler.connections(self.http, each).await);
            }
            return lines.into_iter().map(Line::Https).collect();
        }
        let url = self.nats.as_deref().expect("either --https or --nats");
        let client = peers::connect(url, self.ca.clone()).await;
        (0..self.concurrency).map(|_| Line::Nats(client.clone())).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    async fn measure(&self) -> Sample {
        let lines = self.lines().await;
        let warm_up = Duration::from_secs_f64(self.seconds / 2.0);
        let measured = Duration::from_secs_f64(self.seconds);
        let until = Instant::now() + warm_up + measured + Duration::from_secs(1);
        let due = self.rate.map(|rate| Mutex::new(pace(rate, until)));
        let meter = Arc::new(Meter {
            stop: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            due,
        });
        let each = lines.into_iter().map(|line| Tasks::new().spawn(Arc::clone(&meter).drive(line)));
        let each: Vec<_> = each.collect();
        for_a_while(warm_up).await;
        let pids: Vec<u32> = self.pid.iter().copied().chain([std::process::id()]).collect();
        let used = |pids: &[u32]| pids.iter().map(|pid| account::cpu_seconds(*pid)).collect();
        let (before, start): (Vec<f64>, _) = (used(&pids), Instant::now());
        meter.measuring.store(true, Ordering::Relaxed);
        for_a_while(measured).await;
        meter.measuring.store(false, Ordering::Relaxed);
        let (after, took): (Vec<f64>, _) = (used(&pids), start.elapsed().as_secs_f64());
        let resident_kib = self.pid.iter().map(|pid| account::resident_kib(*pid)).collect();
        meter.stop.store(true, Ordering::Relaxed);
        let (mut times, mut failures) = (Vec::new(), 0);
        for line in each {
            let (some, failed) = line.await.expect("a line");
            times.extend(some);
            failures += failed;
        }
        times.sort_unstable();
        let answers = times.len();
        let at = |thousandths: usize| {
            times.get(answers * thousandths / 1000).copied().unwrap_or_default()
        };
        let per_thousand = 1000.0 / answers as f64;
        Sample {
            answers: answers as u64,
            failures,
            per_second: answers as f64 / took,
            micros: [at(500), at(990), at(999)],
            cpu: after.iter().zip(&before).map(|(a, b)| (a - b) * per_thousand).collect(),
            resident_kib,
        }
    }
}
