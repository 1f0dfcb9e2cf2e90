//! How far this gateway is from its workers: for metrics, and for the log where a configured time does not fit. And who is
//! there, while one of them is suspected to hang.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::telemetry::{gauge, names};

use super::place::Placer;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for as long as the gateway lives.
pub(in crate::roles::gateway) fn follow(placer: &Arc<Placer>) {
    let (tasks, placer) = (placer.tasks.clone(), Arc::downgrade(placer));
    let _detached = tasks.spawn_background(async move {
        let mut look = interval(LOOK);
        // Said once until it fits again.
        let mut is_said = false;
        loop {
            look.tick().await;
            let Some(placer) = placer.upgrade() else { return };
            let link = placer.transport.round_trip().smoothed;
            let configured = placer.config.load().accept_timeout;
            let mut farthest = (Duration::ZERO, configured);
            for queue in placer.queues.all() {
                queue.timing.set_link(link);
                let round_trip = queue.timing.round_trip();
                let label = [(names::QUEUE, queue.name.to_string())];
                gauge(&names::GATEWAY_ROUND_TRIP, &label).set(round_trip.as_secs_f64());
                if queue.members.asks(Instant::now()) {
                    let question = placer.members_question(&queue);
                    if let Err(error) = placer.transport.publish(question).await {
                        tracing::debug!(%error, "could not ask who serves a queue");
                    }
                }
                farthest = farthest.max((round_trip, queue.timing.accept_timeout(configured)));
            }
            let (round_trip, used) = farthest;
            if used > configured && !is_said {
                tracing::warn!(
                    key = "gateway.session.accept_timeout",
                    ?configured,
                    ?round_trip,
                    ?used,
                    "a configured time is short beside the round trip: a longer one is used"
                );
            }
            is_said = used > configured;
        }
    });
}
