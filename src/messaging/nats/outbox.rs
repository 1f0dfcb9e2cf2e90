//! Write coalescing: messages that are published at about the same time share a TLS record and a system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::shared::NatsShared;
use crate::lifecycle::Tasks;
use crate::messaging::TransportError;
use crate::telemetry::conditions::{self, UNSENT};

/// The maximum number of messages in one batch.
const BATCH_MAX: usize = 256;
/// A message published within this time of the previous one is likely to be followed by others.
const BURST_NANOS: u64 = 100_000;

/// A message in the library's types.
#[derive(Debug)]
pub(super) struct OutgoingMessage {
    pub(super) subject: Subject,
    pub(super) reply: Option<Subject>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// A queue in which messages briefly wait for further messages to be sent with them. An isolated message is sent
/// immediately.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<NatsShared>,
    sender: mpsc::Sender<OutgoingMessage>,
    /// The number of queued messages. While there are any, a new message must be queued behind them.
    waiting: Arc<AtomicUsize>,
    opened: Instant,
    /// The time at which the last message was published, in nanoseconds since `opened`.
    last: AtomicU64,
}

impl Outbox {
    /// Creates an outbox for `commands_max` messages and starts the task that empties it. The task ends when the outbox
    /// is dropped.
    pub(super) fn open(shared: Arc<NatsShared>) -> Self {
        let (sender, receiver) = mpsc::channel(shared.config.load().commands_max);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sending = send_batches(Arc::clone(&shared), receiver, Arc::clone(&waiting));
        let _detached = Tasks::new().spawn_background(sending);
        Self { shared, sender, waiting, opened: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Queues a message without waiting. If the message is isolated or the outbox is full, returns the message instead.
    /// The caller must then pass it to `send`.
    pub(super) fn try_send(&self, message: OutgoingMessage) -> Option<OutgoingMessage> {
        if self.record_and_is_isolated() {
            return Some(message);
        }
        let Ok(permit) = self.sender.try_reserve() else { return Some(message) };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        permit.send(message);
        None
    }

    /// Sends or queues a message. Waits while the outbox is full. Cancel safe: a cancelled call queues nothing.
    pub(super) async fn send(&self, message: OutgoingMessage) -> Result<(), TransportError> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            let client = self.shared.client.load_full();
            return publish(&client.inner, message).await.map_err(transport_error);
        }
        let refused = |error: mpsc::error::SendError<()>| TransportError::Failed(error.into());
        let permit = self.sender.reserve().await.map_err(refused)?;
        self.waiting.fetch_add(1, Ordering::AcqRel);
        permit.send(message);
        Ok(())
    }

    /// Records a message and returns whether it is isolated. Queueing an isolated message would only delay it.
    fn record_and_is_isolated(&self) -> bool {
        let now = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.last.swap(now, Ordering::Relaxed);
        now.saturating_sub(before) > BURST_NANOS && self.waiting.load(Ordering::Acquire) == 0
    }
}

fn transport_error(error: PublishError) -> TransportError {
    match error.kind() {
        // The client has ended and is being replaced.
        PublishErrorKind::Send => TransportError::Disconnected,
        PublishErrorKind::MaxPayloadExceeded => TransportError::TooLarge,
        PublishErrorKind::InvalidSubject => TransportError::Failed(error.into()),
    }
}

async fn publish(client: &Client, message: OutgoingMessage) -> Result<(), PublishError> {
    let OutgoingMessage { subject, reply, headers, payload } = message;
    match reply {
        Some(reply) => {
            client.publish_with_reply_and_headers(subject, reply, headers, payload).await
        }
        None => client.publish_with_headers(subject, headers, payload).await,
    }
}

/// Passes queued messages to the library in batches. The first message wakes the library's writer. The writer runs
/// directly after the task that woke it and writes all messages that it finds. If tasks published separately, each
/// would therefore cost a TLS record and a system call. Yielding once lets all tasks that are ready publish first.
async fn send_batches(
    shared: Arc<NatsShared>,
    mut receiver: mpsc::Receiver<OutgoingMessage>,
    waiting: Arc<AtomicUsize>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = receiver.recv().await {
        batch.push(first);
        tokio::task::yield_now().await;
        while batch.len() < BATCH_MAX
            && let Ok(message) = receiver.try_recv()
        {
            batch.push(message);
        }
        let count = batch.len();
        let limit = shared.config.load().operation_timeout;
        let client = shared.client.load_full();
        for message in batch.drain(..) {
            // The link was lost in the meantime. The library would send the message only after the reconnect.
            if !client.is_connected() {
                tracing::debug!("a message was dropped: the connection to NATS was lost");
                continue;
            }
            match timeout(limit, publish(&client.inner, message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if conditions::raise(&UNSENT, "refused") {
                        tracing::warn!(%error, "the NATS client refused a message");
                    }
                }
                Err(_) => {
                    if conditions::raise(&UNSENT, "late") {
                        tracing::warn!("the NATS client did not accept a message in time");
                    }
                }
            }
        }
        waiting.fetch_sub(count, Ordering::AcqRel);
    }
}
