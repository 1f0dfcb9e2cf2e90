//! The arguments of the commands that show or change running processes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Role;
use crate::units::{DURATION_EXPECTED, parse_duration};

/// Options of `fjord status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArguments {
    /// Repeats the report after each interval, until interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Prints one JSON document per line, for scripts.
    #[arg(long)]
    pub json: bool,
    /// The time over which rates and percentiles are measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
}

/// Options of `fjord reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadArguments {
    /// Reloads only the processes of a role. Use this for a fleet that has no processes of the other role, for example
    /// because its workers are other programs.
    #[arg(long, value_name = "ROLE")]
    pub on: Option<Role>,
    /// How long each step waits for all processes to reply.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// Prints one JSON document, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// Options of `fjord drain`.
#[derive(Args, Clone, Debug)]
pub struct DrainArguments {
    /// The id of the process, or the name of the host, as in the output of `fjord status --json`.
    #[arg(value_name = "ID|HOST")]
    pub member: String,
    /// How to wait for and report the replies. The drain itself can take longer.
    #[command(flatten)]
    pub replies: ReplyOptions,
}

/// The processes to which a command applies, and how it reports their replies.
#[derive(Args, Clone, Debug)]
pub struct TargetOptions {
    /// The processes: gateway, worker, the id of a process, or the name of a host [default: all].
    #[arg(long, value_name = "ROLE|ID|HOST")]
    pub on: Option<String>,
    /// How to wait for and report the replies.
    #[command(flatten)]
    pub replies: ReplyOptions,
}

/// How a command waits for the replies of processes, and reports them.
#[derive(Args, Clone, Copy, Debug)]
pub struct ReplyOptions {
    /// How long to wait for the processes' replies.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// Prints one JSON document, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// The commands of `fjord queue`.
#[derive(Clone, Debug, Subcommand)]
pub enum QueueCommand {
    /// Makes the workers refuse new requests for queues. Running calls finish. Requests wait for `fjord queue resume` as long as
    /// their timeout permits, and then get a 503.
    Pause(QueueNamesArguments),
    /// Makes the workers accept requests for queues again.
    Resume(QueueNamesArguments),
    /// Changes the number of calls of a queue that each worker runs concurrently.
    Limit(QueueLimitArguments),
    /// Changes the weights by which all running gateways divide the requests of an endpoint among its queues. Applies to the next
    /// request. A reload or a restart of a gateway returns to the weights in the catalogue.
    Weight(QueueWeightArguments),
}

/// Options of `fjord queue pause` and `fjord queue resume`.
#[derive(Args, Clone, Debug)]
pub struct QueueNamesArguments {
    /// The names of the queues.
    #[arg(value_name = "QUEUE", required = true)]
    pub queues: Vec<String>,
    /// The workers.
    #[command(flatten)]
    pub target: TargetOptions,
}

/// Options of `fjord queue limit`.
#[derive(Args, Clone, Debug)]
pub struct QueueLimitArguments {
    /// The name of the queue.
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    /// The number of calls, from 1 to 10000, or "configured" for the value in the configuration.
    #[arg(value_name = "CALLS|configured")]
    pub limit: String,
    /// The workers.
    #[command(flatten)]
    pub target: TargetOptions,
}

/// Options of `fjord queue weight`.
#[derive(Args, Clone, Debug)]
pub struct QueueWeightArguments {
    /// The endpoint's id in the catalogue.
    #[arg(value_name = "ENDPOINT")]
    pub endpoint: String,
    /// The new weights, from 0 to 1000000. With 0, a queue gets no requests. Queues that are not named keep their weights.
    #[arg(value_name = "QUEUE=WEIGHT", required = true)]
    pub weights: Vec<String>,
    /// How to wait for and report the replies.
    #[command(flatten)]
    pub replies: ReplyOptions,
}

/// Options of `fjord log`.
#[derive(Args, Clone, Debug)]
pub struct LogArguments {
    /// A level, or target=level, separated by commas, e.g. debug or `fjord::messaging=debug`. Applies in addition to the
    /// configured filter, and takes precedence.
    #[arg(value_name = "FILTER")]
    pub filter: String,
    /// How long the directives apply, from 1s to 1h.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Duration,
    /// The processes.
    #[command(flatten)]
    pub target: TargetOptions,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("expected {DURATION_EXPECTED}"))
}
