//! Formats the output of `fjord status` as tables.

use std::fmt::Write as _;

use super::FleetStatusDocument;
use crate::commands::printable::printable;
use crate::commands::table;
use crate::fleet::monitor::MissingMember;
use crate::fleet::view::format::{bytes, percent, rate, seconds, uptime};
use crate::fleet::view::{
    FleetView, NatsServerView, PoolView, ProcessView, QueueDiagnosis, QueueView, WeightedQueueView,
    WorkerQueueView, weighted_queues,
};
use crate::telemetry::count_as_f64;

/// The number of characters of an id that are shown. This is enough to distinguish a thousand processes.
const ID_SHOWN: usize = 8;
/// The maximum number of rows in a table. `--json` shows all rows.
const ROWS_MAX: usize = 200;
/// The maximum number of processes without a reply that are named. `--json` shows all of them.
const MISSING_SHOWN: usize = 10;
/// The column headings of the table of processes.
const PROCESS_HEADINGS: [&str; 12] = [
    "ROLE", "ID", "HOST", "VERSION", "UP", "CPU", "MEMORY", "RUNNING", "CALLS/s", "p50", "p99",
    "ERRORS/s",
];
/// The column headings of the table of queues.
const QUEUE_HEADINGS: [&str; 12] = [
    "QUEUE",
    "WORKERS",
    "RUNNING",
    "USED",
    "FULL",
    "ARRIVALS/s",
    "CALLS/s",
    "p50",
    "p99",
    "WAITING",
    "WAIT p99",
    "ERRORS/s",
];
/// The column headings of the table of NATS servers.
const SERVER_HEADINGS: [&str; 10] = [
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
];

fn short(id: &str) -> String {
    id.chars().take(ID_SHOWN).collect()
}

/// Returns the text for an unknown value.
fn unknown() -> String {
    "-".to_owned()
}

pub(super) fn page(document: &FleetStatusDocument<'_>) -> String {
    let view = document.view;
    let mut text = format!("{}\n", printable(&view.bottleneck.sentence));
    if let Some(line) = missing(document) {
        text.push_str(&line);
    }
    let mut section = |title: &str, headings: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return;
        }
        let hidden = rows.len().saturating_sub(ROWS_MAX);
        let printable = |row: Vec<String>| row.iter().map(|cell| printable(cell).into()).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().take(ROWS_MAX).map(printable).collect();
        // Writing to a string cannot fail.
        write!(text, "\n{title}\n{}", table::text(headings, &rows)).ok();
        if hidden > 0 {
            writeln!(text, "… and {hidden} more").ok();
        }
    };
    let window = if view.window_seconds.is_nan() {
        String::new()
    } else {
        format!(", over {:.1} s", view.window_seconds)
    };
    section(
        &format!("Processes{window}"),
        &PROCESS_HEADINGS,
        view.processes.iter().map(process).collect(),
    );
    section(
        "Queues (WAIT: time until a worker accepts the request; p50 and p99: time that a call occupies its slot)",
        &QUEUE_HEADINGS,
        queue_rows(view),
    );
    section(
        &format!(
            "Pools{window} (LOAD: share of the busiest queue's slots that the requests need; NEEDED: number of workers that keeps LOAD at or below 80 %)"
        ),
        &["POOL", "WORKERS", "LOAD", "NEEDED", "FREE", "QUEUES"],
        view.pools.iter().map(pool).collect(),
    );
    section(
        "Endpoints with several queues (SHARE: share of the endpoint's requests; p50 and p99: time from request to response; 4xx and 5xx: share of the queue's requests)",
        &weighted_queues::HEADINGS,
        view.weighted_queues.iter().map(WeightedQueueView::row).collect(),
    );
    section(
        "Queues by worker",
        &["WORKER", "QUEUE", "RUNNING", "USED", "FULL", "CALLS/s", "p50", "p99", "ERRORS/s"],
        view.processes.iter().flat_map(shares).collect(),
    );
    section("NATS", &SERVER_HEADINGS, view.nats.iter().map(server).collect());
    for idle in document.idle_workers.iter().take(ROWS_MAX) {
        writeln!(
            text,
            "worker {} on {} received no requests for queue {}, while NATS delivered {:.0} to the queue's other \
             workers. Its subscription does not reach the NATS servers, or the worker is connected to another cluster",
            printable(&short(idle.id)),
            printable(idle.host),
            printable(idle.queue),
            idle.calls_elsewhere
        )
        .ok();
    }
    for line in notes(view) {
        writeln!(text, "{}", printable(&line)).ok();
    }
    for gap in document.connection_gaps {
        let gap = printable(gap);
        writeln!(text, "some processes that do not reply may not be listed: {gap}").ok();
    }
    text
}

/// Returns a line with the number and names of the processes that did not reply, or `None` if all processes replied.
fn missing(document: &FleetStatusDocument<'_>) -> Option<String> {
    let silent = |member: &&MissingMember<'_>| !member.was_draining;
    let names = document.missing.iter().filter(silent).map(|member| {
        let since = uptime(member.silent_seconds);
        let last = if member.has_replied {
            format!("last reply {since} ago")
        } else {
            "connected to NATS".to_owned()
        };
        let name = format!("{} {} on {}", member.role, short(member.id), member.host);
        format!("{} ({last})", printable(&name))
    });
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(MISSING_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown: Vec<&str> = names.iter().take(MISSING_SHOWN).map(String::as_str).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "{} of {} known processes did not reply: {}{more}.\n",
            names.len(),
            document.known_processes,
            shown.join(", ")
        )
    })
}

fn process(process: &ProcessView) -> Vec<String> {
    vec![
        process.role.clone(),
        short(&process.id),
        process.host.clone(),
        process.version.clone(),
        uptime(process.uptime_seconds),
        process.cpu_cores.map_or_else(unknown, percent),
        process.memory_bytes.map_or_else(unknown, |used| bytes(count_as_f64(used))),
        format!("{}/{}", process.in_flight, process.in_flight_max),
        rate(process.rates.calls_per_second),
        seconds(process.rates.p50_seconds),
        seconds(process.rates.p99_seconds),
        rate(process.rates.errors_per_second),
    ]
}

/// Returns a row for each queue with traffic, and a row with the number of idle queues.
fn queue_rows(view: &FleetView) -> Vec<Vec<String>> {
    let is_idle = |queue: &&QueueView| {
        let has_traffic = queue.arrivals_per_second > 0.0 || queue.rates.calls_per_second > 0.0;
        let is_changed = queue.paused > 0 || queue.limit != queue.limit_configured;
        !has_traffic && !is_changed && !queue.is_partial && queue.waiting + queue.running == 0
    };
    let busy = view.queues.iter().filter(|queue| !is_idle(queue)).map(|queue| {
        vec![
            queue.name.clone(),
            match queue.paused {
                0 => queue.workers.to_string(),
                paused => format!("{} ({paused} paused)", queue.workers),
            },
            match queue.limit_configured {
                configured if configured == queue.limit => {
                    format!("{}/{}", queue.running, queue.limit)
                }
                configured => {
                    format!("{}/{} (configured {configured})", queue.running, queue.limit)
                }
            },
            percent(queue.utilization),
            percent(queue.saturated),
            rate(queue.arrivals_per_second),
            rate(queue.rates.calls_per_second),
            seconds(queue.rates.p50_seconds),
            seconds(queue.rates.p99_seconds),
            queue.waiting.to_string(),
            seconds(queue.wait_p99_seconds),
            rate(queue.failed_per_second),
        ]
    });
    let idle = view.queues.iter().filter(is_idle).count();
    let idle = (idle > 0).then(|| vec![format!("({idle} idle)")]);
    busy.chain(idle).collect()
}

fn pool(pool: &PoolView) -> Vec<String> {
    vec![
        pool.name.clone(),
        pool.workers.to_string(),
        pool.load.map_or_else(unknown, percent),
        pool.workers_needed.map_or_else(unknown, |needed| needed.to_string()),
        pool.workers_free.map_or_else(unknown, |free| free.to_string()),
        if pool.is_truncated {
            format!("{} or more", pool.queues.len())
        } else {
            pool.queues.len().to_string()
        },
    ]
}

fn shares(process: &ProcessView) -> Vec<Vec<String>> {
    // Returns the configured limit if an operator has replaced it.
    let configured = |share: &WorkerQueueView| {
        share.limit_configured.filter(|configured| *configured != share.limit)
    };
    let is_busy = |share: &&WorkerQueueView| {
        let is_changed = share.is_paused || configured(share).is_some();
        share.running > 0 || share.rates.calls_per_second > 0.0 || !share.is_served || is_changed
    };
    let row = |share: &WorkerQueueView| {
        let mut runs = format!("{}/{}", share.running, share.limit);
        if let Some(configured) = configured(share) {
            write!(runs, " (configured {configured})").ok();
        }
        if share.is_paused {
            runs.push_str(" paused");
        }
        vec![
            short(&process.id),
            share.name.clone(),
            if share.is_served { runs } else { format!("{runs} not served") },
            percent(share.utilization),
            percent(share.saturated),
            rate(share.rates.calls_per_second),
            seconds(share.rates.p50_seconds),
            seconds(share.rates.p99_seconds),
            rate(share.rates.errors_per_second),
        ]
    };
    process.queues.iter().filter(is_busy).map(row).collect()
}

fn server(server: &NatsServerView) -> Vec<String> {
    if let Some(failure) = &server.failure {
        return vec![server.url.clone(), failure.clone()];
    }
    let slowest = match server.slowest_pending_bytes {
        0 => "-".to_owned(),
        pending => {
            let pending = bytes(count_as_f64(pending));
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

/// Returns lines about requests that do not make progress, and about slots reserved for offers.
fn queue_notes(queue: &QueueView) -> Vec<String> {
    let QueueDiagnosis { offered, offers_made, offers_lapsed, .. } = queue.diagnosis;
    let stalls = [queue.unaccepted_evidence(), queue.hanging_evidence().map(|found| found.text)];
    let stalls = stalls.into_iter().flatten();
    let mut notes: Vec<String> =
        stalls.map(|evidence| format!("queue {}: {evidence}", queue.name)).collect();
    if queue.diagnosis.has_lapsing_offers() {
        notes.push(format!(
            "queue {}: {offered} slots are reserved for offers. Gateways answered {offers_lapsed} of {offers_made} \
             offers too late or not at all. FULL includes these slots; USED does not",
            queue.name
        ));
    }
    notes
}

/// Returns what the report of a process lacks because it did not fit into one message.
fn omitted_queues(process: &ProcessView) -> String {
    let ProcessView { queues_omitted, weighted_queues_omitted, .. } = process;
    let omitted = match (queues_omitted, weighted_queues_omitted) {
        // The version of the process does not report the numbers.
        (0, 0) => return "the queues do not fit into one message".to_owned(),
        (queues, 0) => format!("{queues} queues"),
        (0, weighted) => format!("{weighted} queues of endpoints with several queues"),
        (queues, weighted) => {
            format!("{queues} queues, and {weighted} queues of endpoints with several queues,")
        }
    };
    format!("{omitted} are omitted, because they do not fit into one message")
}

/// Returns a line for each reason why a process is not ready or its report is incomplete.
fn notes(view: &FleetView) -> Vec<String> {
    let cut_off = view.is_cut_off.then(|| {
        format!("the fleet is too large: only {} processes are known", view.processes.len())
    });
    let notes = view.processes.iter().flat_map(|process| {
        let name = format!("{} {}", process.role, short(&process.id));
        let cut = process.is_truncated.then(|| format!("{name}: {}", omitted_queues(process)));
        let reasons =
            process.not_ready.iter().map(move |(part, why)| format!("{name}: {part}: {why}"));
        reasons.chain(cut).collect::<Vec<_>>()
    });
    let mixed = view.pools.iter().filter(|pool| pool.is_mixed).map(PoolView::mixed_note);
    let notes = notes.chain(view.queues.iter().flat_map(queue_notes));
    let notes = notes.chain(weighted_queues::notes(&view.weighted_queues)).take(ROWS_MAX);
    cut_off.into_iter().chain(notes).chain(mixed).collect()
}
