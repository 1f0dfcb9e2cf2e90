//! `make bench`: what a request costs through fjord, beside what NATS and TLS themselves cost. See docs/PERFORMANCE.md.

#[expect(dead_code, reason = "the suite stands on the rest of it")]
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
    clippy::print_stdout,
    reason = "a bench: a failed expectation is the message, and printing is its purpose"
)]
mod speedometer;

use clap::Parser;

/// The bench itself, or one of the processes that it starts.
#[derive(Debug, Parser)]
enum Part {
    /// Runs the bench.
    Run(speedometer::Plan),
    /// Compares small fleets with large ones.
    Growth(speedometer::growth::Growth),
    /// The ceiling: an HTTPS server that does nothing else.
    Https(speedometer::peers::Server),
    /// The floor: answers messages and does nothing else.
    Responder(speedometer::peers::Responder),
    /// The load generator.
    Caller(speedometer::caller::Caller),
    /// Holds idle connections.
    Idle(speedometer::idle::Idle),
}

#[tokio::main]
async fn main() {
    support::client::install_provider();
    match Part::parse() {
        Part::Run(plan) => Box::pin(speedometer::run(plan)).await,
        Part::Growth(growth) => Box::pin(growth.run()).await,
        Part::Https(server) => server.run().await,
        Part::Responder(responder) => responder.run().await,
        Part::Caller(caller) => caller.run().await,
        Part::Idle(idle) => idle.run().await,
    }
}
