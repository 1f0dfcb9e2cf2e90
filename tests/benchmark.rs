//! Measures several targets in turn, so that drift affects all of them. Each target runs in its own processes, whose
//! CPU time the kernel reports. The targets are fjord's gateway and worker, the floor (requests and replies over NATS
//! alone), and the ceiling (an HTTPS server alone). Optional targets are another build of fjord, and a gateway and a
//! worker in Go.

use std::path::PathBuf;

use clap::Args;

pub(crate) mod fleet_sizes;
pub(crate) mod growth;
mod https_client;
pub(crate) mod idle_connections;
pub(crate) mod load_generator;
mod procedure_client;
pub(crate) mod procedures;
pub(crate) mod process_usage;
mod processes;
pub(crate) mod reference_servers;
mod report;
mod rounds;

use processes::BenchProcesses;
use report::BenchReport;

/// The concurrency of the measurements of growth and of the measurements at a fixed rate.
pub(crate) const MIDDLE: usize = 64;
/// The numbers of idle connections.
pub(crate) const IDLE: [usize; 2] = [2_000, 10_000];
/// The size of a request to the NATS reference server, equal to that of fjord's requests.
pub(crate) const REQUEST_BYTES: usize = 200;
/// The size of the reference servers' responses.
pub(crate) const ANSWER_BYTES: usize = 500;
/// The length of the id that fjord echoes. An id of 190 bytes results in a payload of 200 bytes, a response body of 200
/// bytes and response headers of 250 bytes.
pub(crate) const ID_BYTES: usize = 190;

/// The options of the benchmark.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// The number of rounds. Every result is the median over the rounds.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// The duration of each measurement in seconds, after a warm-up of half that time.
    #[arg(long, env = "FJORD_BENCH_SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Numbers of concurrent requests.
    #[arg(
        long,
        env = "FJORD_BENCH_CONCURRENCY",
        default_value = "1,64,256",
        value_delimiter = ','
    )]
    pub(crate) concurrency: Vec<usize>,
    /// Whether to measure idle connections.
    #[arg(long, env = "FJORD_BENCH_IDLE", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) idle: bool,
    /// The fjord executable. By default it is the one that was built in the same profile as the benchmark.
    #[arg(long, env = "FJORD_BENCH_EXECUTABLE")]
    pub(crate) executable: Option<PathBuf>,
    /// The executable of another build of fjord, which is measured in the same rounds if it is given.
    #[arg(long, env = "FJORD_BENCH_BASE")]
    pub(crate) base: Option<PathBuf>,
    /// The number of calls that the worker runs concurrently.
    #[arg(long, env = "FJORD_BENCH_SLOTS", default_value_t = 1024)]
    pub(crate) slots: usize,
    /// The executable of the gateway and worker in Go, built from `benchmark/go`. They are measured only if it is given.
    #[arg(long, env = "FJORD_BENCH_GO")]
    pub(crate) go: Option<PathBuf>,
    /// The file to which the results are written as JSON.
    #[arg(long, env = "FJORD_BENCH_JSON", default_value = "target/bench.json")]
    pub(crate) json: PathBuf,
}

/// Runs the benchmark, prints the results and writes them.
pub(crate) async fn run(plan: Plan) {
    let mut report = BenchReport::default();
    let processes = BenchProcesses::start(&plan).await;
    report.go_version = processes.go_version();
    report.idle = rounds::idle(&processes, &plan).await;
    for round in 1..=plan.rounds {
        println!("round {round} of {}", plan.rounds);
        rounds::closed(&processes, &plan, &mut report).await;
        rounds::open(&processes, &plan, &mut report).await;
    }
    report.print();
    let json = serde_json::to_string_pretty(&report.json(&plan)).expect("results are JSON");
    std::fs::write(&plan.json, json).expect("the file for the results can be written");
    println!("\nwritten to {}", plan.json.display());
}
