//! Bottlenecks in queues whose requests do not make progress.

use super::super::activity::QueueView;
use super::super::format::percent;
use super::super::stall::HangingEvidence;
use super::{Bottleneck, BottleneckKind};

/// The minimum number of attempts for which NATS found no worker between the reports. A few such attempts are normal
/// when workers start or stop.
const UNSERVED_MIN: u64 = 3;

/// Returns a queue for whose requests NATS finds no worker, although workers report that they serve the queue.
pub(super) fn unreachable_workers(queues: &[QueueView]) -> Option<Bottleneck> {
    let unreachable = |queue: &&QueueView| {
        queue.workers > queue.paused && queue.diagnosis.unserved >= UNSERVED_MIN
    };
    let queue = queues.iter().filter(unreachable).max_by_key(|queue| queue.diagnosis.unserved)?;
    let workers = match queue.workers {
        1 => "1 worker reports that it serves the queue".to_owned(),
        workers => format!("{workers} workers report that they serve the queue"),
    };
    let sentence = format!(
        "The bottleneck is queue {}: {workers}, but NATS found none for {} attempts. Unless the workers have just started, \
         their subscriptions do not reach the NATS servers of the gateways: check the routes between the servers.",
        queue.name, queue.diagnosis.unserved,
    );
    Some(Bottleneck::new(BottleneckKind::NoWorker, &queue.name, sentence))
}

/// Returns the queue with the oldest request that no worker has accepted. If there is none, returns the queue with the
/// oldest call that certainly or, if the queue is saturated, possibly hangs.
pub(super) fn stalled(queues: &[QueueView]) -> Option<Bottleneck> {
    let is_severe =
        |queue: &QueueView, evidence: &HangingEvidence| evidence.is_certain || queue.is_saturated();
    not_accepted(queues).or_else(|| hanging(queues, is_severe))
}

/// Returns the queue with the oldest call that may hang, although it may also just be slow and makes no other request wait.
pub(super) fn possibly_hanging(queues: &[QueueView]) -> Option<Bottleneck> {
    hanging(queues, |_, _| true)
}

fn not_accepted(queues: &[QueueView]) -> Option<Bottleneck> {
    let stalled = queues.iter().filter_map(|queue| Some((queue, queue.unaccepted_evidence()?)));
    let (queue, evidence) = stalled.max_by(|(a, _), (b, _)| {
        a.diagnosis.unaccepted_seconds.total_cmp(&b.diagnosis.unaccepted_seconds)
    })?;
    let cause = match queue.workers {
        _ if queue.diagnosis.may_lack_workers => "Workers or a connection to NATS may be hanging",
        0 => "Its workers or a connection to NATS may be hanging",
        _ => "Workers that have not replied, or a connection to NATS, may be hanging",
    };
    let sentence = format!(
        "The bottleneck is queue {}: {evidence}; {}. {cause}.",
        queue.name,
        queue.replied_workers(),
    );
    Some(Bottleneck::new(BottleneckKind::Stalled, &queue.name, sentence))
}

fn hanging(
    queues: &[QueueView],
    is_wanted: impl Fn(&QueueView, &HangingEvidence) -> bool,
) -> Option<Bottleneck> {
    let stalled = queues.iter().filter_map(|queue| Some((queue, queue.hanging_evidence()?)));
    let stalled = stalled.filter(|(queue, evidence)| is_wanted(queue, evidence));
    let (queue, evidence) = stalled.max_by(|(a, one), (b, other)| {
        let ages = a.diagnosis.accepted_seconds.total_cmp(&b.diagnosis.accepted_seconds);
        one.is_certain.cmp(&other.is_certain).then(ages)
    })?;
    let sentence = format!(
        "The bottleneck is queue {}: {}; {}. {}.",
        queue.name,
        evidence.text,
        queue.replied_workers(),
        evidence.causes,
    );
    Some(Bottleneck::new(BottleneckKind::Stalled, &queue.name, sentence))
}

/// Returns a queue whose slots count as in use only because they are reserved for offers.
pub(super) fn offers_not_taken(queues: &[QueueView]) -> Option<Bottleneck> {
    let reserved = |queue: &&QueueView| {
        queue.diagnosis.has_lapsing_offers()
            && queue.is_saturated()
            && queue.utilization < queue.saturated / 2.0
    };
    let queue = queues.iter().filter(reserved).max_by_key(|queue| queue.diagnosis.offers_lapsed)?;
    let sentence = format!(
        "The bottleneck is queue {}: its slots are reserved for offers that no gateway accepts. Of {} offers, {} were \
         answered too late or not at all. Calls use only {} of the slots. A gateway is hanging, or its connection to \
         NATS is slow.",
        queue.name,
        queue.diagnosis.offers_made,
        queue.diagnosis.offers_lapsed,
        percent(queue.utilization),
    );
    Some(Bottleneck::new(BottleneckKind::Offers, &queue.name, sentence))
}

#[cfg(test)]
mod tests;
