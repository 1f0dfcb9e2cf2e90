//! After a loss of the link asks for the answers that this gateway lacks: a subscription that was away for a moment has
//! missed what was published meanwhile, and nothing else would tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::envelope::{Control, REPEAT_NAMES_MAX};
use crate::lifecycle::Tasks;
use crate::messaging::{self, Transport};

use super::queues::Queues;
use super::replies::Replies;

/// Pause after each page of requests, so that their answers do not come all at once.
const PAGE_PAUSE: Duration = Duration::from_millis(25);

/// Follows the link for as long as the process runs.
pub(super) fn follow_link(
    transport: &Arc<dyn Transport>,
    queues: &Arc<Queues>,
    replies: &Arc<Replies>,
    tasks: &Tasks,
) {
    let transport = Arc::clone(transport);
    let (queues, replies) = (Arc::clone(queues), Arc::clone(replies));
    let mut link = transport.link();
    let mut epoch = link.borrow().epoch;
    let _detached = tasks.spawn_background(async move {
        loop {
            let Some(next) = messaging::next_epoch(&mut link, epoch).await else { return };
            epoch = next;
            // The library subscribes again before it sends anything else, and servers keep that order.
            for queue in queues.all() {
                for page in replies.waiting_for(queue.number).chunks(REPEAT_NAMES_MAX) {
                    let (to, inbox) = (queue.repeat.clone(), replies.base().clone());
                    let message = Control::repeat(to, inbox, page);
                    if let Err(error) = transport.publish(message).await {
                        tracing::debug!(%error, queue = %queue.name, "could not ask for answers again");
                    }
                    sleep(PAGE_PAUSE).await;
                }
            }
        }
    });
}
