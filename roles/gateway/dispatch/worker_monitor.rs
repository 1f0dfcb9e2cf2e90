//! Exports the round trip of each queue and the ages of its requests. Queries the members of queues in which a worker
//! is suspected of hanging.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::telemetry::{gauge, names};

use super::queues::QueueRegistry;
use super::services::DispatchServices;

const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the monitor, which ends when the dispatcher is dropped.
pub(super) fn start(services: &Arc<DispatchServices>, queues: &Arc<QueueRegistry>) {
    let tasks = services.tasks.clone();
    let (services, queues) = (Arc::downgrade(services), Arc::clone(queues));
    let _detached = tasks.spawn_background(async move {
        let mut ticks = interval(INTERVAL);
        // Whether the warning about a configured time that is too short has been logged.
        let mut is_logged = false;
        loop {
            ticks.tick().await;
            let Some(services) = services.upgrade() else { return };
            let link_round_trip = services.transport.round_trip().smoothed;
            let configured = services.config.load().accept_timeout;
            let mut slowest = (Duration::ZERO, configured);
            for queue in queues.all() {
                queue.deliveries.publish(Instant::now());
                queue.timing.set_link_round_trip(link_round_trip);
                let round_trip = queue.timing.round_trip();
                let label = [(names::QUEUE, queue.name.to_string())];
                gauge(&names::GATEWAY_ROUND_TRIP, &label).set(round_trip.as_secs_f64());
                if queue.members.start_query_if_due(Instant::now()) {
                    services.query_members(&queue).await;
                }
                slowest = slowest.max((round_trip, queue.timing.accept_timeout(configured)));
            }
            let (round_trip, used) = slowest;
            if used > configured && !is_logged {
                tracing::warn!(
                    key = "gateway.session.accept_timeout",
                    ?configured,
                    ?round_trip,
                    ?used,
                    "the configured time is too short for the round trip; using a longer one"
                );
            }
            is_logged = used > configured;
        }
    });
}
