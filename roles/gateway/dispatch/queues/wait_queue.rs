//! The requests in one queue that are waiting for a slot. Callers take turns, and the requests of one caller are served in order of
//! arrival.
//!
//! A worker that refuses a request remembers its reply subject, and sends an offer to that subject when a slot becomes
//! free. The offer goes to the first waiter, which need not be the refused request. The gateway thus decides the order
//! in which its requests are served, regardless of the order of refusals.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::fair_order::{FairOrder, FairPosition};
use crate::jitter::jittered;
use crate::message::Subject;
use crate::roles::gateway::client::CallerKey;
use crate::roles::gateway::dispatch::message::{QueueSignal, SessionMessage};
use crate::roles::gateway::dispatch::session::WaitReason;
use crate::telemetry::Gauge;

/// The number of recent dequeues from which the drain rate is computed.
const DEQUEUES_MAX: usize = 32;
/// The number of dequeues that are required to compute a rate.
const DEQUEUES_MIN: usize = 8;
/// The number of waiters that may send their requests to the group for each reply from a member.
/// The number of attempts thus at most doubles, as in TCP slow start.
const WAKE_PER_REPLY: usize = 2;
/// The shortest `Retry-After`.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The longest `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Identifies a waiter. Ids are ordered by the positions of the waiters. While a session sends its request to a worker,
/// it keeps its id so that it can return to its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(FairPosition<CallerKey>);

/// The decision about a new request.
#[derive(Debug, PartialEq, Eq)]
pub enum QueueAdmission {
    /// Send the request to the group immediately.
    SendNow,
    /// Let the request wait, because earlier requests found no members or the link is down.
    Wait,
    /// Reject the request: it would wait too long, or too many requests are already waiting.
    Reject,
}

/// The waiting requests of one queue.
#[derive(Debug)]
pub struct WaitQueue {
    length_metric: Gauge,
    /// The number of waiters. Atomic, because it is read for every attempt.
    length: AtomicUsize,
    /// `false` only if `unregistered` is empty. Atomic, because it is read for every reply.
    has_unregistered: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiters: FairOrder<CallerKey, mpsc::Sender<SessionMessage>>,
    /// The waiters whose reply subjects are not known to any worker. No worker will therefore offer them a slot. The
    /// set also contains a head whose channel was full when it should have been notified. Replies allow these waiters
    /// to send their requests to the group.
    unregistered: BTreeSet<WaiterId>,
    /// The reason why the last unregistered waiter has to wait. The reason applies to all unregistered waiters, because
    /// only the head sends its request to the group.
    unregistered_reason: Option<WaitReason>,
    /// The waiter that was last notified that it is the head.
    notified_head: Option<WaiterId>,
    /// The times at which the most recent waiters got a slot. Cleared when the queue becomes empty.
    dequeue_times: VecDeque<Instant>,
}

impl WaitQueue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(length_metric: Gauge) -> Self {
        Self {
            length_metric,
            length: AtomicUsize::new(0),
            has_unregistered: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Returns the number of waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Returns whether no request is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Admits a request, unless it would wait longer than `wait_max`, or `waiting_max` other requests are already
    /// waiting and `join` would evict it.
    #[must_use]
    pub fn admit(
        &self,
        caller: CallerKey,
        wait_max: Duration,
        waiting_max: usize,
        now: Instant,
    ) -> QueueAdmission {
        let state = self.lock();
        if state.waiters.is_empty() {
            return QueueAdmission::SendNow;
        }
        let is_too_late = state.expected_wait(caller, now).is_some_and(|wait| wait > wait_max);
        let is_full = state.waiters.len() >= waiting_max;
        if is_too_late || (is_full && state.waiters.would_be_evicted(caller)) {
            QueueAdmission::Reject
        } else if state.unregistered.is_empty() {
            QueueAdmission::SendNow
        } else {
            QueueAdmission::Wait
        }
    }

    /// Adds a waiter of this caller. With `old_id`, the waiter returns to the position that it had before it sent its
    /// request to a worker, and its caller gets its turn back. If too many requests are then waiting, evicts the newest
    /// waiter of the caller with the most waiters. Returns `None` if this waiter itself is evicted.
    #[must_use]
    pub fn join(
        &self,
        (caller, old_id): (CallerKey, Option<WaiterId>),
        reason: WaitReason,
        signals: mpsc::Sender<SessionMessage>,
        waiting_max: usize,
    ) -> Option<WaiterId> {
        let mut state = self.lock();
        let (position, is_new) = match old_id {
            Some(WaiterId(old)) => (old, state.waiters.restore(old, signals)),
            None => (state.waiters.push(caller, signals), true),
        };
        let id = WaiterId(position);
        if is_new && state.waiters.len() > waiting_max && state.evict_for(id) == id {
            return None;
        }
        if matches!(reason, WaitReason::NoWorkers | WaitReason::BusDown | WaitReason::Paused) {
            state.unregistered.insert(id);
            state.unregistered_reason = Some(reason);
        }
        if reason == WaitReason::Paused {
            // The rate before the pause does not show when the pause will end.
            state.dequeue_times.clear();
        }
        if state.notified_head == Some(id) {
            state.notified_head = None;
        }
        state.notify_head();
        self.publish(&state);
        Some(id)
    }

    /// Removes a waiter that gives up. Its caller keeps its turn.
    pub fn leave(&self, id: WaiterId) {
        let mut state = self.lock();
        state.remove(id);
        state.notify_head();
        self.publish(&state);
    }

    /// Removes a waiter that sends its request to a worker. The waiter uses its caller's turn, unless an offer has
    /// already used it. Returns the id with which the waiter can rejoin the queue.
    #[must_use]
    pub fn take_turn(&self, id: WaiterId) -> WaiterId {
        let mut state = self.lock();
        let taken = state.waiters.take(id.0);
        state.remove(id);
        state.notify_head();
        self.publish(&state);
        // If an offer removed the waiter, it was the first one. The turn in `id` therefore precedes the turns of all
        // other waiters, as did the turn that the offer used.
        taken.map_or(id, |(used, _)| WaiterId(used))
    }

    /// Removes the first waiter and passes an offered slot to it. This uses the turn of the waiter's caller. A waiter
    /// whose channel is full keeps its position, and the next waiter gets the slot.
    ///
    /// # Errors
    /// The slot if no request is waiting. The calling code must then decline the offer.
    pub fn offer(&self, slot: Subject, now: Instant) -> Result<(), Subject> {
        let mut state = self.lock();
        let offered = state.pass_to_first(slot);
        if offered.is_ok() {
            state.record_dequeue(now);
        }
        state.notify_head();
        self.publish(&state);
        offered
    }

    /// Handles a reply from a member that accepts requests. Lets some of the unregistered waiters send their requests
    /// to the group.
    pub fn on_member_reply(&self) {
        if !self.has_unregistered.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        state.wake_unregistered();
        self.publish(&state);
    }

    /// Records that a waiter got a slot by sending its request to the group. The expected waits are computed from these records.
    pub fn record_dequeue(&self, id: WaiterId, now: Instant) {
        let mut state = self.lock();
        state.waiters.count_served(id.0);
        state.record_dequeue(now);
    }

    /// Returns the number of a caller's waiters.
    #[must_use]
    pub fn waiters_of(&self, caller: CallerKey) -> usize {
        self.lock().waiters.waiters_of(caller)
    }

    /// Returns whether this waiter is the next to be served.
    #[must_use]
    pub fn is_head(&self, id: WaiterId) -> bool {
        self.lock().waiters.first().is_some_and(|(first, _)| first == id.0)
    }

    /// Returns whether no worker knows this waiter's reply subject.
    #[must_use]
    pub fn is_unregistered(&self, id: WaiterId) -> bool {
        self.lock().unregistered.contains(&id)
    }

    /// Returns the reason why unregistered waiters wait, as determined by the last waiter that sent its request to the
    /// group.
    #[must_use]
    pub fn unregistered_reason(&self) -> WaitReason {
        self.lock().unregistered_reason.unwrap_or(WaitReason::NoWorkers)
    }

    /// Returns `Retry-After`: the expected time until a new request of this caller would be served, plus jitter.
    #[must_use]
    pub fn retry_after(&self, caller: CallerKey, now: Instant) -> Duration {
        let wait = self.lock().expected_wait(caller, now).unwrap_or(RETRY_AFTER_MIN);
        let bounded = wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        jittered(bounded, 0.8..=1.2)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge; bounded by waiting_max")]
    fn publish(&self, state: &State) {
        self.has_unregistered.store(!state.unregistered.is_empty(), Ordering::Relaxed);
        self.length.store(state.waiters.len(), Ordering::Relaxed);
        self.length_metric.set(state.waiters.len() as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Passes a slot to the first waiter that can receive it. Returns the slot if no waiter can.
    fn pass_to_first(&mut self, slot: Subject) -> Result<(), Subject> {
        let mut slot = Some(slot);
        let mut removed = Vec::new();
        let mut served = None;
        for (position, signals) in self.waiters.iter() {
            match (signals.try_reserve(), slot.take()) {
                (Ok(permit), Some(slot)) => {
                    permit.send(SessionMessage::Signal(QueueSignal::SlotOffered(slot)));
                    removed.push(position);
                    served = Some(position);
                    break;
                }
                (Err(TrySendError::Closed(())), unused) => {
                    removed.push(position);
                    slot = unused;
                }
                (_, unused) => slot = unused,
            }
        }
        if let Some(position) = served {
            self.waiters.serve(position);
        }
        for position in removed {
            self.remove(WaiterId(position));
        }
        slot.map_or(Ok(()), Err)
    }

    /// Evicts the first waiter, in eviction order, that can receive the signal. If there is none, evicts the joining
    /// waiter. Returns the id of the evicted waiter.
    fn evict_for(&mut self, joining: WaiterId) -> WaiterId {
        let evicted = self.waiters.in_eviction_order().find(|(position, signals)| {
            *position == joining.0 || !finds_full(signals, QueueSignal::QueueFull)
        });
        let evicted = evicted.map_or(joining, |(position, _)| WaiterId(position));
        self.remove(evicted);
        evicted
    }

    /// Lets the first unregistered waiters send their requests to the group.
    fn wake_unregistered(&mut self) {
        let mut woken = Vec::new();
        for id in &self.unregistered {
            // A waiter whose channel is full is woken by a later reply.
            let signals = self.waiters.get(id.0);
            if signals.is_none_or(|signals| !finds_full(signals, QueueSignal::SendToGroup)) {
                woken.push(*id);
            }
            if woken.len() >= WAKE_PER_REPLY {
                break;
            }
        }
        for id in woken {
            self.unregistered.remove(&id);
        }
    }

    fn remove(&mut self, id: WaiterId) {
        self.waiters.remove(id.0);
        self.unregistered.remove(&id);
        if self.notified_head == Some(id) {
            self.notified_head = None;
        }
        if self.waiters.is_empty() {
            self.dequeue_times.clear();
        }
    }

    fn record_dequeue(&mut self, now: Instant) {
        if self.waiters.is_empty() {
            // Without waiters, the time until the next dequeue does not depend on the drain rate.
            self.dequeue_times.clear();
            return;
        }
        self.dequeue_times.push_back(now);
        if self.dequeue_times.len() > DEQUEUES_MAX {
            self.dequeue_times.pop_front();
        }
    }

    /// Returns the expected wait of a new waiter of this caller at the measured rate, or `None` if the rate is unknown.
    fn expected_wait(&self, caller: CallerKey, now: Instant) -> Option<Duration> {
        if self.dequeue_times.len() < DEQUEUES_MIN {
            return None;
        }
        let first = self.dequeue_times.front()?;
        let dequeues = u32::try_from(self.dequeue_times.len()).ok()?;
        let interval = now.saturating_duration_since(*first) / dequeues;
        let ahead = u32::try_from(self.waiters.ahead_of_new(caller)).unwrap_or(u32::MAX);
        Some(interval.saturating_mul(ahead))
    }

    /// Notifies the first waiter that it is the head. Removes waiters whose sessions ended without
    /// leaving the queue, because otherwise no waiter behind them would become the head.
    fn notify_head(&mut self) {
        while let Some((position, signals)) = self.waiters.first() {
            let id = WaiterId(position);
            if !signals.is_closed() {
                let is_notified =
                    self.notified_head == Some(id) || !finds_full(signals, QueueSignal::Head);
                self.notified_head = is_notified.then_some(id);
                if !is_notified {
                    // A later reply from a member wakes this waiter, once its channel has room.
                    self.unregistered.insert(id);
                }
                return;
            }
            debug_assert!(false, "a session leaves the queue before it ends");
            self.remove(id);
        }
    }
}

/// Sends a signal to a waiter. Returns whether its channel is full.
fn finds_full(signals: &mpsc::Sender<SessionMessage>, signal: QueueSignal) -> bool {
    matches!(signals.try_send(SessionMessage::Signal(signal)), Err(TrySendError::Full(_)))
}

#[cfg(test)]
mod tests;
