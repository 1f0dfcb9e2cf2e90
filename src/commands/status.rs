//! `fjord status`: shows the state of all gateways and workers and identifies the bottleneck.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::nats_connection::{self, NatsConnection};
use super::{EXIT_FAILED, Output};
use crate::cli::StatusArguments;
use crate::config::Sources;
use crate::fleet::monitor::{KnownMembers, MissingMember};
use crate::fleet::query::{self, QueryLimits};
use crate::fleet::view::{self, Baseline, FleetSnapshot, FleetView, IdleWorker};

pub(super) mod connected;
pub(super) mod monitoring;
pub(super) mod system;
mod text;

/// The maximum time to wait for the reports of the fleet.
const GATHER_LIMIT: Duration = Duration::from_secs(3);
/// The maximum time by which a measurement is extended for processes that have sent only one report.
const SECOND_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// The escape sequence that moves the cursor to the top left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Takes two snapshots and shows the activity between them.
pub(super) fn run(
    arguments: &StatusArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    nats_connection::run(sources, "fjord status", output, async |connection, output| {
        watch(arguments, &connection, output).await
    })
}

/// Measures the activity of the fleet over an interval. If a process has not sent two reports that contain all its
/// queues, the measurement is extended by another interval of at most `SECOND_INTERVAL_MAX`. This happens if the
/// process or a queue is new, or if a reply was lost.
///
/// # Errors
/// Returns a message if no process replies.
pub(super) async fn measure(
    connection: &NatsConnection,
    interval: Duration,
) -> Result<FleetView, String> {
    let mut baseline = baseline(interval);
    let earlier = take_snapshot(connection, &baseline).await?;
    baseline.update(Instant::now(), earlier);
    sleep(interval).await;
    let later = take_snapshot(connection, &baseline).await?;
    let view = FleetView::since(&baseline, &later);
    let is_partial = view.processes.iter().any(|process| process.is_partial);
    if !is_partial || view.processes.iter().any(|process| process.is_truncated) {
        return Ok(view);
    }
    baseline.update(Instant::now(), later);
    sleep(interval.min(SECOND_INTERVAL_MAX)).await;
    let last = take_snapshot(connection, &baseline).await?;
    Ok(FleetView::since(&baseline, &last))
}

/// Returns a baseline that keeps the report of a process even if one reply is missing.
fn baseline(interval: Duration) -> Baseline {
    Baseline::new(interval * 2 + GATHER_LIMIT)
}

/// The view of the fleet and the processes that did not reply, as JSON.
#[derive(Serialize)]
struct FleetStatusDocument<'a> {
    #[serde(flatten)]
    view: &'a FleetView,
    /// The number of known processes: those in the view and those that did not reply.
    known_processes: usize,
    missing: Vec<MissingMember<'a>>,
    /// The workers that receive no requests for one of their queues.
    idle_workers: Vec<IdleWorker<'a>>,
    /// The name of each NATS server whose connections are not all known, and the reason. `missing` may be incomplete
    /// for such a server.
    connection_gaps: &'a [String],
}

async fn watch(
    arguments: &StatusArguments,
    connection: &NatsConnection,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let interval = Duration::from_secs(arguments.interval);
    let mut baseline = baseline(interval);
    let mut known = KnownMembers::default();
    match take_snapshot(connection, &baseline).await {
        Ok(earlier) => {
            known.update(Instant::now(), &earlier.reports);
            baseline.update(Instant::now(), earlier);
        }
        Err(failure) => return failed(&failure, output),
    }
    let clears = arguments.watch && !arguments.json && io::stdout().is_terminal();
    loop {
        sleep(interval).await;
        let later = match take_snapshot(connection, &baseline).await {
            Ok(later) => later,
            Err(failure) => return failed(&failure, output),
        };
        let now = Instant::now();
        known.update(now, &later.reports);
        let connected = connected::connections(connection).await;
        known.update_connected(now, connection.prefix.as_str(), &connected);
        let view = FleetView::since(&baseline, &later);
        let known_processes = known.count();
        let document = FleetStatusDocument {
            view: &view,
            known_processes,
            missing: known.missing(now),
            idle_workers: view::idle_workers(&view),
            connection_gaps: &connected.gaps,
        };
        if clears {
            output.out.write_all(CLEAR.as_bytes())?;
        }
        if arguments.json {
            writeln!(output.out, "{}", serde_json::to_string(&document)?)?;
        } else {
            output.out.write_all(text::page(&document).as_bytes())?;
        }
        output.out.flush()?;
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        baseline.update(Instant::now(), later);
    }
}

fn failed(failure: &str, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
    writeln!(output.err, "error: {failure}")?;
    Ok(ExitCode::from(EXIT_FAILED))
}

/// Takes a snapshot. Returns an error if it contains no report.
async fn take_snapshot(
    connection: &NatsConnection,
    earlier: &Baseline,
) -> Result<FleetSnapshot, String> {
    let snapshot = query_all(connection, earlier.processes(), earlier.servers()).await?;
    if snapshot.reports.is_empty() {
        return Err(connection.no_reply());
    }
    Ok(snapshot)
}

/// Queries the fleet and the NATS servers.
async fn query_all(
    connection: &NatsConnection,
    expected: usize,
    servers_expected: usize,
) -> Result<FleetSnapshot, String> {
    let servers = async {
        match &connection.system {
            Some(system) => system::sample_all(&**system, servers_expected).await,
            None => monitoring::sample_all(&connection.monitoring).await,
        }
    };
    let limits = QueryLimits::of_command(expected, GATHER_LIMIT);
    let replies = query::query(&*connection.transport, &connection.prefix, limits);
    let (servers, replies) = tokio::join!(servers, replies);
    let replies = replies.map_err(|error| format!("cannot query the fleet: {error}"))?;
    let reports = query::parse(&replies.messages);
    Ok(FleetSnapshot { reports, is_cut_off: replies.is_cut_off, servers })
}
