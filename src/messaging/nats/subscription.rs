//! The message stream of a subscription. After a client is replaced, the stream continues on the
//! next client.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::convert;
use super::subscription_handle::{SubscriberChange, SubscriptionHandle};
use super::subscriptions::Subscriptions;
use crate::future::BoxFuture;
use crate::message::Message;
use crate::messaging::{Subscription, TransportError};

/// The time limit for the client to accept the command to leave a group.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// The reading side of a subscription. It counts the messages read, because leaving a group without
/// losing messages requires their number.
pub(super) struct NatsSubscription {
    handle: Arc<SubscriptionHandle>,
    subscriptions: Arc<Subscriptions>,
    inner: Option<async_nats::Subscriber>,
    read: u64,
    is_leaving: bool,
}

impl NatsSubscription {
    /// Creates the reading side of `handle`. Dropping it removes the subscription.
    pub(super) fn new(handle: Arc<SubscriptionHandle>, subscriptions: Arc<Subscriptions>) -> Self {
        Self { handle, subscriptions, inner: None, read: 0, is_leaving: false }
    }
}

impl fmt::Debug for NatsSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handle = &self.handle;
        f.debug_struct("NatsSubscription").field("subject", &handle.subject).finish_non_exhaustive()
    }
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        self.subscriptions.remove(self.handle.id);
    }
}

impl Stream for NatsSubscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.handle.next_forwarded() {
                if this.handle.is_check(&message) {
                    continue;
                }
                return Poll::Ready(Some(convert::received(message)));
            }
            match this.inner.as_mut().map(|inner| inner.poll_next_unpin(cx)) {
                Some(Poll::Ready(Some(message))) => {
                    this.read += 1;
                    if this.handle.is_check(&message) {
                        continue;
                    }
                    return Poll::Ready(Some(convert::received(message)));
                }
                // The server has sent the requested number of messages, or the client has ended.
                Some(Poll::Ready(None)) => this.inner = None,
                Some(Poll::Pending) | None => {}
            }
            this.handle.reader.register(cx.waker());
            if this.handle.has_forwarded() {
                continue;
            }
            if this.is_leaving {
                return if this.inner.is_some() { Poll::Pending } else { Poll::Ready(None) };
            }
            match this.handle.take_change() {
                SubscriberChange::None => return Poll::Pending,
                SubscriberChange::Ended => this.inner = None,
                SubscriberChange::New(inner) => {
                    this.inner = Some(inner);
                    this.read = 0;
                }
            }
        }
    }
}

impl Subscription for NatsSubscription {
    fn leave_after(&mut self, more: u64) -> BoxFuture<'_, Result<(), TransportError>> {
        // The library's `drain` and `unsubscribe` lose messages in transit. Unsubscribing with a
        // maximum that exceeds the number of messages read loses none, because both sides count
        // messages.
        self.subscriptions.remove(self.handle.id);
        self.is_leaving = true;
        // Without this, a new client would rejoin the group, and its messages would not be read.
        self.handle.leave();
        if let SubscriberChange::New(inner) = self.handle.take_change() {
            (self.inner, self.read) = (Some(inner), 0);
        }
        let last = self.read.saturating_add(more);
        Box::pin(async move {
            let Some(inner) = &mut self.inner else { return Ok(()) };
            match timeout(LEAVE_LIMIT, inner.unsubscribe_after(last)).await {
                Ok(result) => result.map_err(|e| TransportError::Failed(e.into())),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }

    fn served(&self) -> watch::Receiver<bool> {
        self.handle.served.subscribe()
    }
}
