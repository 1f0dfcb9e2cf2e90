//! The load generator. A closed loop measures capacity, and a fixed arrival rate measures latency.
//!
//! At a fixed rate, latency is measured from a request's scheduled time, not from the time at which
//! a connection is free. This avoids coordinated omission: a stall shows in every delayed request.

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

use super::https_client::{BenchConnection, BenchHttp, HttpsConnector};
use super::procedure_client::{NatsCaller, ProcedureRequest};
use super::process_usage::{self, ProcessUsage};
use super::{ID_BYTES, REQUEST_BYTES, reference_servers};

/// The maximum number of scheduled requests that are not sent yet.
const SCHEDULED_MAX: usize = 1 << 16;

/// The options of the load generator.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadGenerator {
    /// The HTTPS servers, which share the connections equally. Without any, the target is NATS.
    #[arg(long)]
    pub(crate) https: Vec<SocketAddr>,
    #[arg(long)]
    pub(crate) nats: Option<String>,
    #[command(flatten)]
    pub(crate) request: ProcedureRequest,
    #[arg(long)]
    pub(crate) ca: PathBuf,
    #[arg(long, default_value = "h1")]
    pub(crate) http: BenchHttp,
    #[arg(long)]
    pub(crate) concurrency: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    /// The requests per second. Without a rate, each connection sends again after a response.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// The ids of processes whose CPU time is measured in addition to that of the load generator.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
}

/// The result of a measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LoadSample {
    /// The number of responses with status 200.
    pub(crate) answers: u64,
    /// The number of failed requests.
    pub(crate) failures: u64,
    /// The number of responses with status 200 per second.
    pub(crate) per_second: f64,
    /// The latency in microseconds: the median, and the 99th and 99.9th percentiles.
    pub(crate) micros: [u32; 3],
    /// The usage of each measured process per 1,000 requests, followed by that of the load generator.
    pub(crate) usage: Vec<ProcessUsage>,
    /// The resident memory of each measured process under this load, in KiB.
    pub(crate) resident_kib: Vec<f64>,
}

enum LoadConnection {
    Https(BenchConnection),
    Nats(async_nats::Client),
    Procedure(NatsCaller),
}

impl LoadConnection {
    /// Sends a request. Returns whether it succeeded, or `None` if the connection is closed.
    async fn ask(&mut self) -> Option<bool> {
        match self {
            Self::Https(connection) => connection.ask().await,
            Self::Procedure(caller) => Some(caller.answer().await.is_some()),
            Self::Nats(client) => {
                static BODY: [u8; REQUEST_BYTES] = [b'x'; REQUEST_BYTES];
                Some(
                    client
                        .request(reference_servers::SUBJECT, Bytes::from_static(&BODY))
                        .await
                        .is_ok(),
                )
            }
        }
    }
}

/// The state that all connections share.
struct LoadState {
    stop: AtomicBool,
    measuring: AtomicBool,
    scheduled: Option<Mutex<mpsc::Receiver<Instant>>>,
}

impl LoadState {
    /// Sends requests on one connection. Returns their latencies in microseconds, and the number of failures.
    async fn drive(self: Arc<Self>, mut connection: LoadConnection) -> (Vec<u32>, u64) {
        let (mut times, mut failures) = (Vec::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            let start = match &self.scheduled {
                None => Instant::now(),
                Some(scheduled) => match scheduled.lock().await.recv().await {
                    Some(scheduled) => scheduled,
                    None => break,
                },
            };
            let Some(is_good) = connection.ask().await else {
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

/// Schedules requests from a thread, because tokio's timer has a resolution of 1 ms.
fn pace(rate: f64, until: Instant) -> mpsc::Receiver<Instant> {
    let (sender, scheduled) = mpsc::channel(SCHEDULED_MAX);
    std::thread::spawn(move || {
        let (step, mut next) = (Duration::from_secs_f64(1.0 / rate), Instant::now());
        while next < until {
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            while next <= Instant::now() {
                // A full channel means that the target is too slow, which the latencies also show.
                if sender.try_send(next).is_err() && sender.is_closed() {
                    return;
                }
                next += step;
            }
        }
    });
    scheduled
}

impl LoadGenerator {
    pub(crate) async fn run(self) {
        let sample = self.measure().await;
        println!("{}", serde_json::to_string(&sample).expect("results are JSON"));
    }

    async fn connections(&self) -> Vec<LoadConnection> {
        if !self.https.is_empty() {
            let path = format!("/v1/echo/{}", "x".repeat(ID_BYTES));
            let mut connections = Vec::new();
            for address in &self.https {
                let connector = HttpsConnector::new(*address, &self.ca, self.http, path.clone());
                let drivers = self.concurrency / self.https.len();
                connections.extend(connector.connections(self.http, drivers).await);
            }
            return connections.into_iter().map(LoadConnection::Https).collect();
        }
        let url = self.nats.as_deref().expect("either --https or --nats");
        if self.request.subject.is_some() {
            let (request, number) = (&self.request, self.concurrency);
            let callers = NatsCaller::new(url, self.ca.clone(), request, number).await;
            return callers.into_iter().map(LoadConnection::Procedure).collect();
        }
        let client = reference_servers::connect(url, self.ca.clone()).await;
        (0..self.concurrency).map(|_| LoadConnection::Nats(client.clone())).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    async fn measure(&self) -> LoadSample {
        let connections = self.connections().await;
        let warm_up = Duration::from_secs_f64(self.seconds / 2.0);
        let measured = Duration::from_secs_f64(self.seconds);
        let until = Instant::now() + warm_up + measured + Duration::from_secs(1);
        let scheduled = self.rate.map(|rate| Mutex::new(pace(rate, until)));
        let meter = Arc::new(LoadState {
            stop: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            scheduled,
        });
        let drivers = connections
            .into_iter()
            .map(|connection| Tasks::new().spawn(Arc::clone(&meter).drive(connection)));
        let drivers: Vec<_> = drivers.collect();
        for_a_while(warm_up).await;
        let pids: Vec<u32> = self.pid.iter().copied().chain([std::process::id()]).collect();
        let used = |pids: &[u32]| pids.iter().map(|pid| ProcessUsage::of_process(*pid)).collect();
        let (before, start): (Vec<ProcessUsage>, _) = (used(&pids), Instant::now());
        meter.measuring.store(true, Ordering::Relaxed);
        for_a_while(measured).await;
        meter.measuring.store(false, Ordering::Relaxed);
        let (after, took): (Vec<ProcessUsage>, _) = (used(&pids), start.elapsed().as_secs_f64());
        let resident_kib = self.pid.iter().map(|pid| process_usage::resident_kib(*pid)).collect();
        meter.stop.store(true, Ordering::Relaxed);
        let (mut times, mut failures) = (Vec::new(), 0);
        for connection in drivers {
            let (some, failed) = connection.await.expect("a connection");
            times.extend(some);
            failures += failed;
        }
        times.sort_unstable();
        let answers = times.len();
        assert!(answers > 0, "no request was answered: {failures} failed");
        let at = |thousandths: usize| {
            times.get(answers * thousandths / 1000).copied().unwrap_or_default()
        };
        assert!(answers > 0, "no request succeeded, {failures} failed");
        let per_thousand = 1000.0 / answers as f64;
        LoadSample {
            answers: answers as u64,
            failures,
            per_second: answers as f64 / took,
            micros: [at(500), at(990), at(999)],
            usage: after.iter().zip(&before).map(|(a, b)| (*a - *b).scaled(per_thousand)).collect(),
            resident_kib,
        }
    }
}
