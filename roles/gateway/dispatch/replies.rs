//! The gateway's one reply subscription, and how each reply finds the request that waits for it.
//!
//! A reply subject ends with the numbers of queue, request and attempt, and a token that only this process can make of
//! them: who was not given the subject cannot speak for the attempt, nor offer a slot of the queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use rand::RngExt;
use siphasher::sip::SipHasher24;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::envelope::{Control, DIRECT_TOKEN, Reply, WorkerId};
use crate::lifecycle::Tasks;
use crate::message::{Message, Subject};
use crate::messaging::{Transport, TransportError};
use crate::telemetry::{counter, names};

use super::mail::Mail;
use super::queues::Queues;
use super::rejections::Rejection;
use super::rejections::Rejections;

mod counted;

pub use counted::Expected;
use counted::Waiting;

/// The requests that wait for replies.
#[derive(Debug)]
pub struct Replies {
    base: Subject,
    tokens: Tokens,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Bytes of the payloads that came.
    bytes: AtomicU64,
    /// Counts what is dropped.
    pub rejections: Rejections,
}

/// Where a reply belongs: the last tokens of its subject but the very last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    queue: u32,
    request: u64,
    attempt: u32,
}

/// Makes the token of an address: 64 bits of SipHash-2-4 under a random key of 128 bits.
struct Tokens(SipHasher24);

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
        let mut subscription = transport.subscribe(&base.all_below()).await?;
        let replies = Arc::new(Self {
            base,
            tokens: Tokens::new(),
            next: AtomicU64::new(1),
            waiting: Mutex::new(HashMap::new()),
            bytes: AtomicU64::new(0),
            rejections: Rejections::default(),
        });
        let dispatcher = Dispatcher {
            replies: Arc::downgrade(&replies),
            queues: Arc::clone(queues),
            transport: Arc::clone(transport),
        };
        // Ends when the gateway lets go of its replies, or the transport closes.
        let _detached = tasks.spawn_background(async move {
            while let Some(message) = subscription.next().await {
                if !dispatcher.dispatch(message) {
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

    /// Bytes of the payloads that came so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A place for one request, and how its answer may come.
    #[must_use]
    pub fn register(
        self: &Arc<Self>,
        queue: u32,
        mail: mpsc::Sender<Mail>,
        expected: Expected,
    ) -> Registration {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting::new(queue, mail, expected);
        self.lock().insert(request, waiting);
        Registration { replies: Arc::clone(self), request, queue }
    }

    /// The requests of a queue that wait, oldest first, as the tokens of their reply subjects after `base`.
    #[must_use]
    pub fn waiting_for(&self, queue: u32) -> Vec<String> {
        let waiting = self.lock();
        let of_queue = waiting.iter().filter(|(_, waiting)| waiting.queue == queue);
        let mut requests: Vec<u64> = of_queue.map(|(request, _)| *request).collect();
        drop(waiting);
        requests.sort_unstable();
        requests.into_iter().map(|request| format!("{queue}.{request}")).collect()
    }

    /// Where the workers of a queue say who they are. No request has the number 0.
    #[must_use]
    pub fn members_subject(&self, queue: u32) -> Subject {
        let address = Address { queue, request: 0, attempt: 0 };
        self.base.join_numbers([queue.into(), 0, 0, self.tokens.of(address)])
    }

    /// Where a subject belongs, when this process made it.
    fn address(&self, subject: &Subject) -> Option<Address> {
        let tail = subject.as_str().strip_prefix(self.base.as_str())?.strip_prefix('.')?;
        let (address, token) = Address::parse(tail)?;
        (self.tokens.of(address) == token).then_some(address)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// The reply subject of one attempt.
    #[must_use]
    pub fn reply_subject(&self, attempt: u32) -> Subject {
        let address = Address { queue: self.queue, request: self.request, attempt };
        let token = self.replies.tokens.of(address);
        self.replies.base.join_numbers([self.queue.into(), self.request, attempt.into(), token])
    }

    /// Where it is noted what is dropped.
    #[must_use]
    pub fn rejections(&self) -> &Rejections {
        &self.replies.rejections
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.request);
    }
}

impl Address {
    /// The address and the token of a subject's tail.
    fn parse(tail: &str) -> Option<(Self, u64)> {
        let mut tokens = tail.split('.');
        let address = Self {
            queue: tokens.next()?.parse().ok()?,
            request: tokens.next()?.parse().ok()?,
            attempt: tokens.next()?.parse().ok()?,
        };
        let token = tokens.next()?.parse().ok()?;
        tokens.next().is_none().then_some((address, token))
    }
}

impl Tokens {
    fn new() -> Self {
        let mut random = rand::rng();
        Self(SipHasher24::new_with_keys(random.random(), random.random()))
    }

    fn of(&self, address: Address) -> u64 {
        let Address { queue, request, attempt } = address;
        let numbers = u128::from(request) << 64 | u128::from(queue) << 32 | u128::from(attempt);
        self.0.hash(&numbers.to_le_bytes())
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// Reads the subscription. It never waits: what it would have to wait for could overflow the subscription.
struct Dispatcher {
    replies: std::sync::Weak<Replies>,
    queues: Arc<Queues>,
    transport: Arc<dyn Transport>,
}

impl Dispatcher {
    /// Hands out one message. `false` when nobody can wait for any more.
    fn dispatch(&self, message: Message) -> bool {
        let Some(replies) = self.replies.upgrade() else { return false };
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        replies.bytes.fetch_add(bytes, Ordering::Relaxed);
        let Some(address) = replies.address(&message.subject) else {
            replies.rejections.note(Rejection::Token, None, message.reply.as_ref());
            return true;
        };
        let mut named = message.reply.clone();
        let reply = Reply::parse(message);
        match &reply {
            Ok(reply) => named = reply.control().cloned(),
            // Logged where it is known which request it was for.
            Err(_) => counter(&names::GATEWAY_BAD_REPLIES, &[]).increment(1),
        }
        let worker = match named {
            None => None,
            Some(named) => match self.worker(&replies, address, &named) {
                None => return true,
                worker => worker,
            },
        };
        if let Some(worker) = &worker {
            self.heard(address.queue, worker);
        }
        if address.request == 0 {
            return true;
        }
        if let Ok(Reply::Offer { direct }) = reply {
            self.offer(address.queue, direct);
            return true;
        }
        let waiting = replies
            .lock()
            .get_mut(&address.request)
            .map(|waiting| (waiting.mail.clone(), waiting.counting(&reply)));
        let stray = match waiting {
            Some((mail, counting)) => {
                counted::post(&mail, counting, (address.attempt, worker, reply))
            }
            None => reply.ok(),
        };
        if let Some(reply) = stray {
            self.stray(reply);
        }
        true
    }

    /// The worker that a reply names. `None`, and noted, when it is not one of the queue: nothing of the queue's requests
    /// must go there.
    fn worker(&self, replies: &Replies, address: Address, named: &Subject) -> Option<WorkerId> {
        let queue = self.queues.numbered(address.queue)?;
        let worker = WorkerId::parse(named, &queue.workers);
        if worker.is_none() {
            replies.rejections.note(Rejection::Subject, Some(queue.name.as_str()), Some(named));
        }
        worker
    }

    /// Remembers who answers, while that is in doubt.
    fn heard(&self, queue: u32, worker: &WorkerId) {
        let Some(queue) = self.queues.numbered(queue).filter(|queue| queue.members.is_suspected())
        else {
            return;
        };
        if let Ok(direct) = queue.workers.join(format_args!("{worker}.{DIRECT_TOKEN}")) {
            queue.members.heard(direct, Instant::now());
        }
    }

    /// A slot is free: for the oldest request of that queue, whoever was refused.
    fn offer(&self, queue: u32, direct: Subject) {
        let unused = match self.queues.numbered(queue) {
            Some(queue) => queue.hold.offer(direct, Instant::now()).err(),
            None => Some(direct),
        };
        if let Some(direct) = unused {
            self.tell(direct, Control::Decline);
        }
    }

    /// A reply that nobody waits for: whoever asks for permission must not be left waiting.
    fn stray(&self, reply: Reply) {
        if matches!(reply, Reply::Answered { .. }) {
            // As it should be: its answer came.
            return;
        }
        counter(&names::GATEWAY_LATE_REPLIES, &[]).increment(1);
        if let Reply::Claim { control } = reply {
            self.tell(control, Control::Deny);
        }
    }

    /// What is not said runs into the worker's own timers: an offer lapses, a claim is given up.
    fn tell(&self, to: Subject, control: Control) {
        if let Err(error) = self.transport.try_publish(control.message(to)) {
            let what = [(names::REASON, control.as_str().to_owned())];
            counter(&names::GATEWAY_CONTROLS_UNSENT, &what).increment(1);
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
            base.join_numbers([0, u64::MAX, 2]),
            base.join(format!("0.{}.2", u64::MAX)).unwrap()
        );
    }

    #[test]
    fn an_address_is_four_numbers_and_nothing_else() {
        let address = Address { queue: 3, request: 17, attempt: 2 };
        assert_eq!(Address::parse("3.17.2.99"), Some((address, 99)));
        for bad in
            ["", "3", "3.17.2", "3.17.2.99.1", "3.17.x.99", "-1.2.3.99", "3..2.99", "3.17.2.x"]
        {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_is_good_for_its_queue_request_attempt_and_process_alone() {
        let (tokens, others) = (Tokens::new(), Tokens::new());
        let address = Address { queue: 3, request: 17, attempt: 2 };
        let token = tokens.of(address);
        assert_eq!(token, tokens.of(address));
        assert_ne!(token, others.of(address), "another process has another key");
        for other in [
            Address { queue: 4, ..address },
            Address { request: 18, ..address },
            Address { attempt: 1, ..address },
        ] {
            assert_ne!(token, tokens.of(other), "{other:?}");
        }
    }
}
