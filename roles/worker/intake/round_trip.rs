//! Passes the measured round trip to the queues, and warns if a timeout is too short for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::config::limits;
use crate::lifecycle::Tasks;
use crate::messaging::Transport;
use crate::roles::worker::execution::executor::Executor;
use crate::telemetry::{gauge, names};

use super::queue::Queue;
use super::queue_set::QueueSet;

/// The interval at which the round trip is read.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the background task that reads the round trip.
pub fn follow(
    transport: &Arc<dyn Transport>,
    queues: &QueueSet,
    executor: &Arc<Executor>,
    tasks: &Tasks,
) {
    let (transport, queues) = (Arc::clone(transport), queues.clone());
    let executor = Arc::clone(executor);
    let _detached = tasks.spawn_background(async move {
        let mut tick = interval(INTERVAL);
        // Whether each timeout was too short at the last check. A warning is repeated only after
        // the timeout has been long enough in between.
        let mut was_too_short = [false; 2];
        loop {
            tick.tick().await;
            let link = transport.round_trip().smoothed;
            let longest = queues.load().iter().map(|queue| measure(queue, link)).max();
            let round_trip = longest.unwrap_or_default();
            let config = executor.config();
            let timeouts = [
                ("worker.offer_timeout", config.offer_timeout),
                ("worker.claim_timeout", config.claim_timeout),
            ];
            for ((key, configured), was_too_short) in timeouts.into_iter().zip(&mut was_too_short) {
                let longer = limits::lengthened_timeout(configured, round_trip);
                if let (Some(used), false) = (longer, *was_too_short) {
                    tracing::warn!(
                        key,
                        ?configured,
                        ?round_trip,
                        ?used,
                        "the configured time is too short for the round trip; using a longer one"
                    );
                }
                *was_too_short = longer.is_some();
            }
        }
    });
}

/// Sets a queue's round trip to the NATS server. Exports and returns its round trip to gateways.
fn measure(queue: &Queue, link: Duration) -> Duration {
    let round_trip = queue.set_link_round_trip(link);
    let label = [(names::QUEUE, queue.subjects.name.to_string())];
    gauge(&names::WORKER_ROUND_TRIP, &label).set(round_trip.as_secs_f64());
    round_trip
}
