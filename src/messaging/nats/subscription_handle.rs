//! A subscription of this process. It is independent of the client that carries it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use futures_util::task::AtomicWaker;
use tokio::sync::watch;

use super::convert;
use crate::message::Subject;
use crate::messaging::TransportError;

/// The last token in the subject of the messages with which a process checks its inbox subscriptions.
const CHECK_TOKEN: &str = "interest";
/// The value of `client` after leaving. It prevents later clients from subscribing again.
const LEFT: u64 = u64::MAX;
/// The maximum number of messages from another client that wait for the reader. Further messages wait in the client
/// library's buffer.
const FORWARDED_MAX: usize = 256;

/// A subscription. It outlives the client that carries it.
#[derive(Debug)]
pub(super) struct SubscriptionHandle {
    pub(super) id: u64,
    pub(super) subject: Subject,
    pub(super) group: Option<String>,
    pub(super) kind: SubscriptionKind,
    /// The number of the latest client that carries the subscription, or `LEFT` after leaving.
    client: AtomicU64,
    change: Mutex<SubscriberChange>,
    /// Messages received by a client that does not carry the subscription.
    forwarded: Mutex<VecDeque<async_nats::Message>>,
    /// `false` only if `forwarded` is empty. It is atomic because it is read for every message.
    has_forwarded: AtomicBool,
    pub(super) reader: AtomicWaker,
    pub(super) served: watch::Sender<bool>,
}

/// The purpose of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SubscriptionKind {
    /// Replies to the inbox of this process.
    Inbox,
    /// Control messages to this process or to all processes of its role.
    Control,
    /// A queue group.
    Queue,
    /// Messages on which the process does not depend.
    Optional,
}

/// The subscriber to which the reader switches after it has read all received messages.
#[derive(Debug)]
pub(super) enum SubscriberChange {
    /// The same subscriber.
    None,
    /// No subscriber, because the server has ended the subscription.
    Ended,
    /// A new subscriber.
    New(Subscriber),
}

impl SubscriptionKind {
    pub(super) const ALL: [Self; 4] = [Self::Inbox, Self::Control, Self::Queue, Self::Optional];

    /// Returns the value of the metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Control => "control",
            Self::Queue => "queue",
            Self::Optional => "optional",
        }
    }

    /// Returns whether the process depends on subscriptions of this kind. Queues are excluded,
    /// because each reports separately whether it is served.
    pub(super) fn is_required(self) -> bool {
        matches!(self, Self::Inbox | Self::Control)
    }
}

impl SubscriptionHandle {
    /// Creates a subscription that no client carries yet.
    pub(super) fn new(
        id: u64,
        subject: &Subject,
        group: Option<&str>,
        kind: SubscriptionKind,
    ) -> Self {
        Self {
            id,
            subject: subject.clone(),
            group: group.map(str::to_owned),
            kind,
            client: AtomicU64::new(0),
            change: Mutex::new(SubscriberChange::None),
            forwarded: Mutex::default(),
            has_forwarded: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            served: watch::Sender::new(true),
        }
    }

    /// Returns whether replies arrive on this subscription.
    pub(super) fn is_inbox(&self) -> bool {
        self.kind == SubscriptionKind::Inbox
    }

    /// Returns the subject of the messages with which the process checks that the server has the subscription. `None`
    /// if the process may not publish to the subscription's subject, or if the subscription is for a single reply.
    pub(super) fn check_subject(&self) -> Option<async_nats::Subject> {
        let base = self.subject.as_str().strip_suffix('>').filter(|_| self.is_inbox())?;
        Some(format!("{base}{CHECK_TOKEN}").into())
    }

    /// Returns whether a received message is one with which the process checks this subscription. Such messages are not
    /// passed to the reader.
    pub(super) fn is_check(&self, message: &async_nats::Message) -> bool {
        self.is_inbox()
            && message.subject.strip_suffix(CHECK_TOKEN).is_some_and(|base| base.ends_with('.'))
    }

    /// Subscribes on client number `number` and switches the reader to the new subscriber. Does nothing if this client
    /// or a later one already carries the subscription.
    pub(super) async fn subscribe_on(
        &self,
        client: &Client,
        number: u64,
    ) -> Result<(), TransportError> {
        if self.client.fetch_max(number, Ordering::AcqRel) < number {
            let subscriber = self.subscribe(client).await?;
            let mut change = self.lock_change();
            // In the meantime, a later client may have taken over or the process may have left.
            if self.client.load(Ordering::Acquire) == number {
                *change = SubscriberChange::New(subscriber);
                drop(change);
                self.reader.wake();
            }
        }
        Ok(())
    }

    /// Subscribes on a client. Waits while its command queue is full.
    pub(super) async fn subscribe(&self, client: &Client) -> Result<Subscriber, TransportError> {
        let subject = convert::subject(&self.subject);
        let subscribed = async {
            match &self.group {
                Some(group) => client.queue_subscribe(subject, group.clone()).await,
                None => client.subscribe(subject).await,
            }
        };
        subscribed.await.map_err(|e| TransportError::Failed(e.into()))
    }

    /// Switches the reader to a subscriber made by client number `number`. Returns the subscriber if this client or a
    /// later one already carries the subscription, or if the process has left.
    pub(super) fn carry_on(&self, subscriber: Subscriber, number: u64) -> Option<Subscriber> {
        let mut change = self.lock_change();
        if self.client.fetch_max(number, Ordering::AcqRel) >= number {
            return Some(subscriber);
        }
        *change = SubscriberChange::New(subscriber);
        drop(change);
        self.reader.wake();
        None
    }

    /// Passes messages received by another client's subscriber to the reader while there is room. Returns `Ready` once
    /// no more messages can arrive.
    pub(super) fn poll_forward(
        &self,
        subscriber: &mut Subscriber,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut forwarded = self.lock_forwarded();
        let before = forwarded.len();
        let mut result = Poll::Pending;
        while forwarded.len() < FORWARDED_MAX {
            match subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => forwarded.push_back(message),
                Poll::Ready(None) => {
                    result = Poll::Ready(());
                    break;
                }
                Poll::Pending => break,
            }
        }
        let has_new = forwarded.len() > before;
        self.has_forwarded.store(!forwarded.is_empty(), Ordering::Release);
        drop(forwarded);
        if has_new {
            self.reader.wake();
        }
        result
    }

    /// Returns whether messages from another client are waiting to be read.
    pub(super) fn has_forwarded(&self) -> bool {
        self.has_forwarded.load(Ordering::Acquire)
    }

    /// Removes and returns the oldest message from another client.
    pub(super) fn next_forwarded(&self) -> Option<async_nats::Message> {
        if !self.has_forwarded() {
            return None;
        }
        let mut forwarded = self.lock_forwarded();
        let message = forwarded.pop_front();
        self.has_forwarded.store(!forwarded.is_empty(), Ordering::Release);
        message
    }

    /// Switches the reader to a subscriber of client number `number`.
    pub(super) fn replace_subscriber(&self, subscriber: Subscriber, number: u64) {
        self.client.fetch_max(number, Ordering::AcqRel);
        self.set_change(SubscriberChange::New(subscriber));
    }

    /// Removes the reader's subscriber without a replacement.
    pub(super) fn end_subscriber(&self) {
        self.set_change(SubscriberChange::Ended);
    }

    /// Prevents later clients from carrying the subscription.
    pub(super) fn leave(&self) {
        self.client.store(LEFT, Ordering::Release);
    }

    fn set_change(&self, change: SubscriberChange) {
        *self.lock_change() = change;
        self.reader.wake();
    }

    /// Removes and returns the pending change for the reader.
    pub(super) fn take_change(&self) -> SubscriberChange {
        std::mem::replace(&mut *self.lock_change(), SubscriberChange::None)
    }

    fn lock_forwarded(&self) -> MutexGuard<'_, VecDeque<async_nats::Message>> {
        self.forwarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_change(&self) -> MutexGuard<'_, SubscriberChange> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
