//! What holds everything else up, in one sentence.

use serde::Serialize;

use crate::telemetry::count_as_f64;

use super::text::{percent, seconds};
use super::view::{ProcessView, QueueView, ServerView};

/// The share of the slots that a queue should use, so that waits stay short: as the recording rules have it.
pub(super) const SHARE_USED: f64 = 0.8;
/// A queue whose slots were all taken for this share of the time is saturated.
const SATURATED: f64 = 0.5;
/// A gateway with so much of its limit in flight is full.
const FULL: f64 = 0.9;
/// Where calls spend this share of their time waiting for a connection, the database's connections are what is short.
const POOL_SHARE: f64 = 0.3;

/// What kind of thing is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Nothing.
    None,
    /// A database does not answer.
    Database,
    /// A queue has no worker.
    NoWorker,
    /// A queue's slots.
    Queue,
    /// Connections to a database.
    Connections,
    /// What a gateway has in flight.
    Gateway,
    /// A NATS server cannot get rid of its messages.
    Nats,
}

/// What holds everything else up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bottleneck {
    /// What kind of thing.
    pub(super) kind: Kind,
    /// Its name; empty when there is none.
    pub(super) name: String,
    /// All about it.
    pub(super) sentence: String,
}

impl Bottleneck {
    fn of(kind: Kind, name: &str, sentence: String) -> Self {
        Self { kind, name: name.to_owned(), sentence }
    }
}

/// The bottleneck: what stops requests before what slows them down, the worst of its kind.
pub(super) fn find(
    processes: &[ProcessView],
    queues: &[QueueView],
    nats: &[ServerView],
) -> Bottleneck {
    database_away(processes)
        .or_else(|| without_worker(queues))
        .or_else(|| saturated(processes, queues))
        .or_else(|| full_gateway(processes))
        .or_else(|| slow_consumers(nats))
        .or_else(|| connections(processes))
        .unwrap_or_else(|| nothing(queues))
}

fn database_away(processes: &[ProcessView]) -> Option<Bottleneck> {
    let all = || processes.iter().flat_map(|process| &process.databases);
    let away = all().find(|database| !database.is_up)?;
    let same = || all().filter(|database| database.name == away.name);
    let sentence = format!(
        "The bottleneck is database {}: it does not answer {} of {} workers, which therefore serve none of its queues.",
        away.name,
        same().filter(|database| !database.is_up).count(),
        same().count(),
    );
    Some(Bottleneck::of(Kind::Database, &away.name, sentence))
}

fn without_worker(queues: &[QueueView]) -> Option<Bottleneck> {
    let wanted = |queue: &&QueueView| {
        queue.workers == 0 && (queue.waiting > 0 || queue.arrivals_per_second > 0.0)
    };
    let queue = queues.iter().filter(wanted).max_by_key(|queue| queue.waiting)?;
    let sentence = format!(
        "The bottleneck is queue {}: no worker serves it, while {:.1} requests a second arrive and {} wait.",
        queue.name, queue.arrivals_per_second, queue.waiting,
    );
    Some(Bottleneck::of(Kind::NoWorker, &queue.name, sentence))
}

fn saturated(processes: &[ProcessView], queues: &[QueueView]) -> Option<Bottleneck> {
    let is_saturated = |queue: &&QueueView| queue.saturated >= SATURATED;
    let worst = |a: &&QueueView, b: &&QueueView| {
        a.waiting.cmp(&b.waiting).then(a.saturated.total_cmp(&b.saturated))
    };
    let queue = queues.iter().filter(is_saturated).max_by(worst)?;
    if let Some(found) = connections(processes) {
        return Some(found);
    }
    let needed = queue.slots_needed.map_or_else(String::new, |needed| {
        format!(
            "; the {:.1} requests a second that arrive need {needed:.0} slots",
            queue.arrivals_per_second.max(queue.flow.calls_per_second)
        )
    });
    let sentence = format!(
        "The bottleneck is queue {}: the {} slots of its {} were all taken {} of the time, {} requests wait, \
         99 of 100 for less than {}{needed}.",
        queue.name,
        queue.limit,
        if queue.workers == 1 { "worker".to_owned() } else { format!("{} workers", queue.workers) },
        percent(queue.saturated),
        queue.waiting,
        seconds(queue.wait_p99_seconds),
    );
    Some(Bottleneck::of(Kind::Queue, &queue.name, sentence))
}

fn full_gateway(processes: &[ProcessView]) -> Option<Bottleneck> {
    let is_full = |process: &&ProcessView| {
        let share = count_as_f64(process.in_flight) / count_as_f64(process.in_flight_max.max(1));
        process.role == "gateway" && share >= FULL
    };
    let gateway = processes.iter().find(is_full)?;
    let sentence = format!(
        "The bottleneck is gateway {} on {}: {} of at most {} requests are in flight; more gateways, or a higher \
         gateway.http.requests_in_flight_max, let more in.",
        gateway.id, gateway.host, gateway.in_flight, gateway.in_flight_max,
    );
    Some(Bottleneck::of(Kind::Gateway, &gateway.id, sentence))
}

fn slow_consumers(nats: &[ServerView]) -> Option<Bottleneck> {
    let server = nats.iter().find(|server| server.slow_consumers_new > 0)?;
    let sentence = format!(
        "The bottleneck is NATS server {}: {} clients read too slowly and were cut off; the slowest now is {:?}.",
        server.name, server.slow_consumers_new, server.slowest_client,
    );
    Some(Bottleneck::of(Kind::Nats, &server.name, sentence))
}

/// Where calls wait for a connection longer than they should: more slots would only wait there too.
fn connections(processes: &[ProcessView]) -> Option<Bottleneck> {
    let waits = processes.iter().filter_map(|process| {
        let held = process.flow.times.mean()?;
        let each = process.databases.iter().filter_map(|database| {
            let wait = database.wait_seconds?;
            (wait >= POOL_SHARE * held).then_some((database, wait, held))
        });
        each.max_by(|(_, a, _), (_, b, _)| a.total_cmp(b))
    });
    let (database, wait, held) = waits.max_by(|(_, a, _), (_, b, _)| a.total_cmp(b))?;
    let sentence = format!(
        "The bottleneck is the connections to database {}: of the {} that a call takes it waits {} for one; a higher \
         connections_max helps if the database can take it, more workers do not.",
        database.name,
        seconds(Some(held)),
        seconds(Some(wait)),
    );
    Some(Bottleneck::of(Kind::Connections, &database.name, sentence))
}

fn nothing(queues: &[QueueView]) -> Bottleneck {
    let busy = queues.iter().filter(|queue| queue.flow.calls_per_second > 0.0);
    let busiest = busy.max_by(|a, b| a.utilization.total_cmp(&b.utilization));
    let sentence = match busiest {
        Some(queue) => format!(
            "There is no bottleneck: the busiest queue, {}, uses {} of its {} slots.",
            queue.name,
            percent(queue.utilization),
            queue.limit,
        ),
        None => "There is no bottleneck: nothing was called.".to_owned(),
    };
    Bottleneck::of(Kind::None, "", sentence)
}

#[cfg(test)]
mod tests {
    use super::super::view::{DatabaseView, Flow};
    use super::*;
    use crate::telemetry::Distribution;

    fn queue(name: &str, saturated: f64, waiting: u64) -> QueueView {
        let times = Distribution { count: 10, seconds: 2.0, buckets: Vec::new() };
        let flow = Flow { calls_per_second: 10.0, times, ..Flow::default() };
        let name = name.to_owned();
        QueueView { name, workers: 2, limit: 4, saturated, waiting, flow, ..QueueView::default() }
    }

    /// A worker whose calls take 0.2 s on average, of which they wait so long for a connection.
    fn worker(is_up: bool, wait: f64) -> ProcessView {
        let database = DatabaseView { name: "default".to_owned(), is_up, wait_seconds: Some(wait) };
        let flow = queue("", 0.0, 0).flow;
        ProcessView { databases: vec![database], flow, ..ProcessView::default() }
    }

    fn found(processes: &[ProcessView], queues: &[QueueView]) -> (Kind, String) {
        let found = find(processes, queues, &[]);
        assert!(found.sentence.ends_with('.') && !found.sentence.contains('\n'), "{found:?}");
        assert!(found.sentence.contains(&found.name), "{found:?}");
        (found.kind, found.name)
    }

    #[test]
    fn what_stops_requests_comes_before_what_slows_them_down() {
        let well = worker(true, 0.001);
        let named = |kind, name: &str| (kind, name.to_owned());
        let both = [queue("a", 0.9, 3), queue("b", 0.8, 30)];
        assert_eq!(found(&[], &[]), named(Kind::None, ""));
        assert_eq!(
            found(std::slice::from_ref(&well), &[queue("a", 0.2, 0)]),
            named(Kind::None, "")
        );
        assert_eq!(found(std::slice::from_ref(&well), &both), named(Kind::Queue, "b"));
        let waits = worker(true, 0.15);
        assert_eq!(found(&[waits], &both), named(Kind::Connections, "default"));
        let alone = QueueView { workers: 0, waiting: 1, ..queue("c", 0.0, 0) };
        let [a, b] = both;
        assert_eq!(found(&[well], &[a, b, alone.clone()]), named(Kind::NoWorker, "c"));
        let away = worker(false, 0.0);
        assert_eq!(found(&[away], &[alone]), named(Kind::Database, "default"));
    }

    #[test]
    fn a_full_gateway_and_a_slow_client_of_nats_are_seen() {
        let gateway = ProcessView {
            role: "gateway".to_owned(),
            id: "g1".to_owned(),
            in_flight: 95,
            in_flight_max: 100,
            ..ProcessView::default()
        };
        assert_eq!(found(&[gateway], &[]), (Kind::Gateway, "g1".to_owned()));
        let server =
            ServerView { name: "n1".to_owned(), slow_consumers_new: 1, ..ServerView::default() };
        assert_eq!(find(&[], &[], &[server]).kind, Kind::Nats);
    }
}
