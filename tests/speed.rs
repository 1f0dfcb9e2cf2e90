//! `make bench`: compares the cost of a request through fjord with that of NATS alone and of HTTPS
//! alone. See docs/PERFORMANCE.md.

#[expect(dead_code, reason = "the test suite uses the rest of it")]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "written for tests, where a failed expectation is the message"
)]
mod support;

#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may panic on failure, and prints its results"
)]
mod benchmark;

use clap::Parser;

/// The benchmark, or one of the processes that it starts.
#[derive(Debug, Parser)]
enum BenchCommand {
    /// Runs the benchmark.
    Run(benchmark::Plan),
    /// Compares the cost of a request in small and large fleets.
    Growth(benchmark::growth::GrowthBenchmark),
    /// Measures the memory and the start of large fleets, and waiting requests.
    Sizes(benchmark::fleet_sizes::SizeBenchmark),
    /// Compares fjord's worker with a worker in Go that calls the same procedures.
    Procedures(benchmark::procedures::ProcedureBenchmark),
    /// Runs the fake SQL Server.
    SqlServer(benchmark::procedures::sql_server::FakeServerCommand),
    /// Runs the HTTPS reference server.
    Https(benchmark::reference_servers::HttpsReference),
    /// Runs the NATS reference responder.
    Responder(benchmark::reference_servers::NatsReference),
    /// Runs the load generator.
    Caller(benchmark::load_generator::LoadGenerator),
    /// Holds idle connections open.
    Idle(benchmark::idle_connections::IdleConnections),
}

#[tokio::main]
async fn main() {
    support::client::install_provider();
    match BenchCommand::parse() {
        BenchCommand::Run(plan) => Box::pin(benchmark::run(plan)).await,
        BenchCommand::Growth(growth) => Box::pin(growth.run()).await,
        BenchCommand::Sizes(sizes) => Box::pin(sizes.run()).await,
        BenchCommand::Procedures(procedures) => Box::pin(procedures.run()).await,
        BenchCommand::SqlServer(server) => server.run().await,
        BenchCommand::Https(server) => server.run().await,
        BenchCommand::Responder(responder) => responder.run().await,
        BenchCommand::Caller(caller) => caller.run().await,
        BenchCommand::Idle(idle) => idle.run().await,
    }
}
