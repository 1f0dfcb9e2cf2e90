//! Groups of workers: one of a fixed size, and one that follows the published load as a target-tracking policy does.

use std::collections::VecDeque;

use fjord::fleet::headroom::{Headroom, QueueLoad};
use fjord::telemetry::count_as_f64;
use fjord::telemetry::snapshot::to_count;

use super::queue::SimulatedQueue;
use super::{SLOTS, START_SECONDS};

/// The target of the policy: the load in percent, as in config/ec2/autoscaling.yaml.
const TARGET: f64 = 70.0;
/// The policy removes workers only if the load is below this share of its target.
const LOW: f64 = 0.9;
/// The number of consecutive minutes above the target after which workers are added, and below the target after
/// which one is removed.
const MINUTES_HIGH: usize = 3;
const MINUTES_LOW: usize = 15;
/// The number of seconds of each minute over which fjord ec2 publish measures.
const MEASURED_SECONDS: u64 = 30;

/// The numbers of workers in a group at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerCount {
    /// The number of workers that serve requests.
    pub(super) ready: u64,
    /// The number of running instances, including those that are still starting.
    pub(super) running: u64,
}

/// A group of workers.
pub(super) trait Group {
    /// Returns the group's name in the table.
    fn name(&self) -> String;
    /// Returns the numbers of workers at the start of a second.
    fn advance(&mut self, second: u64, queue: &mut SimulatedQueue) -> WorkerCount;
}

/// A group of a fixed size.
#[derive(Debug)]
pub(super) struct Fixed(u64);

impl Fixed {
    pub(super) fn new(workers: u64) -> Self {
        Self(workers)
    }
}

impl Group for Fixed {
    fn name(&self) -> String {
        format!("fixed, {} workers", self.0)
    }

    fn advance(&mut self, _: u64, _: &mut SimulatedQueue) -> WorkerCount {
        WorkerCount { ready: self.0, running: self.0 }
    }
}

/// A group whose size follows the load.
#[derive(Debug)]
pub(super) struct Following {
    least: u64,
    most: u64,
    ready: u64,
    /// The times at which the starting instances will serve requests.
    starting: VecDeque<u64>,
    /// The published loads of the last few minutes, in percent.
    loads: VecDeque<f64>,
}

impl Following {
    pub(super) fn new(least: u64, most: u64) -> Self {
        Self { least, most, ready: least, starting: VecDeque::new(), loads: VecDeque::new() }
    }

    /// Measures the load as `fjord ec2 publish` does.
    fn load(&self, queue: &mut SimulatedQueue) -> f64 {
        let counts = queue.take_counts();
        let load = QueueLoad {
            arrivals_per_second: count_as_f64(counts.arrivals) / count_as_f64(MEASURED_SECONDS),
            call_seconds: (counts.calls > 0)
                .then(|| counts.call_seconds / count_as_f64(counts.calls)),
            in_progress: count_as_f64(queue.running() + queue.waiting()),
            slots: count_as_f64(self.ready * SLOTS),
        };
        let headroom = Headroom::new(self.ready, [load]).expect("there are workers");
        headroom.load * 100.0
    }

    /// Returns the number of starting instances.
    fn starting(&self) -> u64 {
        u64::try_from(self.starting.len()).expect("a small number")
    }

    /// Decides in the same way as a target-tracking policy.
    fn decide(&mut self, second: u64) {
        let last = |minutes: usize| self.loads.iter().rev().take(minutes);
        let is_high = last(MINUTES_HIGH).len() == MINUTES_HIGH
            && last(MINUTES_HIGH).all(|load| *load > TARGET);
        let is_low = last(MINUTES_LOW).len() == MINUTES_LOW
            && last(MINUTES_LOW).all(|load| *load < LOW * TARGET);
        let load = self.loads.back().copied().unwrap_or_default();
        let wanted = to_count((count_as_f64(self.ready) * load / TARGET).ceil());
        if is_high {
            let wanted = wanted.min(self.most);
            let capacity = self.ready + self.starting();
            self.starting.extend((capacity..wanted).map(|_| second + START_SECONDS));
        } else if is_low
            && self.starting.is_empty()
            && wanted < self.ready
            && self.ready > self.least
        {
            self.ready -= 1;
        }
    }
}

impl Group for Following {
    fn name(&self) -> String {
        format!("follows the load, {} to {} workers", self.least, self.most)
    }

    fn advance(&mut self, second: u64, queue: &mut SimulatedQueue) -> WorkerCount {
        while self.starting.front().is_some_and(|ready| *ready <= second) {
            self.starting.pop_front();
            self.ready += 1;
        }
        match second % 60 {
            0 => {
                queue.take_counts();
            }
            MEASURED_SECONDS => {
                let load = self.load(queue);
                self.loads.push_back(load);
                if self.loads.len() > MINUTES_LOW {
                    self.loads.pop_front();
                }
                self.decide(second);
            }
            _ => {}
        }
        WorkerCount { ready: self.ready, running: self.ready + self.starting() }
    }
}
