//! After a loss of the link asks for the answers that this gateway lacks: a subscription that was away for a moment has
//! missed what was published meanwhile, and nothing else would tell.
//!
//! They come page by page, as fast as they are read: a server cuts off whoever does not keep up, and then it would all
//! begin anew.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::envelope::{Control, REPEAT_NAMES_MAX};
use crate::lifecycle::Tasks;
use crate::messaging::{self, Link, Transport};

use super::queues::Queue;
use super::queues::Queues;
use super::replies::Replies;

/// Pause after each page of requests.
const PAGE_PAUSE: Duration = Duration::from_millis(25);
/// A page is not over while more than this comes in such a pause.
const PAGE_BYTES: u64 = 256 << 10;
/// Pauses after one page, at most.
const PAGE_PAUSES_MAX: usize = 40;
/// A link that is lost again so soon was perhaps lost by what was asked for.
const CALM: Duration = Duration::from_secs(30);
/// Pause before it is asked again then; it doubles. Workers keep answers for 10 s.
const AGAIN_PAUSE: Duration = Duration::from_millis(250);
/// See `AGAIN_PAUSE`.
const AGAIN_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Follows the link for as long as the process runs.
pub(in crate::roles::gateway) fn follow_link(
    transport: &Arc<dyn Transport>,
    queues: &Arc<Queues>,
    replies: &Arc<Replies>,
    tasks: &Tasks,
) {
    let (transport, queues) = (Arc::clone(transport), Arc::clone(queues));
    let replies = Arc::clone(replies);
    let mut link = transport.link();
    let mut epoch = link.borrow().epoch;
    let _detached = tasks.spawn_background(async move {
        let (mut asked, mut pause): (Option<Instant>, _) = (None, Duration::ZERO);
        while let Some(next) = messaging::next_epoch(&mut link, epoch).await {
            epoch = next;
            let is_calm = asked.is_none_or(|asked| asked.elapsed() >= CALM);
            pause = if is_calm { Duration::ZERO } else { longer(pause) };
            let jitter = rand::rng().random_range(0.5..=1.0);
            sleep(pause.mul_f64(jitter)).await;
            asked = Some(Instant::now());
            for queue in queues.all() {
                ask(&*transport, &queue, &replies, (&link, epoch)).await;
            }
        }
    });
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(AGAIN_PAUSE, AGAIN_PAUSE_MAX)
}

/// Asks for what one queue's requests lack, until the link is lost again.
async fn ask(
    transport: &dyn Transport,
    queue: &Queue,
    replies: &Replies,
    (link, epoch): (&watch::Receiver<Link>, u64),
) {
    // The client subscribes again before it sends anything else, and servers keep that order.
    for page in replies.waiting_for(queue.number).chunks(REPEAT_NAMES_MAX) {
        let is_lost = { link.borrow().epoch != epoch || !link.borrow().is_up() };
        if is_lost {
            return;
        }
        let message = Control::repeat(queue.repeat.clone(), replies.base().clone(), page);
        if let Err(error) = transport.publish(message).await {
            tracing::debug!(%error, queue = %queue.name, "could not ask for answers again");
        }
        for _ in 0..PAGE_PAUSES_MAX {
            let before = replies.bytes();
            sleep(PAGE_PAUSE).await;
            if replies.bytes().saturating_sub(before) <= PAGE_BYTES {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_lost_again_and_again_is_asked_ever_later() {
        let pauses = std::iter::successors(Some(Duration::ZERO), |pause| Some(longer(*pause)));
        let millis: Vec<_> = pauses.take(6).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [0, 250, 500, 1000, 2000, 2000]);
    }
}
