//! Publishes the attempts of a session.

use std::time::Duration;

use crate::message::{Message, Subject};
use crate::messaging::TransportError;
use crate::roles::gateway::dispatch::session::PublishFailure;
use crate::roles::gateway::dispatch::session_driver::DriverEvent;

use super::SessionTask;

impl SessionTask {
    /// Publishes an attempt and tells the driver if it was certainly not sent.
    pub(super) async fn publish(&mut self, attempt: u32, to: Subject, budget: Duration) {
        let published = match self.message(attempt, to, budget) {
            Ok(message) => self.services.transport.publish(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            tracing::debug!(%error, "cannot publish a request");
            let failure = match error {
                TransportError::TooLarge => PublishFailure::TooLarge,
                _ => PublishFailure::BusDown,
            };
            self.handle(DriverEvent::PublishFailed { attempt, failure });
        }
    }

    fn message(
        &mut self,
        attempt: u32,
        to: Subject,
        budget: Duration,
    ) -> Result<Message, TransportError> {
        self.request.attempt = attempt;
        if let Some(spans) = &mut self.spans {
            spans.begin(attempt, &mut self.request);
        }
        self.request.timeout = budget;
        let waiting = self.driver.queue().wait_queue.len();
        self.request.waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        Ok(Message {
            reply: Some(self.registration.reply_subject(attempt)),
            headers: self.request.headers().map_err(|e| TransportError::Failed(e.into()))?,
            payload: self.request.body(),
            ..Message::to(to)
        })
    }
}
