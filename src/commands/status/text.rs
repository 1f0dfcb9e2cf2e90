//! The fleet as tables for people.

use std::fmt::Write as _;

use super::view::{ProcessView, ServerView, ShareView, View};
use crate::commands::table;

/// Characters of an id that are shown: enough to tell a thousand processes apart.
const ID_SHOWN: usize = 8;
/// Rows of a table that are shown; `--json` has all.
const ROWS_MAX: usize = 200;

/// A share of 1 as percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A time with three digits that matter.
pub(super) fn seconds(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < 0.01 => format!("{:.2} ms", time * 1e3),
        Some(time) if time < 1.0 => format!("{:.0} ms", time * 1e3),
        Some(time) => format!("{time:.2} s"),
    }
}

fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        b if b < 1e3 => format!("{b:.0} B"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b => format!("{:.1} MB", b / 1e6),
    }
}

fn uptime(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match minutes {
        m if m < 2.0 => format!("{seconds:.0} s"),
        m if m < 120.0 => format!("{m:.0} min"),
        m if m < 48.0 * 60.0 => format!("{:.0} h", m / 60.0),
        m => format!("{:.0} d", m / 1440.0),
    }
}

fn short(id: &str) -> String {
    id.chars().take(ID_SHOWN).collect()
}

/// The whole page.
pub(super) fn page(view: &View) -> String {
    let mut text = format!("{}\n", view.bottleneck.sentence);
    let mut section = |title: &str, headings: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return;
        }
        let hidden = rows.len().saturating_sub(ROWS_MAX);
        let rows: Vec<Vec<String>> = rows.into_iter().take(ROWS_MAX).collect();
        // A string takes every write.
        write!(text, "\n{title}\n{}", table::text(headings, &rows)).ok();
        if hidden > 0 {
            writeln!(text, "… and {hidden} more").ok();
        }
    };
    let window = format!("Processes, over {:.1} s", view.window_seconds);
    section(
        &window,
        &["ROLE", "ID", "HOST", "VERSION", "UP", "RUNS", "CALLS/s", "p50", "p99", "ERRORS/s"],
        view.processes.iter().map(process).collect(),
    );
    section(
        "Queues (a wait is until a worker takes the request, a time is how long a slot is held)",
        &[
            "QUEUE", "WORKERS", "RUNS", "USED", "FULL", "ARRIVE/s", "CALLS/s", "p50", "p99",
            "WAITING", "WAIT p99", "ERRORS/s",
        ],
        queue_rows(view),
    );
    section(
        "Queues by worker",
        &["WORKER", "QUEUE", "RUNS", "USED", "FULL", "CALLS/s", "p50", "p99", "ERRORS/s"],
        view.processes.iter().flat_map(shares).collect(),
    );
    section(
        "NATS",
        &[
            "SERVER",
            "VERSION",
            "CLIENTS",
            "SLOW",
            "IN/s",
            "OUT/s",
            "IN BYTES/s",
            "OUT BYTES/s",
            "CPU",
            "SLOWEST CLIENT",
        ],
        view.nats.iter().map(server).collect(),
    );
    for line in notes(view) {
        writeln!(text, "{line}").ok();
    }
    text
}

fn process(process: &ProcessView) -> Vec<String> {
    vec![
        process.role.clone(),
        short(&process.id),
        process.host.clone(),
        process.version.clone(),
        uptime(process.uptime_seconds),
        format!("{}/{}", process.in_flight, process.in_flight_max),
        rate(process.flow.calls_per_second),
        seconds(process.flow.p50_seconds),
        seconds(process.flow.p99_seconds),
        rate(process.flow.errors_per_second),
    ]
}

/// Those that something happens in, and how many others there are.
fn queue_rows(view: &View) -> Vec<Vec<String>> {
    let is_idle = |queue: &&super::view::QueueView| {
        queue.arrivals_per_second == 0.0
            && queue.flow.calls_per_second == 0.0
            && queue.waiting + queue.running == 0
    };
    let busy = view.queues.iter().filter(|queue| !is_idle(queue)).map(|queue| {
        vec![
            queue.name.clone(),
            queue.workers.to_string(),
            format!("{}/{}", queue.running, queue.limit),
            percent(queue.utilization),
            percent(queue.saturated),
            rate(queue.arrivals_per_second),
            rate(queue.flow.calls_per_second),
            seconds(queue.flow.p50_seconds),
            seconds(queue.flow.p99_seconds),
            queue.waiting.to_string(),
            seconds(queue.wait_p99_seconds),
            rate(queue.failed_per_second),
        ]
    });
    let idle = view.queues.iter().filter(is_idle).count();
    let idle = (idle > 0).then(|| vec![format!("({idle} idle)")]);
    busy.chain(idle).collect()
}

fn shares(process: &ProcessView) -> Vec<Vec<String>> {
    let is_busy = |share: &&ShareView| {
        share.running > 0 || share.flow.calls_per_second > 0.0 || !share.is_served
    };
    let row = |share: &ShareView| {
        let runs = format!("{}/{}", share.running, share.limit);
        vec![
            short(&process.id),
            share.name.clone(),
            if share.is_served { runs } else { format!("{runs} not served") },
            percent(share.utilization),
            percent(share.saturated),
            rate(share.flow.calls_per_second),
            seconds(share.flow.p50_seconds),
            seconds(share.flow.p99_seconds),
            rate(share.flow.errors_per_second),
        ]
    };
    process.queues.iter().filter(is_busy).map(row).collect()
}

fn server(server: &ServerView) -> Vec<String> {
    if let Some(failure) = &server.failure {
        return vec![server.url.clone(), failure.clone()];
    }
    let slowest = match server.slowest_pending_bytes {
        0 => "-".to_owned(),
        pending => {
            let pending = bytes(crate::telemetry::count_as_f64(pending));
            format!("{} ({pending} unread)", server.slowest_client)
        }
    };
    vec![
        server.name.clone(),
        server.version.clone(),
        server.connections.to_string(),
        server.slow_consumers.to_string(),
        rate(server.in_messages_per_second),
        rate(server.out_messages_per_second),
        bytes(server.in_bytes_per_second),
        bytes(server.out_bytes_per_second),
        format!("{:.0} %", server.cpu_percent),
        slowest,
    ]
}

/// What is not as it should be.
fn notes(view: &View) -> Vec<String> {
    let each = view.processes.iter().flat_map(|process| {
        let who = format!("{} {}", process.role, short(&process.id));
        let cut = process.is_cut.then(|| format!("{who}: more queues than a message holds"));
        let reasons =
            process.not_ready.iter().map(move |(part, why)| format!("{who}: {part}: {why}"));
        reasons.chain(cut).collect::<Vec<_>>()
    });
    each.take(ROWS_MAX).collect()
}
