//! The counts and ages of each queue's requests that have been sent, for the gateway's report.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::fleet::report::{DeliveryReport, QueueReport};
use crate::telemetry::{names, snapshot};

use crate::roles::gateway::dispatch::queues::GatewayQueue;

/// Adds these counts and ages to the report of each queue.
pub(super) fn add(reports: &mut [QueueReport], queues: &[Arc<GatewayQueue>]) {
    let now = Instant::now();
    let unserved: BTreeMap<String, f64> = snapshot::sums(&names::GATEWAY_UNSERVED, names::QUEUE);
    let by_name: HashMap<&str, _> =
        queues.iter().map(|queue| (queue.name.as_str(), queue)).collect();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for report in reports {
        let Some(queue) = by_name.get(report.name.as_str()) else { continue };
        let [unaccepted, accepted] = queue.deliveries.ages(now);
        let [timed_out_unaccepted, timed_out_accepted] = queue.deliveries.timed_out();
        report.delivery = Some(DeliveryReport {
            unaccepted: count(unaccepted.count),
            unaccepted_seconds: unaccepted.oldest.as_secs_f64(),
            accepted: count(accepted.count),
            accepted_seconds: accepted.oldest.as_secs_f64(),
            accepted_session_seconds: accepted.session_time.as_secs_f64(),
            answered: queue.deliveries.answered(),
            answered_p99_seconds: queue.deliveries.answer_time_p99().as_secs_f64(),
            timed_out_unaccepted: timed_out_unaccepted.count,
            timed_out_unaccepted_seconds: timed_out_unaccepted.time.as_secs_f64(),
            timed_out_accepted: timed_out_accepted.count,
            unserved: unserved.get(&report.name).copied().map_or(0, snapshot::to_count),
        });
    }
}
