//! `make bench-growth`: measures whether the cost of a request grows with the fleet. A small and a
//! large fleet run at the same time and are measured in turn. The CPU time of all gateways and of
//! all workers is compared. A fleet with more processes is measured twice: with the same number of
//! requests in flight as the small fleet in total, and with the same number per process.

use std::path::PathBuf;

use clap::Args;

use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsServer;
use crate::support::process::Process;

use super::MIDDLE;
use super::fleet_sizes::endpoints;
use super::https_client::BenchHttp;
use super::load_generator::LoadSample;
use super::processes::{self, GATEWAY, LoadOptions};
use super::report::median;

/// The size of a fleet.
#[derive(Clone, Copy, Debug)]
struct FleetSize {
    endpoints: usize,
    workers: usize,
    gateways: usize,
    connections: usize,
}

const SMALL: FleetSize = FleetSize { endpoints: 10, workers: 1, gateways: 1, connections: 100 };

/// The large fleets, and the numbers of requests in flight in the small and in the large fleet. If
/// these numbers differ, only the role with more processes is compared, because the other role has
/// more load.
const LARGE: [(&str, FleetSize, [usize; 2]); 6] = [
    ("10 -> 10,000 endpoints", FleetSize { endpoints: 10_000, ..SMALL }, [MIDDLE, MIDDLE]),
    ("100 -> 10,000 connections", FleetSize { connections: 10_000, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 16 workers", FleetSize { workers: 16, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 16 workers, scaled load", FleetSize { workers: 16, ..SMALL }, [MIDDLE / 4, MIDDLE * 4]),
    ("1 -> 4 gateways", FleetSize { gateways: 4, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 4 gateways, scaled load", FleetSize { gateways: 4, ..SMALL }, [MIDDLE, MIDDLE * 4]),
];

/// The options of the benchmark.
#[derive(Args, Clone, Debug)]
pub(crate) struct GrowthBenchmark {
    /// The number of rounds. Every result is the median over the rounds.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// The duration of each measurement in seconds, after a warm-up of half that time.
    #[arg(long, env = "FJORD_BENCH_SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// The fjord executable. By default it is the one that was built in the same profile as the benchmark.
    #[arg(long, env = "FJORD_BENCH_EXECUTABLE")]
    executable: Option<PathBuf>,
}

impl GrowthBenchmark {
    /// Runs the benchmark and prints the results.
    pub(crate) async fn run(self) {
        println!("cpu: microseconds per request, of all gateways and of all workers");
        for (name, size, requests) in LARGE {
            let executable = self.executable.as_ref();
            let fleets = [
                SizedFleet::start(SMALL, executable).await,
                SizedFleet::start(size, executable).await,
            ];
            let mut samples: [Vec<LoadSample>; 2] = Default::default();
            for _ in 0..self.rounds {
                for ((fleet, samples), requests) in fleets.iter().zip(&mut samples).zip(requests) {
                    samples.push(fleet.ask(requests, self.seconds).await);
                }
            }
            let [small, large] = [(&fleets[0], &samples[0]), (&fleets[1], &samples[1])]
                .map(|(fleet, samples)| fleet.cpu(samples));
            print!("{name:<28} {:>3} -> {:>3} in flight:", requests[0], requests[1]);
            let is_same = requests[0] == requests[1];
            let roles = [
                ("gateway", size.gateways > SMALL.gateways),
                ("worker", size.workers > SMALL.workers),
            ];
            for (((role, has_grown), small), large) in roles.into_iter().zip(small).zip(large) {
                if is_same || has_grown {
                    print!("  {role} {small:.1} -> {large:.1}, x {:.2}", large / small);
                }
            }
            println!();
        }
    }
}

/// A fleet of a given size with idle connections.
struct SizedFleet {
    fleet: Fleet,
    _connections: Vec<Process>,
}

impl SizedFleet {
    async fn start(size: FleetSize, executable: Option<&PathBuf>) -> Self {
        let fleet = Fleet::start(FleetOptions {
            workers: size.workers,
            gateways: size.gateways,
            concurrency: 1024,
            queues: "echo",
            catalogue: Some(("many.json", endpoints(size.endpoints, |_| "echo".to_owned()).leak())),
            gateway_toml: GATEWAY.to_owned(),
            executable: executable.cloned(),
            ..FleetOptions::default()
        })
        .await;
        let per_gateway = size.connections.saturating_sub(MIDDLE) / size.gateways;
        let mut connections = Vec::new();
        for gateway in &fleet.gateways {
            let log = gateway.directory().join("idle");
            connections.push(
                processes::hold_idle(gateway.https(), &fleet.certs.ca, per_gateway, &log).await,
            );
        }
        Self { fleet, _connections: connections }
    }

    async fn ask(&self, concurrency: usize, seconds: f64) -> LoadSample {
        let fleet = &self.fleet;
        let nodes = fleet.gateways.iter().chain(&fleet.workers);
        let nats = fleet.nats.servers.first().map(NatsServer::pid);
        processes::ask(&LoadOptions {
            ca: &fleet.certs.ca,
            https: fleet.gateways.iter().map(FjordProcess::https).collect(),
            nats: None,
            request: None,
            http: BenchHttp::H1,
            concurrency,
            seconds,
            rate: None,
            pids: nodes.map(|node| node.process.pid()).chain(nats).collect(),
        })
        .await
    }

    /// Returns the CPU time per request of all gateways and of all workers together, in
    /// microseconds.
    fn cpu(&self, samples: &[LoadSample]) -> [f64; 2] {
        let (gateways, workers) = (self.fleet.gateways.len(), self.fleet.workers.len());
        let sum = |skip: usize, take: usize| {
            let cpu = |sample: &LoadSample| {
                sample.usage.iter().skip(skip).take(take).map(|usage| usage.cpu()).sum::<f64>()
            };
            median(samples, |sample| cpu(sample) * 1000.0)
        };
        [sum(0, gateways), sum(gateways, workers)]
    }
}
