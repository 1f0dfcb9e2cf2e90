//! Sends attempts to workers, and tells workers what they have to know.

use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Control;
use crate::message::{Message, Subject};
use crate::messaging::TransportError;
use crate::roles::gateway::dispatch::members::Way;
use crate::roles::gateway::dispatch::session::{Destination, Event, Unsent};

use super::{Ride, shed};

impl Ride {
    /// Publishes an attempt, unless the byte budget is used up: the size of the answer is not known yet.
    pub(super) async fn publish(&mut self, attempt: u32, to: Destination, budget: Duration) {
        if !self.wanted.has_room() {
            return self.finds_no_room(attempt, to).await;
        }
        let sent = match self.message(attempt, to, budget) {
            Ok(message) => self.placer.transport.publish(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "not sent");
            let too_large = matches!(error, TransportError::TooLarge);
            let why = if too_large { Unsent::TooLarge } else { Unsent::BusDown };
            self.step(Event::NotSent { attempt, why });
        }
    }

    /// Does not publish the attempt; passes its offered slot to the next waiter, or declines it.
    async fn finds_no_room(&mut self, attempt: u32, to: Destination) {
        if let Destination::Direct(slot) = to
            && let Err(slot) = self.queue.hold.offer(slot, Instant::now())
        {
            self.tell(Control::Decline.message(slot)).await;
        }
        self.step(Event::NotSent { attempt, why: Unsent::NoRoom });
        if self.session.is_done() {
            shed("buffered_bytes");
        }
    }

    fn message(
        &mut self,
        attempt: u32,
        to: Destination,
        budget: Duration,
    ) -> Result<Message, TransportError> {
        self.request.attempt = attempt;
        if let Some(traced) = &mut self.traced {
            traced.sent(attempt, &mut self.request);
        }
        self.request.timeout = budget;
        self.request.waiting = u32::try_from(self.queue.hold.waiting()).unwrap_or(u32::MAX);
        let subject: Subject = match to {
            Destination::Group => {
                let way = self.queue.members.pick(Instant::now());
                let subject = match &way {
                    Way::Member(direct) => direct.clone(),
                    Way::Group | Way::Trial => self.queue.subject.clone(),
                };
                self.way = Some(way);
                subject
            }
            Destination::Direct(subject) => {
                self.way = None;
                subject
            }
        };
        Ok(Message {
            reply: Some(self.registration.reply_subject(attempt)),
            headers: self.request.headers().map_err(|e| TransportError::Refused(e.into()))?,
            payload: self.request.body(),
            ..Message::to(subject)
        })
    }

    pub(super) async fn tell(&self, message: Message) {
        if let Err(error) = self.placer.transport.publish(message).await {
            tracing::debug!(%error, "could not tell a worker");
        }
    }
}
