//! The gateway's one reply subscription, and how each reply finds the request that waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::envelope::{Control, Reply};
use crate::lifecycle::Tasks;
use crate::messaging::{Message, Subject, Transport, TransportError};
use crate::telemetry::{counter, names};

use super::mail::Mail;
use super::queues::Queues;

/// The requests that wait for replies.
#[derive(Debug)]
pub struct Replies {
    base: Subject,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Mail>>>,
}

/// Where a reply belongs: the last tokens of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    queue: u32,
    request: u64,
    attempt: u32,
}

/// A request's place among those that wait; ends with it.
#[derive(Debug)]
pub struct Registration {
    replies: Arc<Replies>,
    request: u64,
    queue: u32,
}

impl Replies {
    /// Subscribes, and starts to hand out what comes.
    ///
    /// # Errors
    /// `TransportError` when the subscription is not taken.
    pub async fn open(
        transport: &Arc<dyn Transport>,
        queues: &Arc<Queues>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, TransportError> {
        let base = transport
            .inbox()
            .join("r")
            .map_err(|error| TransportError::Refused(Box::new(error)))?;
        let mut subscription = transport.subscribe(&base.below()).await?;
        let replies =
            Arc::new(Self { base, next: AtomicU64::new(1), waiting: Mutex::new(HashMap::new()) });
        let dispatcher = Dispatcher {
            replies: Arc::downgrade(&replies),
            queues: Arc::clone(queues),
            transport: Arc::clone(transport),
        };
        // Ends when the gateway lets go of its replies, or the transport closes.
        let _detached = tasks.spawn_background(async move {
            while let Some(message) = subscription.next().await {
                if !dispatcher.dispatch(message).await {
                    break;
                }
            }
        });
        Ok(replies)
    }

    /// The subject above every reply.
    #[must_use]
    pub fn base(&self) -> &Subject {
        &self.base
    }

    /// A place for one request.
    #[must_use]
    pub fn register(self: &Arc<Self>, queue: u32, mail: mpsc::Sender<Mail>) -> Registration {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(request, mail);
        Registration { replies: Arc::clone(self), request, queue }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Mail>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// The reply subject of one attempt.
    #[must_use]
    pub fn reply_subject(&self, attempt: u32) -> Subject {
        self.replies.base.numbered([self.queue.into(), self.request, attempt.into()])
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.request);
    }
}

impl Address {
    fn parse(tail: &str) -> Option<Self> {
        let mut tokens = tail.split('.');
        let address = Self {
            queue: tokens.next()?.parse().ok()?,
            request: tokens.next()?.parse().ok()?,
            attempt: tokens.next()?.parse().ok()?,
        };
        tokens.next().is_none().then_some(address)
    }
}

struct Dispatcher {
    replies: std::sync::Weak<Replies>,
    queues: Arc<Queues>,
    transport: Arc<dyn Transport>,
}

impl Dispatcher {
    /// Hands out one message. `false` when nobody can wait for any more.
    async fn dispatch(&self, message: Message) -> bool {
        let Some(replies) = self.replies.upgrade() else { return false };
        let base = replies.base.as_str();
        let address = message
            .subject
            .as_str()
            .strip_prefix(base)
            .and_then(|tail| tail.strip_prefix('.'))
            .and_then(Address::parse);
        let Some(address) = address else {
            counter(&names::GATEWAY_BAD_REPLIES, &[]).increment(1);
            return true;
        };
        let reply = Reply::parse(message);
        if reply.is_err() {
            // Logged where it is known which request it was for.
            counter(&names::GATEWAY_BAD_REPLIES, &[]).increment(1);
        }
        if let Ok(Reply::Offer { direct }) = reply {
            self.offer(address.queue, direct).await;
            return true;
        }
        let mail = replies.lock().get(&address.request).cloned();
        let stray = match mail {
            Some(mail) => mail
                .try_send(Mail::Reply { attempt: address.attempt, reply })
                .err()
                .map(mpsc::error::TrySendError::into_inner),
            None => Some(Mail::Reply { attempt: address.attempt, reply }),
        };
        if let Some(Mail::Reply { reply: Ok(reply), .. }) = stray {
            self.stray(reply).await;
        }
        true
    }

    /// A slot is free: for the oldest request of that queue, whoever was refused.
    async fn offer(&self, queue: u32, direct: Subject) {
        let unused = match self.queues.numbered(queue) {
            Some(queue) => queue.hold.offer(direct, Instant::now()).err(),
            None => Some(direct),
        };
        if let Some(direct) = unused {
            self.tell(direct, Control::Decline).await;
        }
    }

    /// A reply that nobody waits for: whoever asks for permission must not be left waiting.
    async fn stray(&self, reply: Reply) {
        counter(&names::GATEWAY_LATE_REPLIES, &[]).increment(1);
        if let Reply::Claim { control } = reply {
            self.tell(control, Control::Deny).await;
        }
    }

    async fn tell(&self, to: Subject, control: Control) {
        if let Err(error) = self.transport.publish(control.message(to)).await {
            tracing::debug!(%error, control = control.as_str(), "could not tell a worker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_make_the_same_tokens_as_any_text() {
        let base = Subject::new("inbox.r").unwrap();
        assert_eq!(
            base.numbered([0, u64::MAX, 2]),
            base.join(format!("0.{}.2", u64::MAX)).unwrap()
        );
    }

    #[test]
    fn an_address_is_three_numbers_and_nothing_else() {
        let parsed = Address::parse("3.17.2");
        assert_eq!(parsed, Some(Address { queue: 3, request: 17, attempt: 2 }));
        for bad in ["", "3", "3.17", "3.17.2.1", "3.17.x", "-1.2.3", "3..2"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
