//! Sends a job's answer. If the connection is lost, the answer is sent after a reconnect.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::envelope::{Final, Reply};
use crate::message::Subject;
use crate::messaging::{self, TransportError};
use crate::telemetry::conditions::{self, UNSENT};

use super::JobTask;

/// The maximum time for which an answer waits for a lost connection to be restored.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(30);

impl JobTask {
    /// Sends the answer, in parts if it is larger than a message. If the connection is lost, waits
    /// until it is restored, because the gateway's subscription also survives the loss.
    pub(super) async fn send_answer(&self, mut answer: Final) {
        let Some(reply) = &self.reply else { return };
        // The headers of the answer are in the same message as its last part.
        let bytes_max = self.executor.replies.body_bytes_max();
        let bytes_max = bytes_max.saturating_sub(answer.header_bytes()).max(1);
        while answer.body.len() > bytes_max {
            answer.parts += 1;
            let bytes: Bytes = answer.body.split_to(bytes_max);
            let (number, control) = (answer.parts, answer.control.clone());
            let part = Reply::Part { number, bytes, head: None, control };
            if !self.deliver(part, reply).await {
                return;
            }
        }
        self.deliver(Reply::Final(answer), reply).await;
    }

    /// Sends a reply and remembers it. Returns whether it was sent.
    ///
    /// Not an `async fn`, whose future would contain the reply twice: as an argument and as a
    /// variable.
    fn deliver(&self, reply: Reply, to: &Subject) -> impl Future<Output = bool> {
        let sending = self.executor.replies.send(reply.clone(), to.clone());
        async move {
            let delivered = match sending.await {
                // This future is boxed, because it is rarely needed and would enlarge the future of
                // every job.
                Err(TransportError::Disconnected) => Box::pin(self.deliver_later(&reply, to)).await,
                sent => sent,
            };
            match delivered {
                Ok(()) => {
                    let recent = &self.executor.recent;
                    recent.add((self.entry.id, &self.queue), reply, to.clone(), Instant::now());
                    true
                }
                Err(error) => {
                    if conditions::raise(&UNSENT, "answers") {
                        tracing::error!(%error, queue = %self.queue.name, "an answer was not sent");
                    }
                    false
                }
            }
        }
    }

    /// Waits until the connection is restored, and then sends the reply.
    async fn deliver_later(&self, reply: &Reply, to: &Subject) -> Result<(), TransportError> {
        let replies = &self.executor.replies;
        let mut link = replies.link();
        let delivery = async {
            loop {
                if messaging::wait_until_up(&mut link).await.is_none() {
                    return Err(TransportError::Disconnected);
                }
                // Without this limit, all answers that the outage has delayed would be sent
                // together.
                self.executor.throttle.wait(reply.body_bytes()).await;
                // The link is reported as up shortly before `publish` can use it.
                tokio::task::yield_now().await;
                match replies.send(reply.clone(), to.clone()).await {
                    Err(TransportError::Disconnected) => {}
                    sent => return sent,
                }
            }
        };
        timeout(RECONNECT_WAIT_MAX, delivery).await.unwrap_or(Err(TransportError::Disconnected))
    }
}
