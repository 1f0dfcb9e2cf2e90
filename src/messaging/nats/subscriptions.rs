//! All subscriptions of this process, including the ones that the server refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::refusal::SubscriptionRefusal;
use super::subscription_handle::{SubscriptionHandle, SubscriptionKind};
use crate::message::Subject;
use crate::telemetry::{gauge, names};

/// The maximum number of new refusals for which it is certain that none was lost. The library queues up to 128 events
/// of any kind.
const CERTAIN_REFUSALS_MAX: usize = 64;

/// The maximum number of refused subjects that are shown.
const SHOWN_MAX: usize = 8;

/// All subscriptions of this process.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    next_id: AtomicU64,
    state: Mutex<State>,
    /// Notified when a subscription is refused.
    pub(super) new_refusal: Notify,
    /// Notified when the server refuses subscriptions without naming them.
    pub(super) unknown_refusals: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, SubscriptionEntry>,
    /// The subscriptions that are being retried.
    batch: Option<RetryBatch>,
    /// The number of new refusals since the last call to `may_have_missed_refusals`.
    refusals: usize,
}

/// Subscriptions that are retried together, and the refusals so far.
#[derive(Debug, Default)]
pub(super) struct RetryBatch {
    tried: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// The number of refusals that do not name a subscription.
    unnamed: usize,
}

impl RetryBatch {
    /// Returns whether some of several subscriptions were refused, but it is unknown which ones.
    pub(super) fn is_unclear(&self) -> bool {
        self.unnamed > 0 && self.tried.len() > 1
    }

    /// Returns whether the server accepts this subscription.
    pub(super) fn is_accepted(&self, handle: &SubscriptionHandle) -> bool {
        self.unnamed == 0 && self.tried.contains(&handle.id) && !self.refused.contains(&handle.id)
    }
}

#[derive(Debug)]
struct SubscriptionEntry {
    handle: Arc<SubscriptionHandle>,
    /// The reason why the server does not serve the subscription. `None` if the server is believed to serve it.
    fault: Option<SubscriptionFault>,
}

/// The reason why the server does not serve a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubscriptionFault {
    /// The server has refused or ended the subscription.
    Refused,
    /// The server does not have the subscription, although it did not refuse it.
    Lost,
}

impl Subscriptions {
    /// Adds a subscription. This must be called before subscribing, so that a new client includes the subscription.
    pub(super) fn add(
        &self,
        subject: &Subject,
        group: Option<&str>,
        kind: SubscriptionKind,
    ) -> Arc<SubscriptionHandle> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(SubscriptionHandle::new(id, subject, group, kind));
        let entry = SubscriptionEntry { handle: Arc::clone(&handle), fault: None };
        self.lock().entries.insert(id, entry);
        handle
    }

    /// Removes a subscription.
    pub(super) fn remove(&self, id: u64) {
        let mut state = self.lock();
        if state.entries.remove(&id).is_some_and(|entry| entry.fault.is_some()) {
            report(&state);
        }
    }

    /// Returns the subscriptions that the server serves.
    pub(super) fn accepted(&self) -> Vec<Arc<SubscriptionHandle>> {
        let state = self.lock();
        let accepted = state.entries.values().filter(|entry| entry.fault.is_none());
        accepted.map(|entry| Arc::clone(&entry.handle)).collect()
    }

    /// Returns the subscriptions that the server refused or lost, most important first.
    pub(super) fn refused(&self) -> Vec<Arc<SubscriptionHandle>> {
        self.faulty(|_| true)
    }

    fn faulty(&self, includes: impl Fn(SubscriptionFault) -> bool) -> Vec<Arc<SubscriptionHandle>> {
        let state = self.lock();
        let refused = state.entries.values().filter(|entry| entry.fault.is_some_and(&includes));
        let mut refused: Vec<_> = refused.map(|entry| Arc::clone(&entry.handle)).collect();
        refused.sort_by_key(|handle| (handle.kind, handle.id));
        refused
    }

    /// Returns sentences about the subscriptions that the server refused or lost, or `None` if there are none.
    pub(super) fn problem(&self) -> Option<String> {
        let texts = [
            (SubscriptionFault::Refused, "NATS refuses the subscription to"),
            (SubscriptionFault::Lost, "the NATS server does not have the subscription to"),
        ];
        let texts: Vec<String> = texts
            .into_iter()
            .filter_map(|(fault, text)| Some(format!("{text} {}", self.subjects(fault)?)))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Returns the subjects of the subscriptions with this fault, separated by commas. The most important come first.
    fn subjects(&self, fault: SubscriptionFault) -> Option<String> {
        let handles = self.faulty(|other| other == fault);
        let mut seen = BTreeSet::new();
        let mut subjects: Vec<&str> =
            handles.iter().map(|handle| handle.subject.as_str()).collect();
        subjects.retain(|subject| seen.insert(*subject));
        let more = subjects.len().saturating_sub(SHOWN_MAX);
        subjects.truncate(SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!subjects.is_empty()).then(|| format!("{}{more}", subjects.join(", ")))
    }

    /// Returns whether the server refused or lost a subscription on which the process depends.
    pub(super) fn is_deaf(&self) -> bool {
        let state = self.lock();
        state.entries.values().any(|entry| entry.fault.is_some() && entry.handle.kind.is_required())
    }

    /// Records that the server refused or ended a subscription. Returns whether the refusal is new.
    pub(super) fn refuse(&self, refusal: &SubscriptionRefusal) -> bool {
        let mut state = self.lock();
        let is_new = match refusal {
            SubscriptionRefusal::Subject { subject, group } => {
                state.refuse(subject, group.as_deref())
            }
            SubscriptionRefusal::TooMany => match &mut state.batch {
                Some(batch) if batch.unnamed < batch.tried.len() => {
                    batch.unnamed += 1;
                    false
                }
                _ => {
                    self.unknown_refusals.notify_one();
                    true
                }
            },
        };
        if is_new {
            report(&state);
            drop(state);
            self.new_refusal.notify_one();
        }
        is_new
    }

    /// Returns whether refusals may have been lost because too many have arrived since the last call.
    pub(super) fn may_have_missed_refusals(&self) -> bool {
        std::mem::take(&mut self.lock().refusals) >= CERTAIN_REFUSALS_MAX
    }

    /// Marks all subscriptions as refused, so that each is retried.
    pub(super) fn refuse_all(&self) {
        let mut state = self.lock();
        for entry in state.entries.values_mut() {
            entry.end(SubscriptionFault::Refused);
        }
        report(&state);
    }

    /// Marks subscriptions as lost, so that they are renewed. Returns their subjects.
    pub(super) fn lose(&self, ids: &BTreeSet<u64>) -> Vec<Subject> {
        let mut state = self.lock();
        let mut lost = Vec::new();
        for id in ids {
            if let Some(entry) = state.entries.get_mut(id)
                && entry.end(SubscriptionFault::Lost)
            {
                lost.push(entry.handle.subject.clone());
            }
        }
        report(&state);
        drop(state);
        if !lost.is_empty() {
            self.new_refusal.notify_one();
        }
        lost
    }

    /// Starts a batch. Until it ends, refusals of these subscriptions are recorded in it.
    pub(super) fn begin_batch(&self, handles: &[Arc<SubscriptionHandle>]) {
        let tried = handles.iter().map(|handle| handle.id).collect();
        self.lock().batch = Some(RetryBatch { tried, ..RetryBatch::default() });
    }

    /// Ends the batch and returns it.
    pub(super) fn end_batch(&self) -> RetryBatch {
        self.lock().batch.take().unwrap_or_default()
    }

    /// Records that the server accepts a subscription on client number `client`.
    pub(super) fn accept(
        &self,
        handle: &SubscriptionHandle,
        subscriber: async_nats::Subscriber,
        client: u64,
    ) {
        let mut state = self.lock();
        // The subscription may have been removed in the meantime.
        if let Some(entry) = state.entries.get_mut(&handle.id) {
            entry.fault = None;
            handle.replace_subscriber(subscriber, client);
            handle.served.send_replace(true);
            report(&state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records a refusal and returns whether it is new. A refusal in a batch is never new.
    fn refuse(&mut self, subject: &str, group: Option<&str>) -> bool {
        let Self { entries, batch, refusals } = self;
        let mut is_new = false;
        for (id, entry) in entries {
            let handle = &entry.handle;
            if handle.subject.as_str() != subject || handle.group.as_deref() != group {
                continue;
            }
            match batch {
                Some(batch) if batch.tried.contains(id) => {
                    batch.refused.insert(*id);
                    entry.fault = entry.fault.map(|_| SubscriptionFault::Refused);
                }
                _ => is_new |= entry.end(SubscriptionFault::Refused),
            }
        }
        *refusals += usize::from(is_new);
        is_new
    }
}

impl SubscriptionEntry {
    /// Records that the server does not serve the subscription. Returns whether the subscription had no fault before.
    fn end(&mut self, fault: SubscriptionFault) -> bool {
        let is_new = self.fault.is_none();
        if is_new {
            self.fault = Some(fault);
            self.handle.end_subscriber();
            self.handle.served.send_replace(false);
        }
        is_new
    }
}

fn report(state: &State) {
    for kind in SubscriptionKind::ALL {
        let is_refused = |entry: &&SubscriptionEntry| {
            entry.fault == Some(SubscriptionFault::Refused) && entry.handle.kind == kind
        };
        let refused = state.entries.values().filter(is_refused);
        let count = u32::try_from(refused.count()).unwrap_or(u32::MAX);
        let label = [(names::KIND, kind.as_str().to_owned())];
        gauge(&names::NATS_SUBSCRIPTIONS_REFUSED, &label).set(f64::from(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Subscriptions, [Arc<SubscriptionHandle>; 3]) {
        let all = Subscriptions::default();
        let add = |subject, kind| all.add(&Subject::new(subject).unwrap(), None, kind);
        let handles = [
            add("a", SubscriptionKind::Queue),
            add("b", SubscriptionKind::Control),
            add("c", SubscriptionKind::Queue),
        ];
        (all, handles)
    }

    fn refusal(subject: &str) -> SubscriptionRefusal {
        SubscriptionRefusal::Subject { subject: subject.to_owned(), group: None }
    }

    #[test]
    fn only_the_refused_subscription_of_a_batch_is_not_accepted() {
        let (all, [a, b, c]) = three();
        all.refuse_all();
        assert_eq!(all.refused()[0].id, b.id, "required subscriptions come first");
        all.begin_batch(&[Arc::clone(&a), Arc::clone(&b)]);
        assert!(!all.refuse(&refusal("b")) && !all.refuse(&refusal("c")), "both are known already");
        let batch = all.end_batch();
        assert_eq!([&a, &b, &c].map(|handle| batch.is_accepted(handle)), [true, false, false]);
        assert!(!batch.is_unclear());
    }

    #[test]
    fn a_refusal_without_a_name_is_unambiguous_in_a_batch_of_one() {
        let (all, [a, b, _]) = three();
        all.refuse_all();
        all.begin_batch(&[Arc::clone(&a), b]);
        assert!(!all.refuse(&SubscriptionRefusal::TooMany));
        let batch = all.end_batch();
        assert!(batch.is_unclear() && !batch.is_accepted(&a));
        all.begin_batch(&[Arc::clone(&a)]);
        assert!(!all.refuse(&SubscriptionRefusal::TooMany));
        let batch = all.end_batch();
        assert!(!batch.is_unclear() && !batch.is_accepted(&a));
        assert!(all.refuse(&SubscriptionRefusal::TooMany), "outside a batch");
    }

    #[test]
    fn a_lost_subscription_is_not_described_as_refused_unless_the_server_refuses_it() {
        let (all, [a, _, _]) = three();
        assert_eq!(all.problem(), None);
        assert_eq!(all.lose(&BTreeSet::from([a.id])), std::slice::from_ref(&a.subject));
        let lost = "the NATS server does not have the subscription to a";
        assert_eq!(all.problem().as_deref(), Some(lost));
        assert!(all.refuse(&refusal("c")));
        let both = format!("NATS refuses the subscription to c; {lost}");
        assert_eq!(all.problem(), Some(both));
        all.begin_batch(&[Arc::clone(&a)]);
        assert!(!all.refuse(&refusal("a")));
        assert!(!all.end_batch().is_accepted(&a));
        assert_eq!(all.problem().as_deref(), Some("NATS refuses the subscription to a, c"));
    }

    #[test]
    fn each_refused_subject_is_shown_once() {
        let all = Subscriptions::default();
        for (subject, group) in [("a", Some("x")), ("b", None), ("a", Some("y"))] {
            all.add(&Subject::new(subject).unwrap(), group, SubscriptionKind::Queue);
        }
        all.refuse_all();
        assert_eq!(all.problem().as_deref(), Some("NATS refuses the subscription to a, b"));
    }

    #[test]
    fn after_many_refusals_at_once_others_may_have_been_lost() {
        let all = Subscriptions::default();
        for number in 0..=CERTAIN_REFUSALS_MAX {
            all.add(&Subject::new(&number.to_string()).unwrap(), None, SubscriptionKind::Queue);
        }
        for number in 1..CERTAIN_REFUSALS_MAX {
            assert!(all.refuse(&refusal(&number.to_string())));
        }
        assert!(!all.may_have_missed_refusals());
        assert!(all.refuse(&refusal("0")));
        assert!(!all.may_have_missed_refusals(), "the count restarts");
        all.refuse_all();
        assert_eq!(all.accepted().len(), 0);
    }
}
