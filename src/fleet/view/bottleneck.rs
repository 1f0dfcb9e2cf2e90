//! Finds the bottleneck of the fleet and describes it in one line.

use serde::Serialize;

use crate::telemetry::{Distribution, count_as_f64};

use super::activity::{ProcessView, QueueView};
use super::format::{percent, seconds};
use super::nats_server::NatsServerView;

mod progress;

use progress::{offers_not_taken, possibly_hanging, stalled, unreachable_workers};

/// A gateway counts as full if requests in flight reach this share of its limit.
const FULL: f64 = 0.9;
/// Connections are the bottleneck if calls spend at least this share of their time waiting for one.
const POOL_SHARE: f64 = 0.3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BottleneckKind {
    /// There is no bottleneck.
    None,
    /// A database does not answer.
    Database,
    /// A queue has no worker.
    NoWorker,
    /// The requests of a queue do not make progress, because workers accept none, or none of the calls ends in time.
    Stalled,
    /// The slots of a queue are reserved for offers that no gateway accepts.
    Offers,
    /// A queue has too few free slots.
    Queue,
    /// Calls are waiting for database connections.
    Connections,
    /// A gateway is close to its limit on requests in flight.
    Gateway,
    /// Clients of a NATS server read too slowly.
    Nats,
}

/// The bottleneck of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bottleneck {
    pub(crate) kind: BottleneckKind,
    /// The name of the process, queue, database or server. Empty if there is no bottleneck.
    pub(crate) name: String,
    pub(crate) sentence: String,
}

impl Bottleneck {
    fn new(kind: BottleneckKind, name: &str, sentence: String) -> Self {
        Self { kind, name: name.to_owned(), sentence }
    }
}

/// Returns the most severe bottleneck. Bottlenecks that block requests rank above those that delay them.
pub(crate) fn find(
    processes: &[ProcessView],
    queues: &[QueueView],
    nats: &[NatsServerView],
) -> Bottleneck {
    unavailable_database(processes)
        .or_else(|| unreachable_workers(queues))
        .or_else(|| stalled(queues))
        .or_else(|| without_worker(processes, queues))
        .or_else(|| offers_not_taken(queues))
        .or_else(|| saturated(processes, queues))
        .or_else(|| full_gateway(processes))
        .or_else(|| slow_consumers(nats))
        .or_else(|| connections(processes.iter()))
        .or_else(|| possibly_hanging(queues))
        .unwrap_or_else(|| nothing(processes, queues))
}

fn unavailable_database(processes: &[ProcessView]) -> Option<Bottleneck> {
    let all = || processes.iter().flat_map(|process| &process.databases);
    let down = all().find(|database| !database.is_up)?;
    let same = || all().filter(|database| database.name == down.name);
    let sentence = format!(
        "The bottleneck is database {}: it does not answer {} of {} workers, which therefore serve none of its queues.",
        down.name,
        same().filter(|database| !database.is_up).count(),
        same().count(),
    );
    Some(Bottleneck::new(BottleneckKind::Database, &down.name, sentence))
}

fn without_worker(processes: &[ProcessView], queues: &[QueueView]) -> Option<Bottleneck> {
    // A worker whose report lacks queues may serve any queue.
    let is_known =
        !processes.iter().any(|process| process.role == "worker" && process.is_truncated);
    let wanted = |queue: &&QueueView| {
        let has_none = queue.workers == queue.paused && (is_known || queue.paused > 0);
        has_none && (queue.waiting > 0 || queue.arrivals_per_second > 0.0)
    };
    let queue = queues.iter().filter(wanted).max_by_key(|queue| queue.waiting)?;
    let why = if queue.paused > 0 {
        "it is paused"
    } else if queue.diagnosis.unaccepted > 0 {
        "none of its workers replies"
    } else {
        "no worker serves it"
    };
    let sentence = format!(
        "The bottleneck is queue {}: {why}, while {}{} are waiting.",
        queue.name,
        arrivals(queue),
        queue.waiting,
    );
    Some(Bottleneck::new(BottleneckKind::NoWorker, &queue.name, sentence))
}

/// Returns the arrival rate as text, if it is known.
fn arrivals(queue: &QueueView) -> String {
    let rate = queue.arrivals_per_second;
    if rate.is_nan() { String::new() } else { format!("{rate:.1} requests per second arrive and ") }
}

fn saturated(processes: &[ProcessView], queues: &[QueueView]) -> Option<Bottleneck> {
    let is_saturated = |queue: &&QueueView| queue.is_saturated();
    let worst = |a: &&QueueView, b: &&QueueView| {
        a.waiting.cmp(&b.waiting).then(a.saturated.total_cmp(&b.saturated))
    };
    let queue = queues.iter().filter(is_saturated).max_by(worst)?;
    // A report that omits queues does not omit those with running calls.
    let serves =
        |process: &&ProcessView| process.queues.iter().any(|served| served.name == queue.name);
    if let Some(found) = connections(processes.iter().filter(serves)) {
        return Some(found);
    }
    let needed = queue.slots_needed.map_or_else(String::new, |needed| {
        format!(
            " At {:.1} requests per second, the queue needs {needed:.0} slots.",
            queue.arrivals_per_second.max(queue.rates.calls_per_second)
        )
    });
    let waited = queue.wait_p99_seconds.map_or_else(String::new, |wait| {
        format!("; 99 % of requests waited for less than {}", seconds(Some(wait)))
    });
    let sentence = format!(
        "The bottleneck is queue {}: all {} slots of its {} were in use {} of the time. {} requests are waiting{waited}.{needed}",
        queue.name,
        queue.limit,
        match queue.workers {
            workers if queue.diagnosis.may_lack_workers => format!("{workers} reported workers"),
            1 => "worker".to_owned(),
            workers => format!("{workers} workers"),
        },
        percent(queue.saturated),
        queue.waiting,
    );
    Some(Bottleneck::new(BottleneckKind::Queue, &queue.name, sentence))
}

fn full_gateway(processes: &[ProcessView]) -> Option<Bottleneck> {
    let is_full = |process: &&ProcessView| {
        let share = count_as_f64(process.in_flight) / count_as_f64(process.in_flight_max.max(1));
        process.role == "gateway" && share >= FULL
    };
    let gateway = processes.iter().find(is_full)?;
    let sentence = format!(
        "The bottleneck is gateway {} on {}: {} of at most {} requests are in flight; add gateways, or raise \
         gateway.http.requests_in_flight_max.",
        gateway.id, gateway.host, gateway.in_flight, gateway.in_flight_max,
    );
    Some(Bottleneck::new(BottleneckKind::Gateway, &gateway.id, sentence))
}

fn slow_consumers(nats: &[NatsServerView]) -> Option<Bottleneck> {
    let server = nats.iter().find(|server| server.slow_consumers_new > 0)?;
    let sentence = format!(
        "The bottleneck is NATS server {}: {} clients read too slowly and were disconnected; the slowest is now {:?}.",
        server.name, server.slow_consumers_new, server.slowest_client,
    );
    Some(Bottleneck::new(BottleneckKind::Nats, &server.name, sentence))
}

/// Returns the database with the longest wait for a connection. Additional slots would not help, because their calls
/// would wait for the same connections.
fn connections<'a>(processes: impl Iterator<Item = &'a ProcessView>) -> Option<Bottleneck> {
    let waits = processes.filter_map(|process| {
        let call = call_seconds(process)?;
        let waits = process.databases.iter().filter_map(|database| {
            let wait = database.wait_seconds?;
            (wait >= POOL_SHARE * call).then_some((database, wait, call))
        });
        waits.max_by(|(_, a, _), (_, b, _)| a.total_cmp(b))
    });
    let (database, wait, call) = waits.max_by(|(_, a, _), (_, b, _)| a.total_cmp(b))?;
    let sentence = format!(
        "The bottleneck is the connections to database {}: a call takes {}, of which it waits {} for a connection; a \
         higher connections_max helps if the database can handle the load; more workers do not help.",
        database.name,
        seconds(Some(call)),
        seconds(Some(wait)),
    );
    Some(Bottleneck::new(BottleneckKind::Connections, &database.name, sentence))
}

/// Returns the mean duration of the process's calls: of those of the reported queues, if its report omits queues.
fn call_seconds(process: &ProcessView) -> Option<f64> {
    let mut reported = Distribution::default();
    process.queues.iter().for_each(|queue| reported.add(&queue.rates.times));
    process.rates.times.mean().or_else(|| reported.mean())
}

fn nothing(processes: &[ProcessView], queues: &[QueueView]) -> Bottleneck {
    let is_truncated = processes.iter().any(|process| process.is_truncated);
    let among = if is_truncated { " among the reported queues" } else { "" };
    let busy = queues.iter().filter(|queue| queue.rates.calls_per_second > 0.0);
    let busiest = busy.max_by(|a, b| a.utilization.total_cmp(&b.utilization));
    let sentence = match busiest {
        Some(queue) => format!(
            "There is no bottleneck{among}: the busiest queue, {}, uses {} of its {} {}slots.",
            queue.name,
            percent(queue.utilization),
            queue.limit,
            if queue.diagnosis.may_lack_workers { "reported " } else { "" },
        ),
        None if is_truncated => {
            "No bottleneck is known: not all queues fit into the processes' reports.".to_owned()
        }
        None if queues.iter().any(|queue| queue.is_partial) => {
            "No bottleneck is known yet: not all processes have sent two reports.".to_owned()
        }
        None => "There is no bottleneck: no calls were made.".to_owned(),
    };
    Bottleneck::new(BottleneckKind::None, "", sentence)
}

#[cfg(test)]
mod tests {
    use super::super::activity::{DatabaseView, WorkerQueueView};
    use super::super::rates::CallRates;
    use super::*;

    fn queue(name: &str, saturated: f64, waiting: u64) -> QueueView {
        let times = Distribution { count: 10, seconds: 2.0, buckets: Vec::new() };
        let rates = CallRates { calls_per_second: 10.0, times, ..CallRates::default() };
        let name = name.to_owned();
        QueueView { name, workers: 2, limit: 4, saturated, waiting, rates, ..QueueView::default() }
    }

    /// Creates a worker whose calls take 0.2 s on average, of which they spend `wait` seconds waiting for a connection.
    fn worker(is_up: bool, wait: f64) -> ProcessView {
        let database = DatabaseView { name: "default".to_owned(), is_up, wait_seconds: Some(wait) };
        let rates = queue("", 0.0, 0).rates;
        let queues = ["a", "b"].map(served).into();
        ProcessView { queues, databases: vec![database], rates, ..ProcessView::default() }
    }

    fn served(name: &str) -> WorkerQueueView {
        WorkerQueueView { name: name.to_owned(), ..WorkerQueueView::default() }
    }

    fn bottleneck(processes: &[ProcessView], queues: &[QueueView]) -> (BottleneckKind, String) {
        let found = find(processes, queues, &[]);
        assert!(found.sentence.ends_with('.') && !found.sentence.contains('\n'), "{found:?}");
        assert!(found.sentence.contains(&found.name), "{found:?}");
        (found.kind, found.name)
    }

    #[test]
    fn stopped_requests_come_before_delayed_ones() {
        let well = worker(true, 0.001);
        let named = |kind, name: &str| (kind, name.to_owned());
        let both = [queue("a", 0.9, 3), queue("b", 0.8, 30)];
        assert_eq!(bottleneck(&[], &[]), named(BottleneckKind::None, ""));
        assert_eq!(
            bottleneck(std::slice::from_ref(&well), &[queue("a", 0.2, 0)]),
            named(BottleneckKind::None, "")
        );
        assert_eq!(
            bottleneck(std::slice::from_ref(&well), &both),
            named(BottleneckKind::Queue, "b")
        );
        let waits = worker(true, 0.15);
        assert_eq!(bottleneck(&[waits], &both), named(BottleneckKind::Connections, "default"));
        // This worker does not serve the saturated queue.
        let other = ProcessView { queues: vec![served("c")], ..worker(true, 0.15) };
        assert_eq!(bottleneck(&[other], &both), named(BottleneckKind::Queue, "b"));
        let alone = QueueView { workers: 0, waiting: 1, ..queue("c", 0.0, 0) };
        let [a, b] = both;
        assert_eq!(
            bottleneck(&[well], &[a, b, alone.clone()]),
            named(BottleneckKind::NoWorker, "c")
        );
        let role = "worker".to_owned();
        let truncated = ProcessView { is_truncated: true, role, ..worker(true, 0.001) };
        assert_eq!(
            bottleneck(&[truncated], std::slice::from_ref(&alone)),
            named(BottleneckKind::None, ""),
            "its report may lack the queue"
        );
        // The rates of the whole process are unknown if its report omits queues.
        let queues = vec![WorkerQueueView { rates: queue("", 0.0, 0).rates, ..served("b") }];
        let rates = CallRates::UNKNOWN;
        let waits = ProcessView { is_truncated: true, rates, queues, ..worker(true, 0.15) };
        assert_eq!(
            bottleneck(&[waits], &[queue("b", 0.8, 30)]),
            named(BottleneckKind::Connections, "default")
        );
        let away = worker(false, 0.0);
        assert_eq!(bottleneck(&[away], &[alone]), named(BottleneckKind::Database, "default"));
    }

    #[test]
    fn full_gateways_and_slow_nats_clients_are_found() {
        let gateway = ProcessView {
            role: "gateway".to_owned(),
            id: "g1".to_owned(),
            in_flight: 95,
            in_flight_max: 100,
            ..ProcessView::default()
        };
        assert_eq!(bottleneck(&[gateway], &[]), (BottleneckKind::Gateway, "g1".to_owned()));
        let server = NatsServerView {
            name: "n1".to_owned(),
            slow_consumers_new: 1,
            ..NatsServerView::default()
        };
        assert_eq!(find(&[], &[], &[server]).kind, BottleneckKind::Nats);
    }
}
