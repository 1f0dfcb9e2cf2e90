//! A transport for unit tests, without a server.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::watch;

use super::{Link, LinkState, RoundTrip, SettingsState, Subscription, Transport, TransportError};
use crate::config::messaging::TransportConfig;
use crate::future::BoxFuture;
use crate::message::{Message, Subject};

/// The maximum size of a message in bytes, as in a NATS server by default.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

type SubscribeFuture<'a> = BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>>;
/// Returns the messages that a new subscription to a subject receives.
type ReplySource = Box<dyn Fn(&Subject) -> Vec<Message> + Send + Sync>;

/// A transport that stores published messages, and can refuse messages and subscriptions. Its link is up at first.
pub(crate) struct FakeTransport {
    link: watch::Sender<Link>,
    published: Mutex<Vec<Message>>,
    subscription_failures_left: AtomicUsize,
    refuses_messages: AtomicBool,
    refused: AtomicUsize,
    replies: Option<ReplySource>,
}

impl FakeTransport {
    /// Creates a transport whose subscriptions receive nothing. The first `subscription_failures` of them fail.
    pub(crate) fn silent(subscription_failures: usize) -> Arc<Self> {
        Arc::new(Self::new(subscription_failures, None))
    }

    /// Creates a transport whose subscriptions receive these messages, and then end.
    pub(crate) fn with_replies(
        replies: impl Fn(&Subject) -> Vec<Message> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::new(0, Some(Box::new(replies))))
    }

    fn new(subscription_failures: usize, replies: Option<ReplySource>) -> Self {
        Self {
            link: watch::Sender::new(Link { state: LinkState::Up, epoch: 1 }),
            published: Mutex::default(),
            subscription_failures_left: AtomicUsize::new(subscription_failures),
            refuses_messages: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            replies,
        }
    }

    /// Changes the state of the link.
    pub(crate) fn set_link(&self, state: LinkState) {
        self.link.send_replace(Link { state, epoch: 1 });
    }

    /// Sets whether messages are refused.
    pub(crate) fn refuse_messages(&self, refuses: bool) {
        self.refuses_messages.store(refuses, Ordering::Relaxed);
    }

    /// Returns the number of messages that were refused.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns how many of the next subscriptions fail.
    pub(crate) fn subscription_failures_left(&self) -> usize {
        self.subscription_failures_left.load(Ordering::Relaxed)
    }

    /// Returns the messages that were published.
    pub(crate) fn published(&self) -> MutexGuard<'_, Vec<Message>> {
        self.published.lock().unwrap()
    }

    fn store(&self, message: Message) -> Result<(), TransportError> {
        if !self.link.borrow().is_up() {
            return Err(TransportError::Disconnected);
        }
        if self.refuses_messages.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TransportError::Full);
        }
        if message.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TransportError::TooLarge);
        }
        self.published.lock().unwrap().push(message);
        Ok(())
    }

    fn subscription(&self, subject: &Subject) -> Result<Box<dyn Subscription>, TransportError> {
        let left = &self.subscription_failures_left;
        let failed =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if failed.is_ok() {
            return Err(TransportError::TimedOut);
        }
        let messages = self.replies.as_ref().map(|replies| replies(subject).into_iter());
        Ok(Box::new(FakeSubscription { messages }))
    }
}

impl fmt::Debug for FakeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeTransport").finish_non_exhaustive()
    }
}

/// A subscription whose messages have already arrived, or that never receives any.
#[derive(Debug)]
struct FakeSubscription {
    messages: Option<std::vec::IntoIter<Message>>,
}

impl Stream for FakeSubscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.as_mut().map_or(Poll::Pending, |messages| Poll::Ready(messages.next()))
    }
}

impl Subscription for FakeSubscription {
    fn leave_after(&mut self, _: u64) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async { Ok(()) })
    }

    fn served(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }
}

impl Transport for FakeTransport {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        let stored = self.store(message);
        Box::pin(async move { stored })
    }

    fn subscribe<'a>(&'a self, subject: &'a Subject) -> SubscribeFuture<'a> {
        let subscription = self.subscription(subject);
        Box::pin(async move { subscription })
    }

    fn subscribe_optional<'a>(&'a self, subject: &'a Subject) -> SubscribeFuture<'a> {
        self.subscribe(subject)
    }

    fn queue_subscribe<'a>(&'a self, subject: &'a Subject, _: &'a str) -> SubscribeFuture<'a> {
        self.subscribe(subject)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async { Ok(()) })
    }

    fn flush_within(&self, _: Duration) -> BoxFuture<'_, Result<(), TransportError>> {
        self.flush()
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    fn round_trip(&self) -> RoundTrip {
        RoundTrip::default()
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn reconfigure(&self, _: &TransportConfig) {}

    fn settings(&self) -> watch::Receiver<SettingsState> {
        watch::Sender::new(SettingsState::InUse).subscribe()
    }

    fn connect_failure(&self) -> Option<String> {
        None
    }

    fn problems(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn inbox(&self) -> Subject {
        Subject::new("_INBOX.own").unwrap()
    }
}
