//! `make bench-growth`: measures the memory of a large catalogue, a fleet with many workers and queues, and many waiting
//! requests, and the same for small ones in the same rounds.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::support::client::{Client, get_json};
use crate::support::eventually::{eventually_some, for_a_while};
use crate::support::fjord_binary;
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};

use super::ID_BYTES;
use super::process_usage::{ProcessUsage, resident_kib};
use super::processes::READY_LIMIT;

/// The numbers of endpoints in the catalogue.
const ENDPOINTS: [usize; 2] = [10, 5_000];
/// The numbers of workers, and of queues that each of them serves.
const FLEETS: [(usize, usize); 4] = [(1, 1), (1, 200), (50, 1), (50, 200)];
/// The numbers of requests that wait for a slot.
const WAITING: [usize; 2] = [100, 10_000];
/// The number of clients that send the waiting requests. Each has one connection.
const CLIENTS: usize = 100;
/// The time for which the CPU time of the gateway is measured while requests wait.
const OBSERVATION_TIME: Duration = Duration::from_secs(5);
/// The number of requests whose median latency is measured.
const LATENCY_SAMPLES: usize = 300;
/// The interval of `fjord status`. It is subtracted from the measured duration.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The options of the benchmark.
#[derive(Args, Clone, Debug)]
pub(crate) struct SizeBenchmark {
    /// The number of rounds. Every result is the median over the rounds, with the lowest and the highest value.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 3, value_parser = parse_rounds)]
    rounds: usize,
    /// The fjord executable. By default it is the one that was built in the same profile as the benchmark.
    #[arg(long, env = "FJORD_BENCH_EXECUTABLE")]
    executable: Option<PathBuf>,
}

/// The values of one measurement, with their names and units.
type Measurement = Vec<(&'static str, f64)>;

impl SizeBenchmark {
    /// Runs the benchmark and prints the results.
    pub(crate) async fn run(self) {
        let catalogues = ENDPOINTS.map(|number| (format!("{number} endpoints"), number));
        self.compare(&catalogues, async |number| self.endpoints(number).await).await;
        let fleets = FLEETS.map(|(workers, queues)| {
            (format!("{workers} workers x {queues} queues"), (workers, queues))
        });
        self.compare(&fleets, async |(workers, queues)| self.fleet(workers, queues).await).await;
        let waiting = WAITING.map(|number| (format!("{number} waiting requests"), number));
        self.compare(&waiting, async |number| self.waiting(number).await).await;
    }

    /// Measures all sizes in each round, and prints the medians.
    async fn compare<T: Copy>(
        &self,
        sizes: &[(String, T)],
        measure: impl AsyncFn(T) -> Measurement,
    ) {
        let mut rounds: Vec<Vec<Measurement>> = Vec::new();
        for _ in 0..self.rounds {
            let mut round = Vec::new();
            for (_, size) in sizes {
                round.push(measure(*size).await);
            }
            rounds.push(round);
        }
        for (row, (name, _)) in sizes.iter().enumerate() {
            print!("{name:<28}");
            for (column, (label, _)) in rounds[0][row].iter().enumerate() {
                let mut values: Vec<f64> =
                    rounds.iter().map(|round| round[row][column].1).collect();
                values.sort_by(f64::total_cmp);
                let (low, high) = (values[0], values[values.len() - 1]);
                print!("  {label} {:.1} ({low:.1}–{high:.1})", values[values.len() / 2]);
            }
            println!();
        }
    }

    fn options(&self) -> FleetOptions {
        FleetOptions { executable: self.executable.clone(), ..FleetOptions::default() }
    }

    /// Measures the memory of both roles, whose catalogue has this many endpoints of one queue.
    async fn endpoints(&self, number: usize) -> Measurement {
        let catalogue = Some(("many.json", endpoints(number, |_| "echo".to_owned()).leak() as _));
        let fleet =
            Fleet::start(FleetOptions { catalogue, queues: "echo", ..self.options() }).await;
        vec![
            ("gateway MiB", mebibytes(&fleet.gateways[0])),
            ("worker MiB", mebibytes(&fleet.workers[0])),
        ]
    }

    /// Measures a fleet in which every worker serves all queues.
    async fn fleet(&self, workers: usize, queues: usize) -> Measurement {
        let text = endpoints(queues, |n| format!("many-{n}"));
        let catalogue = Some(("many.json", text.leak() as _));
        let options = FleetOptions { catalogue, workers, queues: "many-*", ..self.options() };
        let started = Instant::now();
        let fleet = Fleet::start(options).await;
        let ready = started.elapsed();
        let server = &fleet.nats.servers[0];
        let mut memory: Vec<f64> = fleet.workers.iter().map(mebibytes).collect();
        memory.sort_by(f64::total_cmp);
        let mut status = tokio::process::Command::new(match &self.executable {
            Some(executable) => executable.clone(),
            None => fjord_binary(),
        });
        status.arg("status").arg("--json").arg("--config").arg(fleet.gateways[0].directory());
        status.arg("--interval").arg(STATUS_INTERVAL.as_secs().to_string());
        let asked = Instant::now();
        let output = status.output().await.expect("the command runs");
        let took = asked.elapsed().saturating_sub(STATUS_INTERVAL);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The server counts new subscriptions with a delay.
        for_a_while(OBSERVATION_TIME).await;
        let subscriptions = get_json(&format!("{}/subsz", server.monitoring())).await;
        let subscriptions =
            subscriptions.expect("the server responds")["num_subscriptions"].as_f64();
        vec![
            ("ready after s, including NATS", ready.as_secs_f64()),
            ("subscriptions", subscriptions.expect("a number")),
            ("gateway MiB", mebibytes(&fleet.gateways[0])),
            ("worker MiB", memory[memory.len() / 2]),
            ("nats-server MiB", resident_kib(server.pid()) / 1024.0),
            ("status ms", took.as_secs_f64() * 1000.0),
            ("report KiB", f64::from(u32::try_from(output.stdout.len()).expect("small")) / 1024.0),
        ]
    }

    /// Measures a gateway while this many requests wait for the only slot of a queue.
    async fn waiting(&self, number: usize) -> Measurement {
        let held = r#"{"held":{"route":"GET /v1/held","procedure":"ledger.slow","auth":"public","result":"value",
            "parameters":{"ms":{"in":"query","type":"int32"}},"timeout":"80s","session":"85s"}}"#;
        let limits = "requests_in_flight_max = 20000\nrequests_in_flight_per_caller_max = 20000\n\
            [gateway.session]\nwaiting_max = 20000\n";
        let fleet = Fleet::start(FleetOptions {
            catalogue: Some(("held.json", held)),
            concurrency: 1,
            gateway_toml: limits.to_owned(),
            ..self.options()
        })
        .await;
        let gateway = &fleet.gateways[0];
        let client = fleet.client();
        let alone = median_latency(&client).await;
        let clients: Vec<Client> = (0..CLIENTS).map(|_| fleet.client()).collect();
        for client in &clients {
            // One request opens the connection, so that the others share it.
            client.get("/v1/echo/1").await.is(200);
        }
        let memory = mebibytes(gateway);
        let mut requests = JoinSet::new();
        for n in 0..number {
            let client = clients[n % CLIENTS].clone();
            requests.spawn(async move { client.get("/v1/held?ms=60000").await });
        }
        let metric = r#"fjord_gateway_requests_waiting{queue="held"}"#;
        // One of the requests runs, and the backlog of the worker can hold others.
        let least = f64::from(u32::try_from(number).expect("small")) * 0.95;
        eventually_some("requests wait", READY_LIMIT, async || {
            (gateway.metric(metric).await >= least).then_some(())
        })
        .await;
        let before = ProcessUsage::of_process(gateway.process.pid());
        for_a_while(OBSERVATION_TIME).await;
        let used = ProcessUsage::of_process(gateway.process.pid()) - before;
        let waiting = gateway.metric(metric).await;
        let grown = (mebibytes(gateway) - memory) * 1024.0;
        let latency = median_latency(&client).await;
        assert!(requests.try_join_next().is_none(), "a request was answered");
        vec![
            ("waiting", waiting),
            ("KiB per request", grown / waiting),
            ("% of a core", used.cpu() / OBSERVATION_TIME.as_secs_f64() * 100.0),
            ("latency of other requests, ms", latency),
            ("latency without waiting requests, ms", alone),
        ]
    }
}

/// Reads a number of rounds, of which there must be at least one.
fn parse_rounds(text: &str) -> Result<usize, String> {
    let rounds = text.parse::<usize>().map_err(|error| error.to_string())?;
    if rounds == 0 { Err("at least 1".to_owned()) } else { Ok(rounds) }
}

/// Returns the resident memory of a process.
fn mebibytes(process: &FjordProcess) -> f64 {
    resident_kib(process.process.pid()) / 1024.0
}

/// Returns the median latency of requests that are sent one after the other, in milliseconds.
async fn median_latency(client: &Client) -> f64 {
    let mut latencies = Vec::new();
    for _ in 0..LATENCY_SAMPLES {
        let sent = Instant::now();
        client.get("/v1/echo/1").await.is(200);
        latencies.push(sent.elapsed());
    }
    latencies.sort_unstable();
    latencies[LATENCY_SAMPLES / 2].as_secs_f64() * 1000.0
}

/// Returns a catalogue of additional endpoints, whose queues have these names.
pub(crate) fn endpoints(number: usize, queue: impl Fn(usize) -> String) -> String {
    let mut text = String::from("{");
    for n in 0..number {
        let (comma, queue) = (if n == 0 { "" } else { "," }, queue(n));
        write!(
            text,
            r#"{comma}"many-{n}":{{"route":"GET /v1/many/{n}/{{id}}","handler":"echo","queue":"{queue}",
            "parameters":{{"id":{{"in":"path","type":"string","maxLength":{ID_BYTES}}}}},"result":"json",
            "auth":"public"}}"#
        )
        .expect("writing to a String cannot fail");
    }
    text.push('}');
    text
}
