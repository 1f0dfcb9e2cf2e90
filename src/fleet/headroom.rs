//! The headroom of a pool of workers: the number of workers that it has beyond those that its load requires.

use crate::telemetry::{count_as_f64, snapshot};

/// The target share of a queue's slots that are in use. Above this share, waits become long. The recording rules use
/// the same value.
pub const TARGET_UTILIZATION: f64 = 0.8;

/// Subtracted before the number of workers is rounded up, to compensate for rounding errors.
const ROUNDING: f64 = 1e-9;

/// The load of a queue, and the slots that a pool's workers have for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueLoad {
    /// The number of requests that arrive per second. NaN if unknown. A request that is refused and sent again counts
    /// once.
    pub arrivals_per_second: f64,
    /// The mean time in seconds for which a call occupies its slot. `None` if no call has ended.
    pub call_seconds: Option<f64>,
    /// The number of calls in progress and waiting requests. Used if no call has ended.
    pub in_progress: f64,
    /// The total number of slots in the pool's workers.
    pub slots: f64,
}

impl QueueLoad {
    /// Returns the number of slots that the load occupies, by Little's law. The result can exceed the number of
    /// existing slots. `None` if the arrival rate is unknown.
    #[must_use]
    pub fn slots_occupied(&self) -> Option<f64> {
        let occupied = |seconds| self.arrivals_per_second * seconds;
        let is_known = !self.arrivals_per_second.is_nan();
        is_known.then(|| self.call_seconds.map_or(self.in_progress, occupied))
    }

    /// Returns the number of slots at which the load occupies the share `TARGET_UTILIZATION`. `None` if the load is
    /// unknown.
    #[must_use]
    pub fn slots_needed(&self) -> Option<f64> {
        let occupied = self.slots_occupied()?;
        Some((occupied / TARGET_UTILIZATION - ROUNDING).ceil().max(0.0))
    }
}

/// The number of workers that a pool has, and the number that it needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headroom {
    /// The number of workers.
    pub workers: u64,
    /// The number of workers at which no queue uses more than `TARGET_UTILIZATION` of its slots. At least 1.
    pub workers_needed: u64,
    /// The share of the busiest queue's slots that the load occupies. Above 1 if there are too few slots.
    pub load: f64,
}

impl Headroom {
    /// Computes the headroom of a pool. Queues without slots are ignored, because additional workers would not serve
    /// them either. Returns `None` if there are no workers, because the number of slots per worker is then unknown.
    /// Also returns `None` if the load of a queue is unknown, because that queue might be the busiest.
    #[must_use]
    pub fn new(workers: u64, queues: impl IntoIterator<Item = QueueLoad>) -> Option<Self> {
        if workers == 0 {
            return None;
        }
        let mut load = 0.0_f64;
        for queue in queues.into_iter().filter(|queue| queue.slots > 0.0) {
            load = load.max(queue.slots_occupied()? / queue.slots);
        }
        let needed = load / TARGET_UTILIZATION * count_as_f64(workers);
        let workers_needed = snapshot::to_count((needed - ROUNDING).ceil()).max(1);
        Some(Self { workers, workers_needed, load })
    }

    /// Returns the number of workers that are not needed. The number is negative if there are too few workers.
    #[must_use]
    pub fn workers_free(&self) -> i64 {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        signed(self.workers) - signed(self.workers_needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(arrivals_per_second: f64, call_seconds: f64, slots: f64) -> QueueLoad {
        let call_seconds = Some(call_seconds);
        QueueLoad { arrivals_per_second, call_seconds, slots, ..QueueLoad::default() }
    }

    fn headroom(workers: u64, queues: &[QueueLoad]) -> Headroom {
        Headroom::new(workers, queues.iter().copied()).expect("there are workers")
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn the_busiest_queue_decides() {
        let queues = [queue(10.0, 0.5, 8.0), queue(100.0, 0.01, 8.0)];
        let headroom = headroom(2, &queues);
        assert!(is_near(headroom.load, 0.625), "{headroom:?}");
        assert_eq!((headroom.workers_needed, headroom.workers_free()), (2, 0));
        assert_eq!(queues[0].slots_needed(), Some(7.0), "5 slots are 80 % of 6.25");
    }

    #[test]
    fn too_few_workers_give_a_load_above_one_and_a_negative_headroom() {
        let headroom = headroom(2, &[queue(100.0, 0.2, 8.0)]);
        assert!(is_near(headroom.load, 2.5), "{headroom:?}");
        assert_eq!((headroom.workers_needed, headroom.workers_free()), (7, -5));
    }

    #[test]
    fn a_load_of_exactly_the_target_needs_no_further_worker() {
        for workers in 1..=100 {
            let slots = count_as_f64(workers) * 8.0;
            let queues = [queue(slots * TARGET_UTILIZATION, 1.0, slots)];
            assert_eq!(headroom(workers, &queues).workers_needed, workers);
        }
    }

    #[test]
    fn calls_that_have_not_ended_count_as_well() {
        let queue = QueueLoad { call_seconds: None, in_progress: 12.0, ..queue(1.0, 0.0, 8.0) };
        assert!(is_near(headroom(1, &[queue]).load, 1.5));
    }

    #[test]
    fn the_headroom_is_unknown_if_the_load_of_one_queue_is() {
        let unknown =
            QueueLoad { call_seconds: None, in_progress: 1.0, ..queue(f64::NAN, 0.0, 8.0) };
        assert_eq!(unknown.slots_needed(), None);
        assert_eq!(Headroom::new(2, [queue(10.0, 0.5, 8.0), unknown]), None);
        let unserved = QueueLoad { slots: 0.0, ..unknown };
        assert!(Headroom::new(2, [queue(10.0, 0.5, 8.0), unserved]).is_some());
    }

    #[test]
    fn an_idle_pool_needs_one_worker_and_an_empty_one_is_unknown() {
        let idle = headroom(3, &[queue(0.0, 0.2, 8.0), queue(9.0, 9.0, 0.0)]);
        assert_eq!(idle.workers_free(), 2);
        assert_eq!(Headroom::new(0, [queue(1.0, 1.0, 0.0)]), None);
    }
}
