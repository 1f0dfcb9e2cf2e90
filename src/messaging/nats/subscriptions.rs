//! What this process listens to, whichever client carries it: each subscription outlives the client it was made on.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use futures_util::{Stream, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::convert;
use super::live::Live;
use super::refusal::Refusal;
use crate::future::BoxFuture;
use crate::messaging::{Message, Subject, Subscription, TransportError};
use crate::telemetry::{gauge, names};

/// Longest wait until the client has taken that a group is to be left.
const LEAVE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// A subject, and how it is listened to.
#[derive(Debug)]
pub(super) struct Handle {
    id: u64,
    pub(super) subject: Subject,
    pub(super) group: Option<String>,
    kind: Kind,
    /// The number of the client that it was last subscribed on.
    client: AtomicU64,
    next: Mutex<Next>,
    reader: AtomicWaker,
    served: watch::Sender<bool>,
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Below our own inbox.
    Inbox,
    /// What others tell this process, or all of its role.
    Control,
    /// A queue group.
    Queue,
    /// What the process can do without.
    Optional,
}

/// What whoever reads goes on with, once it has read all that there is.
#[derive(Debug)]
enum Next {
    /// With the same.
    Same,
    /// The server has ended it: with nothing, for now.
    Nothing,
    /// With this one.
    New(async_nats::Subscriber),
}

impl Kind {
    const ALL: [Self; 4] = [Self::Inbox, Self::Control, Self::Queue, Self::Optional];

    fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Control => "control",
            Self::Queue => "queue",
            Self::Optional => "optional",
        }
    }

    /// Whether the process cannot work without it. A queue says for itself that it is not served.
    fn is_needed(self) -> bool {
        matches!(self, Self::Inbox | Self::Control)
    }
}

impl Handle {
    /// Subscribes on a client, unless that was done; whoever reads goes on there.
    pub(super) async fn subscribe_on(&self, live: &Live) -> Result<(), TransportError> {
        if self.client.swap(live.number, Ordering::AcqRel) != live.number {
            let subscriber = self.subscriber(live).await?;
            self.go_on_with(Next::New(subscriber));
        }
        Ok(())
    }

    /// A new subscription on a client; nobody reads it yet. Waits while the client has no room for commands.
    pub(super) async fn subscriber(
        &self,
        live: &Live,
    ) -> Result<async_nats::Subscriber, TransportError> {
        let subject = convert::subject(&self.subject);
        let made = async {
            match &self.group {
                Some(group) => live.client.queue_subscribe(subject, group.clone()).await,
                None => live.client.subscribe(subject).await,
            }
        };
        made.await.map_err(|e| TransportError::Refused(e.into()))
    }

    /// Whoever reads goes on with a subscription that was proved.
    fn go_on(&self, subscriber: async_nats::Subscriber, client: u64) {
        self.client.store(client, Ordering::Release);
        self.go_on_with(Next::New(subscriber));
    }

    fn go_on_with(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.reader.wake();
    }

    fn take_next(&self) -> Next {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *next, Next::Same)
    }
}

/// Every subscription of this process.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    next: AtomicU64,
    all: Mutex<All>,
    /// Told when one was refused.
    pub(super) refused: Notify,
    /// Told when subscriptions were refused and nobody knows which.
    pub(super) unknown: Notify,
}

#[derive(Debug, Default)]
struct All {
    handles: BTreeMap<u64, Entry>,
    /// The one that is being tried, and whether that was refused.
    trying: Option<(u64, bool)>,
}

#[derive(Debug)]
struct Entry {
    handle: Arc<Handle>,
    is_refused: bool,
}

impl Subscriptions {
    /// Takes note of a subscription before it is made, so that no new client is without it.
    pub(super) fn add(&self, subject: &Subject, group: Option<&str>, kind: Kind) -> Arc<Handle> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle {
            id,
            subject: subject.clone(),
            group: group.map(str::to_owned),
            kind,
            client: AtomicU64::new(0),
            next: Mutex::new(Next::Same),
            reader: AtomicWaker::new(),
            served: watch::Sender::new(true),
        });
        let entry = Entry { handle: Arc::clone(&handle), is_refused: false };
        self.lock().handles.insert(id, entry);
        handle
    }

    fn forget(&self, id: u64) {
        let mut all = self.lock();
        if all.handles.remove(&id).is_some_and(|entry| entry.is_refused) {
            show(&all);
        }
    }

    /// Those that the server did not refuse.
    pub(super) fn good(&self) -> Vec<Arc<Handle>> {
        let all = self.lock();
        let good = all.handles.values().filter(|entry| !entry.is_refused);
        good.map(|entry| Arc::clone(&entry.handle)).collect()
    }

    /// Those that the server refused; what the process cannot do without comes first.
    pub(super) fn bad(&self) -> Vec<Arc<Handle>> {
        let all = self.lock();
        let bad = all.handles.values().filter(|entry| entry.is_refused);
        let mut bad: Vec<_> = bad.map(|entry| Arc::clone(&entry.handle)).collect();
        bad.sort_by_key(|handle| (handle.kind, handle.id));
        bad
    }

    /// Whether the process misses what it cannot do without.
    pub(super) fn is_deaf(&self) -> bool {
        let all = self.lock();
        all.handles.values().any(|entry| entry.is_refused && entry.handle.kind.is_needed())
    }

    /// The server refused a subscription, or ended it. Says whether that is news.
    pub(super) fn refuse(&self, refusal: &Refusal) -> bool {
        let mut all = self.lock();
        let All { handles, trying } = &mut *all;
        let is_news = match refusal {
            Refusal::Of { subject, group } => {
                let mut is_news = false;
                for (id, entry) in handles {
                    let handle = &entry.handle;
                    if handle.subject.as_str() != subject || handle.group != *group {
                        continue;
                    }
                    match trying {
                        Some((tried, was_refused)) if *tried == *id => *was_refused = true,
                        _ => is_news |= entry.refuse(),
                    }
                }
                is_news
            }
            Refusal::TooMany => match trying {
                Some((_, was_refused)) if !*was_refused => {
                    *was_refused = true;
                    false
                }
                _ => {
                    self.unknown.notify_one();
                    true
                }
            },
        };
        show(&all);
        drop(all);
        if is_news {
            self.refused.notify_one();
        }
        is_news
    }

    /// Nobody knows which are good: none counts as such until it was tried.
    pub(super) fn refuse_all(&self) {
        let mut all = self.lock();
        for entry in all.handles.values_mut() {
            entry.refuse();
        }
        show(&all);
    }

    /// Begins to try one: what is refused from here on is this one.
    pub(super) fn begin_to_try(&self, handle: &Handle) {
        self.lock().trying = Some((handle.id, false));
    }

    /// Ends that. Says whether it was refused.
    pub(super) fn end_to_try(&self) -> bool {
        self.lock().trying.take().is_some_and(|(_, was_refused)| was_refused)
    }

    /// One was tried on a client, and the server serves it.
    pub(super) fn serve(&self, handle: &Handle, subscriber: async_nats::Subscriber, client: u64) {
        let mut all = self.lock();
        // It may have been left meanwhile.
        if let Some(entry) = all.handles.get_mut(&handle.id) {
            entry.is_refused = false;
            handle.go_on(subscriber, client);
            handle.served.send_replace(true);
            show(&all);
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn refuse(&mut self) -> bool {
        let is_news = !std::mem::replace(&mut self.is_refused, true);
        if is_news {
            self.handle.go_on_with(Next::Nothing);
            self.handle.served.send_replace(false);
        }
        is_news
    }
}

fn show(all: &All) {
    for kind in Kind::ALL {
        let refused = all.handles.values().filter(|e| e.is_refused && e.handle.kind == kind);
        let count = u32::try_from(refused.count()).unwrap_or(u32::MAX);
        let label = [(names::KIND, kind.as_str().to_owned())];
        gauge(&names::NATS_SUBSCRIPTIONS_REFUSED, &label).set(f64::from(count));
    }
}

/// A subscription as it is read. It counts what it has seen: leaving without loss needs the number.
pub(super) struct NatsSubscription {
    handle: Arc<Handle>,
    subscriptions: Arc<Subscriptions>,
    inner: Option<async_nats::Subscriber>,
    seen: u64,
    is_leaving: bool,
}

impl NatsSubscription {
    pub(super) fn new(handle: Arc<Handle>, subscriptions: Arc<Subscriptions>) -> Self {
        Self { handle, subscriptions, inner: None, seen: 0, is_leaving: false }
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
        self.subscriptions.forget(self.handle.id);
    }
}

impl Stream for NatsSubscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        loop {
            match this.inner.as_mut().map(|inner| inner.poll_next_unpin(cx)) {
                Some(Poll::Ready(Some(message))) => {
                    this.seen += 1;
                    return Poll::Ready(Some(convert::received(message)));
                }
                // The server has stopped as agreed, or the client has ended.
                Some(Poll::Ready(None)) => this.inner = None,
                Some(Poll::Pending) | None => {}
            }
            if this.is_leaving {
                return if this.inner.is_some() { Poll::Pending } else { Poll::Ready(None) };
            }
            this.handle.reader.register(cx.waker());
            match this.handle.take_next() {
                Next::Same => return Poll::Pending,
                Next::Nothing => this.inner = None,
                Next::New(inner) => {
                    this.inner = Some(inner);
                    this.seen = 0;
                }
            }
        }
    }
}

impl Subscription for NatsSubscription {
    fn leave_after(&mut self, more: u64) -> BoxFuture<'_, Result<(), TransportError>> {
        // `drain` and `unsubscribe` of the library lose messages that are on their way; a maximum beyond
        // what was seen is agreed upon by both sides and loses none.
        self.subscriptions.forget(self.handle.id);
        self.is_leaving = true;
        if let Next::New(inner) = self.handle.take_next() {
            (self.inner, self.seen) = (Some(inner), 0);
        }
        let last = self.seen.saturating_add(more);
        Box::pin(async move {
            let Some(inner) = &mut self.inner else { return Ok(()) };
            match timeout(LEAVE_LIMIT, inner.unsubscribe_after(last)).await {
                Ok(result) => result.map_err(|e| TransportError::Refused(e.into())),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }

    fn served(&self) -> watch::Receiver<bool> {
        self.handle.served.subscribe()
    }
}
