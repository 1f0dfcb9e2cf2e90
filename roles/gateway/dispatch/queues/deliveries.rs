//! The requests of a queue that have been sent: those that no worker has accepted yet, and those that a worker is
//! running.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::QueueName;
use crate::telemetry::{Counter, Gauge, counter, gauge, names};

/// The requests of one queue that have been sent and have not ended yet.
pub struct Deliveries {
    queue: QueueName,
    /// Created when the first request is sent, because most queues may be idle.
    metrics: OnceLock<Box<DeliveryMetrics>>,
    state: Mutex<State>,
}

/// The number of buckets of `AnswerTimes`. The last bucket also counts all longer durations. Its lower bound is 2^22 ms, about 70
/// minutes.
const ANSWER_BUCKETS: usize = 24;

/// Counts answered requests by duration. The upper bound of each bucket is a power of two in milliseconds, and a request is counted
/// in the lowest bucket whose bound exceeds its duration, or else in the last bucket.
#[derive(Debug, Default)]
struct AnswerTimes([AtomicU64; ANSWER_BUCKETS]);

impl AnswerTimes {
    fn add(&self, took: Duration) {
        let width = u128::BITS - took.as_millis().leading_zeros();
        let index = usize::try_from(width).unwrap_or(usize::MAX).min(ANSWER_BUCKETS - 1);
        if let Some(bucket) = self.0.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Returns the upper bound of the bucket that contains the 99th percentile, or zero if there are no answers.
    fn p99(&self) -> Duration {
        let rank = self.count() - self.count() / 100;
        let mut below = 0;
        for (bucket, bound) in self.0.iter().zip((0..).map(|power| 1 << power)) {
            below += bucket.load(Ordering::Relaxed);
            if below > 0 && below >= rank {
                return Duration::from_millis(bound);
            }
        }
        Duration::ZERO
    }
}

/// The delivery metrics of a queue.
struct DeliveryMetrics {
    /// The number of requests that no worker has accepted, and the age of the oldest one.
    unaccepted: [Gauge; 2],
    accepted: [Gauge; 2],
    /// The number of attempts for which NATS found no worker.
    unserved: Counter,
    answered: Counter,
    answer_times: AnswerTimes,
    /// The requests that ran out of time before a worker accepted them.
    timed_out_unaccepted: TimedOut,
    /// The requests that ran out of time after a worker accepted them.
    timed_out_accepted: TimedOut,
}

/// The requests that ran out of time in one phase.
struct TimedOut {
    metric: Counter,
    requests: AtomicU64,
    /// The total time that these requests spent in the phase, in milliseconds.
    milliseconds: AtomicU64,
}

impl TimedOut {
    fn new(queue: &QueueName, state: &str) -> Self {
        let labels = [(names::QUEUE, queue.to_string()), (names::STATE, state.to_owned())];
        let metric = counter(&names::GATEWAY_TIMED_OUT, &labels);
        // Registers the counter at zero, so that a rate includes the first request.
        metric.increment(0);
        Self { metric, requests: AtomicU64::default(), milliseconds: AtomicU64::default() }
    }

    fn add(&self, took: Duration) {
        self.metric.increment(1);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn read(&self) -> TimedOutRequests {
        let time = Duration::from_millis(self.milliseconds.load(Ordering::Relaxed));
        TimedOutRequests { count: self.requests.load(Ordering::Relaxed), time }
    }
}

impl DeliveryMetrics {
    fn new(queue: &QueueName) -> Self {
        let label = [(names::QUEUE, queue.to_string())];
        let pair = |count, oldest| [gauge(count, &label), gauge(oldest, &label)];
        let unserved = counter(&names::GATEWAY_UNSERVED, &label);
        let answered = counter(&names::GATEWAY_ANSWERED, &label);
        // Registers the counters at zero, so that a rate includes the first attempt and the first answer.
        unserved.increment(0);
        answered.increment(0);
        Self {
            unaccepted: pair(&names::GATEWAY_UNACCEPTED, &names::GATEWAY_UNACCEPTED_OLDEST),
            accepted: pair(&names::GATEWAY_ACCEPTED, &names::GATEWAY_ACCEPTED_OLDEST),
            unserved,
            answered,
            answer_times: AnswerTimes::default(),
            timed_out_unaccepted: TimedOut::new(queue, "unaccepted"),
            timed_out_accepted: TimedOut::new(queue, "accepted"),
        }
    }
}

/// The requests that have been sent. Each change to a request's phase costs a few stores under the lock. Once per
/// second, all entries are read to find the oldest requests. There are at most as many entries as requests in flight.
#[derive(Debug, Default)]
struct State {
    entries: Vec<DeliveryEntry>,
    /// The indices of the idle entries.
    free: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct DeliveryEntry {
    phase: DeliveryPhase,
    /// The time at which the phase began.
    since: Instant,
    session_time: Duration,
}

/// The number of requests in a phase, and the age of the oldest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryAges {
    /// The number of requests.
    pub count: usize,
    /// The time since the oldest request was sent or accepted, or zero if there is none.
    pub oldest: Duration,
    /// The session time of the oldest request's endpoint, or zero if there is no request. The request must end within
    /// this time.
    pub session_time: Duration,
}

/// The requests that have run out of time in a phase since the gateway started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimedOutRequests {
    /// The number of requests.
    pub count: u64,
    /// The total time that the requests spent in the phase.
    pub time: Duration,
}

/// How the session of a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// With a worker's answer.
    Answered,
    /// With a worker's report that it stopped the call because the call, or something that the call was waiting for, took too long.
    Stopped,
    /// The session ran out of time.
    TimedOut,
    /// In another way: with an error, or because the client has disconnected.
    Other,
}

/// What has happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryPhase {
    /// The request has not been sent, was refused, or has ended.
    Idle,
    /// The request was sent, but no worker has accepted it yet.
    Unaccepted,
    /// A worker has accepted the request.
    Accepted,
}

/// The delivery of one request. Dropping it ends the delivery.
#[derive(Debug)]
pub struct Delivery {
    deliveries: Arc<Deliveries>,
    phase: DeliveryPhase,
    /// The time at which the last phase other than `Idle` began.
    since: Option<Instant>,
    /// The time at which the last phase `Unaccepted` began.
    sent: Option<Instant>,
    session_time: Duration,
    /// The index of the entry, or `None` if the delivery is idle.
    index: Option<usize>,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Creates an empty set of deliveries for a queue.
    #[must_use]
    pub fn new(queue: &QueueName) -> Self {
        Self { queue: queue.clone(), metrics: OnceLock::new(), state: Mutex::default() }
    }

    /// Returns the number of requests that workers have answered, not counting calls that timed out.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.metrics.get().map_or(0, |metrics| metrics.answer_times.count())
    }

    /// Returns the 99th percentile of the time from sending a request to its answer, rounded up to a power of two in milliseconds.
    /// Calls that timed out are not included. Returns zero if no request has been answered.
    #[must_use]
    pub fn answer_time_p99(&self) -> Duration {
        self.metrics.get().map_or(Duration::ZERO, |metrics| metrics.answer_times.p99())
    }

    /// Returns the counts and ages of the requests that no worker has accepted, and of those that a worker is running.
    #[must_use]
    pub fn ages(&self, now: Instant) -> [DeliveryAges; 2] {
        let state = self.lock();
        [DeliveryPhase::Unaccepted, DeliveryPhase::Accepted].map(|phase| {
            let entries = || state.entries.iter().filter(|entry| entry.phase == phase);
            let oldest = entries().min_by_key(|entry| entry.since);
            oldest.map_or_else(DeliveryAges::default, |oldest| DeliveryAges {
                count: entries().count(),
                oldest: now.saturating_duration_since(oldest.since),
                session_time: oldest.session_time,
            })
        })
    }

    /// Returns the requests that ran out of time before a worker had accepted them, and those that did so afterwards.
    #[must_use]
    pub fn timed_out(&self) -> [TimedOutRequests; 2] {
        self.metrics.get().map_or_else(Default::default, |metrics| {
            [metrics.timed_out_unaccepted.read(), metrics.timed_out_accepted.read()]
        })
    }

    /// Updates the metrics.
    pub fn publish(&self, now: Instant) {
        let [unaccepted, accepted] = self.ages(now);
        let Some(metrics) = self.metrics.get() else { return };
        for ([count, oldest], ages) in
            [(&metrics.unaccepted, unaccepted), (&metrics.accepted, accepted)]
        {
            count.set(f64::from(u32::try_from(ages.count).unwrap_or(u32::MAX)));
            oldest.set(ages.oldest.as_secs_f64());
        }
    }

    /// Counts an attempt for which NATS found no worker.
    pub fn count_unserved(&self) {
        self.metrics().unserved.increment(1);
    }

    fn metrics(&self) -> &DeliveryMetrics {
        self.metrics.get_or_init(|| Box::new(DeliveryMetrics::new(&self.queue)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// Creates the delivery of a request that has not been sent yet and must end within `session_time`.
    #[must_use]
    pub fn new(deliveries: &Arc<Deliveries>, session_time: Duration) -> Self {
        let (deliveries, phase) = (Arc::clone(deliveries), DeliveryPhase::Idle);
        Self { deliveries, phase, since: None, sent: None, session_time, index: None }
    }

    /// Sets the phase. The phase begins now, unless the request is already in it. A request that is sent again without
    /// having been refused therefore keeps its age.
    pub fn set(&mut self, phase: DeliveryPhase, now: Instant) {
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        self.deliveries.metrics();
        let entry = DeliveryEntry { phase, since: now, session_time: self.session_time };
        let mut state = self.deliveries.lock();
        self.index = state.set(self.index, entry);
        drop(state);
        if phase != DeliveryPhase::Idle {
            self.since = Some(now);
        }
        if phase == DeliveryPhase::Unaccepted {
            self.sent = Some(now);
        }
    }

    /// Ends the delivery and counts the request. A request that has not been sent, or has been refused, does not count as timed out.
    pub fn end(&mut self, end: DeliveryEnd, now: Instant) {
        let phase = self.phase;
        self.set(DeliveryPhase::Idle, now);
        let took = now.saturating_duration_since(self.since.unwrap_or(now));
        let metrics = || self.deliveries.metrics();
        match (end, phase) {
            (DeliveryEnd::Answered, _) => {
                // A call can run for some time before its worker first reports progress, and thereby accepts the request.
                let began = self.sent.or(self.since).unwrap_or(now);
                metrics().answered.increment(1);
                metrics().answer_times.add(now.saturating_duration_since(began));
            }
            (DeliveryEnd::Stopped, _) | (DeliveryEnd::TimedOut, DeliveryPhase::Accepted) => {
                metrics().timed_out_accepted.add(took);
            }
            (DeliveryEnd::TimedOut, DeliveryPhase::Unaccepted) => {
                metrics().timed_out_unaccepted.add(took);
            }
            (DeliveryEnd::TimedOut, DeliveryPhase::Idle) | (DeliveryEnd::Other, _) => {}
        }
    }
}

impl State {
    /// Sets the entry of a request. `index` is the position of its current entry, if it has one. Returns the new index
    /// of the entry.
    fn set(&mut self, index: Option<usize>, entry: DeliveryEntry) -> Option<usize> {
        let is_idle = entry.phase == DeliveryPhase::Idle;
        let index = index.or_else(|| if is_idle { None } else { self.free.pop() });
        match index.and_then(|index| self.entries.get_mut(index)) {
            Some(place) => *place = entry,
            None if is_idle => return None,
            None => {
                self.entries.push(entry);
                return Some(self.entries.len() - 1);
            }
        }
        if is_idle {
            self.free.extend(index);
            return None;
        }
        index
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.phase != DeliveryPhase::Idle {
            self.set(DeliveryPhase::Idle, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
