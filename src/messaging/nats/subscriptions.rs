//! What this process listens to, whichever client carries it: each subscription outlives the client it was made on.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::message::{Message, Subject};
use crate::messaging::{Subscription, TransportError};
use crate::telemetry::{gauge, names};

/// Longest wait until the client has taken that a group is to be left.
const LEAVE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
/// Refusals at once after which others may have been lost: the library keeps 128 events at most, of any kind.
const REFUSALS_SURE_MAX: usize = 64;
/// What stands for the number of a client once a subscription was left: no client subscribes it any more.
const LEFT: u64 = u64::MAX;

/// A subject, and how it is listened to.
#[derive(Debug)]
pub(super) struct Handle {
    id: u64,
    pub(super) subject: Subject,
    pub(super) group: Option<String>,
    kind: Kind,
    /// The number of the latest client that it was subscribed on; `LEFT` once it was left.
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
    /// Whether answers arrive on it.
    pub(super) fn is_inbox(&self) -> bool {
        self.kind == Kind::Inbox
    }

    /// Subscribes on a client, unless that was done on it or on a later one; whoever reads goes on there.
    pub(super) async fn subscribe_on(&self, live: &Live) -> Result<(), TransportError> {
        if self.client.fetch_max(live.number, Ordering::AcqRel) < live.number {
            let subscriber = self.subscriber(live).await?;
            let mut next = self.lock_next();
            // A later client may have taken over while this one had no room, or the group was left.
            if self.client.load(Ordering::Acquire) == live.number {
                *next = Next::New(subscriber);
                drop(next);
                self.reader.wake();
            }
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
        self.client.fetch_max(client, Ordering::AcqRel);
        self.go_on_with(Next::New(subscriber));
    }

    fn go_on_with(&self, next: Next) {
        *self.lock_next() = next;
        self.reader.wake();
    }

    fn take_next(&self) -> Next {
        std::mem::replace(&mut *self.lock_next(), Next::Same)
    }

    fn lock_next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// What is being tried.
    batch: Option<Batch>,
    /// Refusals since it was looked last whether others may have been lost.
    refusals: usize,
}

/// Subscriptions that are tried together, and what the server said of them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    tried: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Refusals that do not say of which.
    unnamed: usize,
}

impl Batch {
    /// Whether some were refused and nobody knows which.
    pub(super) fn is_unclear(&self) -> bool {
        self.unnamed > 0 && self.tried.len() > 1
    }

    /// Whether the server serves this one.
    pub(super) fn serves(&self, handle: &Handle) -> bool {
        self.unnamed == 0 && self.tried.contains(&handle.id) && !self.refused.contains(&handle.id)
    }
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
        let is_news = match refusal {
            Refusal::Of { subject, group } => all.refuse(subject, group.as_deref()),
            Refusal::TooMany => match &mut all.batch {
                Some(batch) if batch.unnamed < batch.tried.len() => {
                    batch.unnamed += 1;
                    false
                }
                _ => {
                    self.unknown.notify_one();
                    true
                }
            },
        };
        if is_news {
            show(&all);
            drop(all);
            self.refused.notify_one();
        }
        is_news
    }

    /// Whether so many were refused since this was asked last that the refusal of others may have been lost.
    pub(super) fn may_have_missed_some(&self) -> bool {
        std::mem::take(&mut self.lock().refusals) >= REFUSALS_SURE_MAX
    }

    /// Nobody knows which are good: none counts as such until it was tried.
    pub(super) fn refuse_all(&self) {
        let mut all = self.lock();
        for entry in all.handles.values_mut() {
            entry.refuse();
        }
        show(&all);
    }

    /// Begins to try some: what is refused from here on is one of these.
    pub(super) fn begin_to_try(&self, handles: &[Arc<Handle>]) {
        let tried = handles.iter().map(|handle| handle.id).collect();
        self.lock().batch = Some(Batch { tried, ..Batch::default() });
    }

    /// Ends that. Says what was refused.
    pub(super) fn end_to_try(&self) -> Batch {
        self.lock().batch.take().unwrap_or_default()
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

impl All {
    /// This subscription is refused. Says whether that is news; that one which is tried is refused is none.
    fn refuse(&mut self, subject: &str, group: Option<&str>) -> bool {
        let Self { handles, batch, refusals } = self;
        let mut is_news = false;
        for (id, entry) in handles {
            let handle = &entry.handle;
            if handle.subject.as_str() != subject || handle.group.as_deref() != group {
                continue;
            }
            match batch {
                Some(batch) if batch.tried.contains(id) => {
                    batch.refused.insert(*id);
                }
                _ => is_news |= entry.refuse(),
            }
        }
        *refusals += usize::from(is_news);
        is_news
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
        // Nobody would read what a new client had for a group that is left.
        self.handle.client.store(LEFT, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Subscriptions, [Arc<Handle>; 3]) {
        let all = Subscriptions::default();
        let add = |subject, kind| all.add(&Subject::new(subject).unwrap(), None, kind);
        let handles = [add("a", Kind::Queue), add("b", Kind::Control), add("c", Kind::Queue)];
        (all, handles)
    }

    fn of(subject: &str) -> Refusal {
        Refusal::Of { subject: subject.to_owned(), group: None }
    }

    #[test]
    fn of_those_that_are_tried_together_only_the_refused_one_is_not_served() {
        let (all, [a, b, c]) = three();
        all.refuse_all();
        assert_eq!(all.bad()[0].id, b.id, "what the process needs comes first");
        all.begin_to_try(&[Arc::clone(&a), Arc::clone(&b)]);
        assert!(!all.refuse(&of("b")) && !all.refuse(&of("c")), "known already");
        let batch = all.end_to_try();
        assert_eq!([&a, &b, &c].map(|handle| batch.serves(handle)), [true, false, false]);
        assert!(!batch.is_unclear());
    }

    #[test]
    fn a_refusal_without_a_name_is_clear_where_one_was_tried_alone() {
        let (all, [a, b, _]) = three();
        all.refuse_all();
        all.begin_to_try(&[Arc::clone(&a), b]);
        assert!(!all.refuse(&Refusal::TooMany));
        let batch = all.end_to_try();
        assert!(batch.is_unclear() && !batch.serves(&a));
        all.begin_to_try(&[Arc::clone(&a)]);
        assert!(!all.refuse(&Refusal::TooMany));
        let batch = all.end_to_try();
        assert!(!batch.is_unclear() && !batch.serves(&a));
        assert!(all.refuse(&Refusal::TooMany), "of something else");
    }

    #[test]
    fn after_many_refusals_at_once_none_is_trusted() {
        let all = Subscriptions::default();
        for number in 0..=REFUSALS_SURE_MAX {
            all.add(&Subject::new(&number.to_string()).unwrap(), None, Kind::Queue);
        }
        for number in 1..REFUSALS_SURE_MAX {
            assert!(all.refuse(&of(&number.to_string())));
        }
        assert!(!all.may_have_missed_some());
        assert!(all.refuse(&of("0")));
        assert!(!all.may_have_missed_some(), "counted anew");
        all.refuse_all();
        assert_eq!(all.good().len(), 0);
    }
}
