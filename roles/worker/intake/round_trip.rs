//! How far this worker is from its gateways: tells its queues what the transport measures, and the log what does not fit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::config::WorkerConfig;
use crate::config::limits;
use crate::lifecycle::Tasks;
use crate::messaging::Transport;
use crate::telemetry::{gauge, names};

use crate::roles::worker::intake::control::QueueTable;
use crate::roles::worker::intake::queue::Queue;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for as long as the worker lives.
pub(crate) fn follow(
    transport: &Arc<dyn Transport>,
    queues: &QueueTable,
    config: &WorkerConfig,
    tasks: &Tasks,
) {
    let (transport, queues) = (Arc::clone(transport), Arc::clone(queues));
    let times = [
        ("worker.offer_timeout", config.offer_timeout),
        ("worker.claim_timeout", config.claim_timeout),
    ];
    let _detached = tasks.spawn_background(async move {
        let mut look = interval(LOOK);
        // Said once until it fits again.
        let mut said = times.map(|_| false);
        loop {
            look.tick().await;
            let link = transport.round_trip().smoothed;
            let queues = queues.load_full();
            let farthest = queues.iter().map(|queue| measure(queue, link)).max();
            for ((key, configured), said) in times.iter().zip(&mut said) {
                let longer = limits::too_short(*configured, farthest.unwrap_or_default());
                if let (Some(used), false) = (longer, *said) {
                    let round_trip = farthest.unwrap_or_default();
                    tracing::warn!(
                        key,
                        ?configured,
                        ?round_trip,
                        ?used,
                        "a configured time is short beside the round trip: a longer one is used"
                    );
                }
                *said = longer.is_some();
            }
        }
    });
}

/// A queue's round trip, now that the transport's is known.
fn measure(queue: &Arc<Queue>, link: Duration) -> Duration {
    let round_trip = {
        let mut slots = queue.slots();
        slots.pace.set_link(link);
        slots.pace.round_trip()
    };
    let label = [(names::QUEUE, queue.name.to_string())];
    gauge(&names::WORKER_ROUND_TRIP, &label).set(round_trip.as_secs_f64());
    round_trip
}
