//! After a loss of the link asks all workers to send again what they answered meanwhile: a subscription that was away
//! for a moment has missed it, and nothing else would tell.

use std::sync::Arc;

use crate::envelope::Control;
use crate::lifecycle::Tasks;
use crate::messaging::{self, Subject, Transport};

/// Follows the link for as long as the process runs. `inbox` is the subject above every reply of this gateway.
pub(super) fn follow_link(
    transport: &Arc<dyn Transport>,
    to: Subject,
    inbox: Subject,
    tasks: &Tasks,
) {
    let transport = Arc::clone(transport);
    let mut link = transport.link();
    let mut epoch = link.borrow().epoch;
    let _detached = tasks.spawn_background(async move {
        loop {
            let Some(next) = messaging::next_epoch(&mut link, epoch).await else { return };
            epoch = next;
            // The library subscribes again before it sends anything else, and servers keep that order.
            let mut message = Control::Repeat.message(to.clone());
            message.reply = Some(inbox.clone());
            if let Err(error) = transport.publish(message).await {
                tracing::debug!(%error, "could not ask for answers again");
            }
        }
    });
}
