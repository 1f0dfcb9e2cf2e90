//! The requests of a queue that have been sent: those that no worker has accepted yet, and those that a worker runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::QueueName;
use crate::telemetry::{Gauge, gauge, names};

/// The requests of one queue that have been sent and have not ended.
pub struct Deliveries {
    queue: QueueName,
    /// Created when the first request is published, because most of many queues may be idle.
    gauges: OnceLock<DeliveryGauges>,
    answered: AtomicU64,
    state: Mutex<State>,
}

/// The metrics: the number of requests, and the age of the oldest one.
struct DeliveryGauges {
    unaccepted: [Gauge; 2],
    accepted: [Gauge; 2],
}

impl DeliveryGauges {
    fn new(queue: &QueueName) -> Self {
        let label = [(names::QUEUE, queue.to_string())];
        let pair = |count, oldest| [gauge(count, &label), gauge(oldest, &label)];
        Self {
            unaccepted: pair(&names::GATEWAY_UNACCEPTED, &names::GATEWAY_UNACCEPTED_OLDEST),
            accepted: pair(&names::GATEWAY_ACCEPTED, &names::GATEWAY_ACCEPTED_OLDEST),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// The time at which each request was sent. The ids are in the order of these times.
    unaccepted: BTreeMap<u64, Instant>,
    /// The time at which each request was accepted.
    accepted: BTreeMap<u64, Instant>,
}

/// The number of requests, and the age of the oldest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryAges {
    /// The number of requests.
    pub count: usize,
    /// The time since the oldest request was sent or accepted. Zero if there is none.
    pub oldest: Duration,
}

/// What has happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryPhase {
    /// It has not been sent, or has been refused, or has ended.
    Idle,
    /// It was sent, and no worker has accepted it.
    Unaccepted,
    /// A worker has accepted it.
    Accepted,
}

/// The delivery of one request. Dropping it ends the delivery.
#[derive(Debug)]
pub struct Delivery {
    deliveries: Arc<Deliveries>,
    phase: DeliveryPhase,
    id: u64,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Creates an empty set for a queue.
    #[must_use]
    pub fn new(queue: &QueueName) -> Self {
        Self {
            queue: queue.clone(),
            gauges: OnceLock::new(),
            answered: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Counts a request that a worker has answered without a server error.
    pub fn count_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests that workers have answered without a server error.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns the requests that no worker has accepted, and those that a worker has.
    #[must_use]
    pub fn ages(&self, now: Instant) -> [DeliveryAges; 2] {
        let state = self.lock();
        [&state.unaccepted, &state.accepted].map(|since| {
            let oldest = since.first_key_value();
            let oldest = oldest.map(|(_, since)| now.saturating_duration_since(*since));
            DeliveryAges { count: since.len(), oldest: oldest.unwrap_or_default() }
        })
    }

    /// Updates the metrics.
    pub fn publish(&self, now: Instant) {
        let [unaccepted, accepted] = self.ages(now);
        if self.gauges.get().is_none() && unaccepted.count + accepted.count == 0 {
            return;
        }
        let gauges = self.gauges.get_or_init(|| DeliveryGauges::new(&self.queue));
        for ([count, oldest], ages) in
            [(&gauges.unaccepted, unaccepted), (&gauges.accepted, accepted)]
        {
            count.set(f64::from(u32::try_from(ages.count).unwrap_or(u32::MAX)));
            oldest.set(ages.oldest.as_secs_f64());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// Creates the delivery of a request that has not been sent.
    #[must_use]
    pub fn new(deliveries: &Arc<Deliveries>) -> Self {
        Self { deliveries: Arc::clone(deliveries), phase: DeliveryPhase::Idle, id: 0 }
    }

    /// Sets the phase. The phase begins now unless the request is in it already: a request that is sent again without having been
    /// refused keeps its age.
    pub fn set(&mut self, phase: DeliveryPhase, now: Instant) {
        if phase == self.phase {
            return;
        }
        let mut state = self.deliveries.lock();
        match self.phase {
            DeliveryPhase::Idle => None,
            DeliveryPhase::Unaccepted => state.unaccepted.remove(&self.id),
            DeliveryPhase::Accepted => state.accepted.remove(&self.id),
        };
        state.last_id += 1;
        self.id = state.last_id;
        match phase {
            DeliveryPhase::Idle => None,
            DeliveryPhase::Unaccepted => state.unaccepted.insert(self.id, now),
            DeliveryPhase::Accepted => state.accepted.insert(self.id, now),
        };
        drop(state);
        self.phase = phase;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.set(DeliveryPhase::Idle, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_the_oldest_request_in_each_phase_is_known() {
        let all = Arc::new(Deliveries::new(&QueueName::new("deliveries").unwrap()));
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let ages = |count, seconds| DeliveryAges { count, oldest: Duration::from_secs(seconds) };
        let (mut first, mut second) = (Delivery::new(&all), Delivery::new(&all));
        assert_eq!(all.ages(at(0)), [ages(0, 0), ages(0, 0)]);
        first.set(DeliveryPhase::Unaccepted, at(0));
        second.set(DeliveryPhase::Unaccepted, at(3));
        first.set(DeliveryPhase::Unaccepted, at(4));
        assert_eq!(all.ages(at(5)), [ages(2, 5), ages(0, 0)], "sent again, with the same age");
        first.set(DeliveryPhase::Accepted, at(6));
        assert_eq!(all.ages(at(7)), [ages(1, 4), ages(1, 1)]);
        second.set(DeliveryPhase::Idle, at(8));
        second.set(DeliveryPhase::Unaccepted, at(9));
        assert_eq!(all.ages(at(10)), [ages(1, 1), ages(1, 4)], "refused, and sent again");
        drop((first, second));
        assert_eq!(all.ages(at(11)), [ages(0, 0), ages(0, 0)]);
    }
}
