//! `make bench-growth`: whether a request costs the same in a large fleet. Each time a small and a large one run side by
//! side and are asked in turns; what is compared is the processor time of all gateways, and of all workers. A fleet that
//! has more processes is asked twice: with as many requests in flight as the small one, and with as many for each of its
//! processes, as fleets grow.

use std::fmt::Write as _;

use clap::Args;

use crate::support::fjord::{Fleet, FleetOptions, Node};
use crate::support::nats::NatsServer;
use crate::support::process::Process;

use super::caller::Sample;
use super::https::Http;
use super::report::median;
use super::stage::{self, GATEWAY, Question};
use super::{ID_BYTES, MIDDLE};

/// What of a fleet grows.
#[derive(Clone, Copy, Debug)]
struct Size {
    endpoints: usize,
    workers: usize,
    gateways: usize,
    connections: usize,
}

const SMALL: Size = Size { endpoints: 10, workers: 1, gateways: 1, connections: 100 };

/// Each with its name: one number is larger than in `SMALL`. With it the requests in flight of the small fleet and of the
/// large one. Where they differ only the role that has grown is compared: the other has more to do.
const LARGE: [(&str, Size, [usize; 2]); 6] = [
    ("10 -> 10,000 endpoints", Size { endpoints: 10_000, ..SMALL }, [MIDDLE, MIDDLE]),
    ("100 -> 10,000 connections", Size { connections: 10_000, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 16 workers", Size { workers: 16, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 16 workers, as busy", Size { workers: 16, ..SMALL }, [MIDDLE / 4, MIDDLE * 4]),
    ("1 -> 4 gateways", Size { gateways: 4, ..SMALL }, [MIDDLE, MIDDLE]),
    ("1 -> 4 gateways, as busy", Size { gateways: 4, ..SMALL }, [MIDDLE, MIDDLE * 4]),
];

/// How long it is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Growth {
    /// Rounds; every figure is the median over them.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement, after half as much of warm-up.
    #[arg(long, env = "FJORD_BENCH_SECONDS", default_value_t = 3.0)]
    seconds: f64,
}

impl Growth {
    /// Measures and prints.
    pub(crate) async fn run(self) {
        println!("cpu: microseconds per request, of all gateways and of all workers");
        for (name, size, requests) in LARGE {
            let fleets = [Grown::start(SMALL).await, Grown::start(size).await];
            let mut samples: [Vec<Sample>; 2] = Default::default();
            for _ in 0..self.rounds {
                for ((fleet, samples), requests) in fleets.iter().zip(&mut samples).zip(requests) {
                    samples.push(fleet.ask(requests, self.seconds).await);
                }
            }
            let [small, large] = [(&fleets[0], &samples[0]), (&fleets[1], &samples[1])]
                .map(|(fleet, samples)| fleet.cpu(samples));
            print!("{name:<26} {:>3} -> {:>3} in flight:", requests[0], requests[1]);
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

/// A fleet of a size, with connections that are open and ask nothing.
struct Grown {
    fleet: Fleet,
    _connections: Vec<Process>,
}

impl Grown {
    async fn start(size: Size) -> Self {
        let fleet = Fleet::start(FleetOptions {
            workers: size.workers,
            gateways: size.gateways,
            concurrency: 1024,
            queues: "echo",
            catalogue: Some(("many.json", endpoints(size.endpoints).leak())),
            gateway_toml: GATEWAY.to_owned(),
            ..FleetOptions::default()
        })
        .await;
        let each = size.connections.saturating_sub(MIDDLE) / size.gateways;
        let mut connections = Vec::new();
        for gateway in &fleet.gateways {
            let log = gateway.directory().join("idle");
            connections.push(stage::hold(gateway.https(), &fleet.certs.ca, each, &log).await);
        }
        Self { fleet, _connections: connections }
    }

    async fn ask(&self, concurrency: usize, seconds: f64) -> Sample {
        let fleet = &self.fleet;
        let nodes = fleet.gateways.iter().chain(&fleet.workers);
        let nats = fleet.nats.servers.first().map(NatsServer::pid);
        stage::ask(&Question {
            ca: &fleet.certs.ca,
            https: fleet.gateways.iter().map(Node::https).collect(),
            nats: None,
            http: Http::H1,
            concurrency,
            seconds,
            rate: None,
            pids: nodes.map(|node| node.process.pid()).chain(nats).collect(),
        })
        .await
    }

    /// Microseconds per request of all gateways together, and of all workers.
    fn cpu(&self, samples: &[Sample]) -> [f64; 2] {
        let (gateways, workers) = (self.fleet.gateways.len(), self.fleet.workers.len());
        let sum = |skip: usize, take: usize| {
            median(samples, |sample| sample.cpu.iter().skip(skip).take(take).sum::<f64>() * 1000.0)
        };
        [sum(0, gateways), sum(gateways, workers)]
    }
}

/// So many endpoints beside the one that is asked, all of its queue.
fn endpoints(number: usize) -> String {
    let mut text = String::from("{");
    for n in 0..number {
        let comma = if n == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}"grown-{n}":{{"route":"GET /v1/grown/{n}/{{id}}","handler":"echo","queue":"echo",
            "parameters":{{"id":{{"in":"path","type":"string","maxLength":{ID_BYTES}}}}},"result":"json",
            "auth":"public"}}"#
        )
        .expect("a text takes everything");
    }
    text.push('}');
    text
}
