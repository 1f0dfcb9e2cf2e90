//! The gateway's single subscription to replies. Each reply is routed to its session.
//!
//! A reply subject ends with the numbers of the queue, the request and the attempt, and a token that only
//! this process can compute from them. A sender that was not given the subject can therefore neither reply
//! to the attempt nor offer a slot of the queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::envelope::{Control, DIRECT_TOKEN, Reply, WorkerId};
use crate::lifecycle::Tasks;
use crate::message::{Message, Subject};
use crate::messaging::{Transport, TransportError};
use crate::telemetry::{counter, names};

use super::message::{AttemptReply, SessionMessage};
use super::queues::QueueRegistry;
use address::{AddressTokens, ReplyAddress};
use pending::PendingRequest;
pub use pending::ReplyLimits;
use rejections::{RejectionCounter, ReplyRejection};

mod address;
mod pending;
pub(super) mod recovery;
pub mod rejections;

/// Routes replies to the requests that are waiting for them.
#[derive(Debug)]
pub struct ReplyRouter {
    base: Subject,
    tokens: AddressTokens,
    next_request: AtomicU64,
    pending: Mutex<HashMap<u64, PendingRequest>>,
    received_bytes: AtomicU64,
    rejections: RejectionCounter,
}

/// One request's registration with the router. Dropping it ends the registration.
#[derive(Debug)]
pub struct ReplyRegistration {
    router: Arc<ReplyRouter>,
    request: u64,
    queue: u32,
}

impl ReplyRouter {
    /// Subscribes and starts to route replies.
    ///
    /// # Errors
    /// `TransportError` if the subscription fails.
    pub async fn subscribe(
        transport: &Arc<dyn Transport>,
        queues: &Arc<QueueRegistry>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, TransportError> {
        let base =
            transport.inbox().join("r").map_err(|error| TransportError::Failed(Box::new(error)))?;
        let mut subscription = transport.subscribe(&base.all_below()).await?;
        let router = Arc::new(Self {
            base,
            tokens: AddressTokens::new(),
            next_request: AtomicU64::new(1),
            pending: Mutex::new(HashMap::new()),
            received_bytes: AtomicU64::new(0),
            rejections: RejectionCounter::default(),
        });
        let reader = ReplyReader {
            router: Arc::downgrade(&router),
            queues: Arc::clone(queues),
            transport: Arc::clone(transport),
        };
        // The task ends when the router is dropped or the transport closes.
        let _detached = tasks.spawn_background(async move {
            while let Some(message) = subscription.next().await {
                if !reader.route(message) {
                    break;
                }
            }
        });
        Ok(router)
    }

    /// Returns the common prefix of all reply subjects.
    #[must_use]
    pub fn base(&self) -> &Subject {
        &self.base
    }

    /// Returns the number of payload bytes received so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Registers a request whose replies are sent to `messages`.
    #[must_use]
    pub fn register(
        self: &Arc<Self>,
        queue: u32,
        messages: mpsc::Sender<SessionMessage>,
        limits: ReplyLimits,
    ) -> ReplyRegistration {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(request, PendingRequest::new(queue, messages, limits));
        ReplyRegistration { router: Arc::clone(self), request, queue }
    }

    /// Returns the pending requests of a queue, oldest first. Each is `<queue>.<request>`: the
    /// tokens that follow `base` in its reply subjects.
    #[must_use]
    pub fn pending_requests(&self, queue: u32) -> Vec<String> {
        let pending = self.lock();
        let of_queue = pending.iter().filter(|(_, pending)| pending.queue == queue);
        let mut requests: Vec<u64> = of_queue.map(|(request, _)| *request).collect();
        drop(pending);
        requests.sort_unstable();
        requests.into_iter().map(|request| format!("{queue}.{request}")).collect()
    }

    /// Returns the reply subject for members that identify themselves. No request has the number 0.
    #[must_use]
    pub fn members_subject(&self, queue: u32) -> Subject {
        self.subject(ReplyAddress { queue, request: 0, attempt: 0 })
    }

    fn subject(&self, address: ReplyAddress) -> Subject {
        let ReplyAddress { queue, request, attempt } = address;
        let token = self.tokens.token(address);
        self.base.join_numbers([queue.into(), request, attempt.into(), token])
    }

    /// Returns the address of a reply subject, or `None` if this process did not create it.
    fn address(&self, subject: &Subject) -> Option<ReplyAddress> {
        let tail = subject.as_str().strip_prefix(self.base.as_str())?.strip_prefix('.')?;
        self.tokens.parse(tail)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, PendingRequest>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplyRegistration {
    /// Returns the reply subject of one attempt.
    #[must_use]
    pub fn reply_subject(&self, attempt: u32) -> Subject {
        self.router.subject(ReplyAddress { queue: self.queue, request: self.request, attempt })
    }

    /// Returns the counter of rejected replies.
    #[must_use]
    pub fn rejections(&self) -> &RejectionCounter {
        &self.router.rejections
    }
}

impl Drop for ReplyRegistration {
    fn drop(&mut self) {
        self.router.lock().remove(&self.request);
    }
}

/// Reads the subscription and routes its messages. It never waits, because the subscription could
/// overflow in the meantime.
struct ReplyReader {
    router: Weak<ReplyRouter>,
    queues: Arc<QueueRegistry>,
    transport: Arc<dyn Transport>,
}

impl ReplyReader {
    /// Routes one message. Returns `false` when the router has been dropped.
    fn route(&self, message: Message) -> bool {
        let Some(router) = self.router.upgrade() else { return false };
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        router.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        let Some(address) = router.address(&message.subject) else {
            router.rejections.record(ReplyRejection::Token, None, message.reply.as_ref());
            return true;
        };
        let mut named = message.reply.clone();
        let reply = Reply::parse(message);
        match &reply {
            Ok(reply) => named = reply.control().cloned(),
            // The session logs the error, because it knows the request.
            Err(_) => counter(&names::GATEWAY_BAD_REPLIES, &[]).increment(1),
        }
        let worker = match named {
            None => None,
            Some(named) => match self.worker(&router, address, &named) {
                None => return true,
                worker => worker,
            },
        };
        if let Some(worker) = &worker {
            self.record_member(address.queue, worker);
        }
        if address.request == 0 {
            return true;
        }
        if let Ok(Reply::Offer { direct }) = reply {
            self.offer(address.queue, direct);
            return true;
        }
        let pending = router
            .lock()
            .get_mut(&address.request)
            .map(|pending| (pending.messages.clone(), pending.charge_for(&reply)));
        let undelivered = match pending {
            Some((messages, charge)) => {
                let attempt = address.attempt;
                let reply = AttemptReply { attempt, worker, reply, has_room: true };
                pending::deliver(&messages, charge, reply)
            }
            None => reply.ok(),
        };
        if let Some(reply) = undelivered {
            self.answer_late_reply(reply);
        }
        true
    }

    /// Returns the worker that a reply names. Returns `None` and counts a rejection if the worker does not
    /// serve the queue, because such a worker must not receive anything about the queue's requests.
    fn worker(
        &self,
        router: &ReplyRouter,
        address: ReplyAddress,
        named: &Subject,
    ) -> Option<WorkerId> {
        let queue = self.queues.by_number(address.queue)?;
        let worker = WorkerId::parse(named, &queue.worker_prefix);
        if worker.is_none() {
            let queue = Some(queue.name.as_str());
            router.rejections.record(ReplyRejection::Subject, queue, Some(named));
        }
        worker
    }

    /// Records that a member replied, if a member of its queue is suspected of hanging.
    fn record_member(&self, queue: u32, worker: &WorkerId) {
        let queue = self.queues.by_number(queue);
        let Some(queue) = queue.filter(|queue| queue.members.is_suspected()) else { return };
        if let Ok(direct) = queue.worker_prefix.join(format_args!("{worker}.{DIRECT_TOKEN}")) {
            queue.members.record_reply(direct, Instant::now());
        }
    }

    /// Passes an offered slot to the queue's first waiter, even if the worker had refused another request.
    fn offer(&self, queue: u32, slot: Subject) {
        let unused = match self.queues.by_number(queue) {
            Some(queue) => queue.wait_queue.offer(slot, Instant::now()).err(),
            None => Some(slot),
        };
        if let Some(slot) = unused {
            self.tell(slot, Control::Decline);
        }
    }

    /// Handles an undelivered reply. A claim is denied, so that the worker does not wait.
    fn answer_late_reply(&self, reply: Reply) {
        if matches!(reply, Reply::Answered { .. }) {
            // The session received the answer and has ended.
            return;
        }
        counter(&names::GATEWAY_LATE_REPLIES, &[]).increment(1);
        if let Reply::Claim { control } = reply {
            self.tell(control, Control::Deny);
        }
    }

    /// Publishes a control message. If the message is lost, the offer or claim ends when the worker's
    /// timeout expires.
    fn tell(&self, to: Subject, control: Control) {
        if let Err(error) = self.transport.try_publish(control.message(to)) {
            let label = [(names::REASON, control.as_str().to_owned())];
            counter(&names::GATEWAY_CONTROLS_UNSENT, &label).increment(1);
            tracing::debug!(%error, control = control.as_str(), "cannot publish a control message");
        }
    }
}
