//! Requests missing answers after a lost link has been restored. Replies that were published while
//! the link was down did not reach the subscription.
//!
//! The gateway requests one page of answers at a time and waits for the page to arrive, because a
//! NATS server disconnects a client that reads too slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::envelope::{Control, RESEND_NAMES_MAX};
use crate::jitter::jittered;
use crate::lifecycle::Tasks;
use crate::messaging::{self, Transport};

use super::ReplyRouter;
use crate::roles::gateway::dispatch::queues::{GatewayQueue, QueueRegistry};

/// The pause after requesting each page.
const PAGE_PAUSE: Duration = Duration::from_millis(25);
/// If more bytes than this were received during a pause, the page is assumed to be incomplete.
const PAGE_BYTES: u64 = 256 << 10;
/// The maximum number of pauses after one page.
const PAGE_PAUSES_MAX: usize = 40;
/// If the link is lost again within this time after answers were requested, the answers may be the
/// cause.
const STABLE_TIME: Duration = Duration::from_secs(30);
/// If the link is lost again within `STABLE_TIME`, the next request for answers is delayed by this
/// much. The delay doubles each time.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// The longest delay before answers are requested. Workers keep answers for longer
/// (`reconnect_time_max`).
const DELAY_MAX: Duration = Duration::from_secs(2);

/// Starts a background task that requests missing answers each time the link is restored.
pub(in crate::roles::gateway::dispatch) fn start(
    transport: &Arc<dyn Transport>,
    queues: &Arc<QueueRegistry>,
    router: &Arc<ReplyRouter>,
    tasks: &Tasks,
) {
    let (transport, queues) = (Arc::clone(transport), Arc::clone(queues));
    let router = Arc::clone(router);
    let mut link = transport.link();
    let mut epoch = link.borrow().epoch;
    let _detached = tasks.spawn_background(async move {
        let (mut requested_at, mut delay): (Option<Instant>, _) = (None, Duration::ZERO);
        while let Some(next) = messaging::next_epoch(&mut link, epoch).await {
            epoch = next;
            let was_stable = requested_at.is_none_or(|at| at.elapsed() >= STABLE_TIME);
            delay = if was_stable { Duration::ZERO } else { next_delay(delay) };
            sleep(jittered(delay, 0.5..=1.0)).await;
            requested_at = Some(Instant::now());
            for queue in queues.all() {
                let is_same_link = || {
                    let link = link.borrow();
                    link.epoch == epoch && link.is_up()
                };
                request_answers(&*transport, &queue, &router, &is_same_link).await;
            }
        }
    });
}

fn next_delay(delay: Duration) -> Duration {
    (delay * 2).clamp(DELAY_MIN, DELAY_MAX)
}

/// Asks the workers of a queue for the answers to its pending requests, until the link is lost.
async fn request_answers(
    transport: &dyn Transport,
    queue: &GatewayQueue,
    router: &ReplyRouter,
    is_same_link: &(dyn Fn() -> bool + Send + Sync),
) {
    // The answers reach the new subscription: the client library subscribes again before it sends
    // anything else, and servers preserve that order.
    for page in router.pending_requests(queue.number).chunks(RESEND_NAMES_MAX) {
        if !is_same_link() {
            return;
        }
        let message = Control::resend(queue.resend.clone(), router.base().clone(), page);
        if let Err(error) = transport.publish(message).await {
            tracing::debug!(%error, queue = %queue.name, "cannot request missing answers");
        }
        for _ in 0..PAGE_PAUSES_MAX {
            let bytes_before = router.received_bytes();
            sleep(PAGE_PAUSE).await;
            if router.received_bytes().saturating_sub(bytes_before) <= PAGE_BYTES {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_each_time_the_link_is_lost_again() {
        let delays = std::iter::successors(Some(Duration::ZERO), |delay| Some(next_delay(*delay)));
        let millis: Vec<_> = delays.take(6).map(|delay| delay.as_millis()).collect();
        assert_eq!(millis, [0, 250, 500, 1000, 2000, 2000]);
    }
}
