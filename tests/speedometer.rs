//! The targets in turns, each with processes of its own whose processor time the system accounts: (a) fjord's gateway
//! and worker, (b) the floor, request and reply over NATS and nothing else, (c) the ceiling, an HTTPS server and nothing
//! else, and where it is named the same job in Go. What drifts hits all of them.

use std::path::PathBuf;

use clap::Args;

pub(crate) mod account;
pub(crate) mod caller;
pub(crate) mod growth;
mod https;
pub(crate) mod idle;
pub(crate) mod peers;
mod report;
mod rounds;
mod stage;

use report::Report;
use stage::Stage;

/// The concurrency whose capacity and latency are told first.
pub(crate) const MIDDLE: usize = 64;
/// Idle connections.
pub(crate) const IDLE: [usize; 2] = [2_000, 10_000];
/// Bytes of a request's message, of an answer, and of the id that makes fjord's like them.
pub(crate) const REQUEST_BYTES: usize = 200;
/// See `REQUEST_BYTES`.
pub(crate) const ANSWER_BYTES: usize = 500;
/// fjord's echo answers with the id: 190 bytes make a payload of 200, an answer of 200 and headers of 250.
pub(crate) const ID_BYTES: usize = 190;

/// What is measured, and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Rounds; every figure is the median over them.
    #[arg(long, env = "FJORD_BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds of each measurement, after half as much of warm-up.
    #[arg(long, env = "FJORD_BENCH_SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// How many requests are on their way at once.
    #[arg(
        long,
        env = "FJORD_BENCH_CONCURRENCY",
        default_value = "1,64,256",
        value_delimiter = ','
    )]
    pub(crate) concurrency: Vec<usize>,
    /// Whether idle connections are measured too.
    #[arg(long, env = "FJORD_BENCH_IDLE", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) idle: bool,
    /// The same job in Go, built from `speedometer/go`: measured too when it is named.
    #[arg(long, env = "FJORD_BENCH_GO")]
    pub(crate) go: Option<PathBuf>,
    /// Where the figures go as JSON.
    #[arg(long, env = "FJORD_BENCH_JSON", default_value = "target/bench.json")]
    pub(crate) json: PathBuf,
}

/// Measures everything, prints it and writes it.
pub(crate) async fn run(plan: Plan) {
    let mut report = Report::default();
    let stage = Stage::set(plan.go.as_deref()).await;
    report.go_version = stage.go_version();
    report.idle = rounds::idle(&stage, &plan).await;
    for round in 1..=plan.rounds {
        println!("round {round} of {}", plan.rounds);
        rounds::closed(&stage, &plan, &mut report).await;
        rounds::open(&stage, &plan, &mut report).await;
    }
    report.print();
    let json = serde_json::to_string_pretty(&report.json(&plan)).expect("figures are JSON");
    std::fs::write(&plan.json, json).expect("the file for the figures can be written");
    println!("\nwritten to {}", plan.json.display());
}
