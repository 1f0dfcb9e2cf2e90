//! What a worker says of itself to its fleet.

use std::sync::Arc;

use crate::admin::Readiness;
use crate::fleet::report::{self, QueueReport, SlotsReport};
use crate::fleet::{Report, ReportSource};
use crate::outcome::Word;
use crate::telemetry::names;
use crate::telemetry::reading::{Reading, whole};

use crate::roles::worker::intake::control::QueueTable;
use crate::roles::worker::intake::queue::Queue;

/// What makes the reports.
pub(crate) fn source(queues: &QueueTable, readiness: &Readiness) -> ReportSource {
    let (queues, readiness) = (Arc::clone(queues), readiness.clone());
    Arc::new(move |identity| {
        let reading = Reading::now();
        let queues = of_queues(&queues, &reading);
        let slots = || queues.iter().filter_map(|queue| queue.slots.as_ref());
        let reasons = readiness.reasons().into_iter().map(|(part, why)| (part.to_owned(), why));
        Report {
            not_ready: reasons.chain(readiness.notes()).collect(),
            in_flight: slots().map(|slots| slots.running).sum(),
            in_flight_max: slots().map(|slots| slots.limit).sum(),
            databases: report::databases(&reading),
            queues,
            ..Report::of(identity)
        }
    })
}

fn of_queues(queues: &QueueTable, reading: &Reading) -> Vec<QueueReport> {
    let calls = reading.by(&names::WORKER_CALLS, names::QUEUE);
    let errors = reading.by_if(&names::WORKER_CALLS, names::QUEUE, |label| {
        Word::of(&label(names::OUTCOME)).is_failure()
    });
    let mut times = reading.distributions(&names::WORKER_CALL_DURATION, names::QUEUE);
    let served = reading.by(&names::WORKER_QUEUE_READY, names::QUEUE);
    let table = queues.load();
    let each = table.iter().map(|queue| {
        let name = queue.name.as_str();
        let count =
            |of: &std::collections::BTreeMap<String, f64>| of.get(name).copied().map_or(0, whole);
        QueueReport {
            calls: count(&calls),
            errors: count(&errors),
            last_error: queue.last_failure().map_or("", Word::as_str).to_owned(),
            times: times.remove(name).unwrap_or_default(),
            slots: Some(slots(queue, count(&served) > 0)),
            name: name.to_owned(),
            demand: None,
        }
    });
    each.collect()
}

fn slots(queue: &Queue, is_served: bool) -> SlotsReport {
    let (used, full) = queue.slot_times();
    let slots = queue.slots();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    SlotsReport {
        limit: count(slots.limit()),
        running: count(slots.running()),
        waiting: count(slots.waiting()),
        used_seconds: used.as_secs_f64(),
        full_seconds: full.as_secs_f64(),
        is_served,
    }
}
