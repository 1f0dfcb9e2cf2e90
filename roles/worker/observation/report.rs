//! The status report of a worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Readiness;
use crate::fleet::report::{self, OffersReport, QueueReport, SlotsReport};
use crate::fleet::{Report, ReportSource};
use crate::outcome::Outcome;
use crate::telemetry::{names, snapshot};

use super::load::SlotUsage;

/// The state of a queue at one moment.
#[derive(Clone, Debug)]
pub struct QueueSnapshot {
    /// The name of the queue.
    pub name: String,
    /// The usage of the slots.
    pub slots: SlotUsage,
    /// The configured number of slots.
    pub limit_configured: usize,
    /// Whether an operator has paused the queue.
    pub is_paused: bool,
    /// The total time for which calls have held slots since the start.
    pub slot_time: Duration,
    /// The total time without a free slot since the start.
    pub saturated_time: Duration,
    /// The outcome of the last failed call.
    pub last_failure: Option<Outcome>,
}

/// Returns a function that creates reports from snapshots of all queues. `pool` is the name of the
/// worker's pool.
pub fn source(
    pool: &str,
    queues: impl Fn() -> Vec<QueueSnapshot> + Send + Sync + 'static,
    readiness: &Readiness,
) -> ReportSource {
    let (pool, readiness) = (pool.to_owned(), readiness.clone());
    Arc::new(move |identity| {
        let queues = queue_reports(queues());
        let slots = || queues.iter().filter_map(|queue| queue.slots.as_ref());
        let reasons = readiness.reasons().into_iter().map(|(part, why)| (part.to_owned(), why));
        Report {
            pool: pool.clone(),
            not_ready: reasons.chain(readiness.notes()).collect(),
            in_flight: slots().map(|slots| slots.running).sum(),
            in_flight_max: slots().map(|slots| slots.limit).sum(),
            databases: report::databases(),
            queues,
            ..Report::new(identity)
        }
    })
}

fn queue_reports(queues: Vec<QueueSnapshot>) -> Vec<QueueReport> {
    let calls = snapshot::sums(&names::WORKER_CALLS, names::QUEUE);
    let errors = snapshot::sums_where(&names::WORKER_CALLS, names::QUEUE, |label| {
        Outcome::parse(&label(names::OUTCOME)).is_failure()
    });
    let stopped = snapshot::sums_where(&names::WORKER_CALLS, names::QUEUE, |label| {
        Outcome::parse(&label(names::OUTCOME)).is_stopped()
    });
    let not_started = snapshot::sums_where(&names::WORKER_CALLS, names::QUEUE, |label| {
        let outcome = Outcome::parse(&label(names::OUTCOME));
        outcome.is_stalled() && !outcome.is_stopped()
    });
    let mut times = snapshot::distributions(&names::WORKER_CALL_DURATION, names::QUEUE);
    let offers = |result: &str| {
        snapshot::sums_where(&names::WORKER_OFFERS, names::QUEUE, |label| {
            label(names::RESULT) == result
        })
    };
    let [made, lapsed, late] = ["made", "lapsed", "late"].map(offers);
    let ready = snapshot::sums(&names::WORKER_QUEUE_READY, names::QUEUE);
    let count = |of: &BTreeMap<String, f64>, name: &str| {
        of.get(name).copied().map_or(0, snapshot::to_count)
    };
    let reports = queues.into_iter().map(|queue| QueueReport {
        calls: count(&calls, &queue.name),
        errors: count(&errors, &queue.name),
        stopped: count(&stopped, &queue.name),
        not_started: count(&not_started, &queue.name),
        last_error: queue.last_failure.map_or("", Outcome::as_str).to_owned(),
        times: times.remove(&queue.name).unwrap_or_default(),
        offers: Some(OffersReport {
            open: u64::try_from(queue.slots.offered).unwrap_or(u64::MAX),
            made: count(&made, &queue.name),
            lapsed: count(&lapsed, &queue.name),
            late: count(&late, &queue.name),
        }),
        slots: Some(slots_report(&queue, count(&ready, &queue.name) > 0)),
        name: queue.name,
        demand: None,
        delivery: None,
    });
    reports.collect()
}

fn slots_report(queue: &QueueSnapshot, is_served: bool) -> SlotsReport {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    SlotsReport {
        limit: count(queue.slots.limit),
        running: count(queue.slots.running),
        waiting: count(queue.slots.waiting),
        used_seconds: queue.slot_time.as_secs_f64(),
        full_seconds: queue.saturated_time.as_secs_f64(),
        is_served,
        limit_configured: Some(count(queue.limit_configured)),
        is_paused: queue.is_paused,
    }
}
