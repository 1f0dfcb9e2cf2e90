//! Gathers messages that are published at about the same time: together they are one TLS record and one system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::supervisor::Shared;
use crate::lifecycle::Tasks;
use crate::messaging::TransportError;
use crate::telemetry::conditions::{self, UNSENT};

/// Messages that leave together at most.
const BATCH_MAX: usize = 256;
/// A message that comes so soon after the one before is likely to be followed by others.
const COMPANY_NANOS: u64 = 100_000;

/// A message as the library takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) subject: Subject,
    pub(super) reply: Option<Subject>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// Where messages wait for those that follow them at once. One that comes alone does not wait.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Outgoing>,
    /// Messages that were put in and not yet handed on: nothing may overtake them.
    waiting: Arc<AtomicUsize>,
    opened: Instant,
    /// When a message was put in last: nanoseconds since `opened`.
    last: AtomicU64,
}

impl Outbox {
    /// An outbox for so many messages, and the task that empties it. The task ends with the outbox.
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel(shared.config.commands_max);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sending = send_on(Arc::clone(&shared), receiver, Arc::clone(&waiting));
        let _detached = Tasks::new().spawn_background(sending);
        Self { shared, sender, waiting, opened: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Puts a message in at once; gives it back when it cannot be taken so, because it is alone or the outbox is full.
    /// Then `put` takes it.
    pub(super) fn try_put(&self, message: Outgoing) -> Option<Outgoing> {
        if self.is_alone() {
            return Some(message);
        }
        let Ok(place) = self.sender.try_reserve() else { return Some(message) };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        place.send(message);
        None
    }

    /// Puts a message in; waits while the outbox is full. Safe to drop: then the message was not put in.
    pub(super) async fn put(&self, message: Outgoing) -> Result<(), TransportError> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            let live = self.shared.live.load_full();
            return hand_on(&live.client, message).await.map_err(not_taken);
        }
        let refused = |error: mpsc::error::SendError<()>| TransportError::Refused(error.into());
        let place = self.sender.reserve().await.map_err(refused)?;
        self.waiting.fetch_add(1, Ordering::AcqRel);
        place.send(message);
        Ok(())
    }

    /// Whether the message that comes now has no company: waiting would only make it late.
    fn is_alone(&self) -> bool {
        let now = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.last.swap(now, Ordering::Relaxed);
        now.saturating_sub(before) > COMPANY_NANOS && self.waiting.load(Ordering::Acquire) == 0
    }
}

fn not_taken(error: PublishError) -> TransportError {
    match error.kind() {
        // The client has ended; another one follows.
        PublishErrorKind::Send => TransportError::Disconnected,
        PublishErrorKind::MaxPayloadExceeded => TransportError::TooLarge,
        PublishErrorKind::InvalidSubject => TransportError::Refused(error.into()),
    }
}

async fn hand_on(client: &Client, message: Outgoing) -> Result<(), PublishError> {
    let Outgoing { subject, reply, headers, payload } = message;
    match reply {
        Some(reply) => {
            client.publish_with_reply_and_headers(subject, reply, headers, payload).await
        }
        None => client.publish_with_headers(subject, headers, payload).await,
    }
}

/// Hands messages to the library. Its writer is woken by the first of them and writes what it then finds; on our
/// runtime it runs directly after whoever woke it, so that requests that publish by themselves cost a TLS record and a
/// system call each. Here everybody who is ready to publish does so first.
async fn send_on(
    shared: Arc<Shared>,
    mut receiver: mpsc::Receiver<Outgoing>,
    waiting: Arc<AtomicUsize>,
) {
    let limit = shared.config.operation_timeout;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = receiver.recv().await {
        batch.push(first);
        tokio::task::yield_now().await;
        while batch.len() < BATCH_MAX
            && let Ok(message) = receiver.try_recv()
        {
            batch.push(message);
        }
        let handed = batch.len();
        let live = shared.live.load_full();
        for message in batch.drain(..) {
            // It was connected when the message was put in. What the library queues now would run after the reconnect.
            if !live.is_connected() {
                tracing::debug!("a message was dropped: the connection to NATS was lost");
                continue;
            }
            match timeout(limit, hand_on(&live.client, message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if conditions::begins(&UNSENT, "refused") {
                        tracing::warn!(%error, "the NATS client refused a message");
                    }
                }
                Err(_) => {
                    if conditions::begins(&UNSENT, "late") {
                        tracing::warn!("the NATS client did not take a message in time");
                    }
                }
            }
        }
        waiting.fetch_sub(handed, Ordering::AcqRel);
    }
}
