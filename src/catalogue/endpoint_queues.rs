//! The queues of an endpoint, and the division of its requests among them.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use siphasher::sip::SipHasher13;

use super::names::{ProcedureName, QueueName};

/// The maximum number of queues of an endpoint.
pub const QUEUES_MAX: usize = 16;
/// The largest weight of a queue. The sum of all weights of an endpoint fits into a `u32`.
pub const WEIGHT_MAX: u32 = 1_000_000;

const _: () = assert!(QUEUES_MAX <= (u32::MAX / WEIGHT_MAX) as usize);

/// A queue that serves an endpoint, and the procedure that the queue's workers call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointQueue {
    /// The name of the queue.
    pub name: QueueName,
    /// The stored procedure, for handlers that call one.
    pub procedure: Option<ProcedureName>,
    /// The weight in the catalogue. The current weight can differ (see `EndpointQueues::weights`).
    pub weight: u32,
}

/// The queues of an endpoint. There is at least one. Clones share their current weights.
#[derive(Clone, Debug)]
pub struct EndpointQueues {
    first: EndpointQueue,
    others: Box<[EndpointQueue]>,
    /// The current weights, in the order of the queues, or `None` if there is only one queue.
    weights: Option<Arc<ArcSwap<Vec<u32>>>>,
}

/// The reason why weights cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// The endpoint does not divide its requests.
    #[error("it has only the queue {0}, so there is nothing to divide")]
    SingleQueue(QueueName),
    /// The endpoint does not have a queue with this name.
    #[error("it has no queue {name:?}: expected one of {known}")]
    UnknownQueue {
        /// The name.
        name: String,
        /// The names of all queues of the endpoint.
        known: String,
    },
    /// A weight exceeds `WEIGHT_MAX`.
    #[error("queue {name}: expected a weight from 0 to {max}, got {weight}", max = WEIGHT_MAX)]
    TooLarge {
        /// The name of the queue.
        name: String,
        /// The weight.
        weight: u32,
    },
    /// No queue would get requests.
    #[error("the weights of all its queues would be 0: expected a positive sum")]
    AllZero,
}

impl EndpointQueues {
    /// Creates the queues from a list. Returns `None` if the list is empty.
    #[must_use]
    pub fn new(queues: Vec<EndpointQueue>) -> Option<Self> {
        let mut queues = queues.into_iter();
        let first = queues.next()?;
        let others: Box<[EndpointQueue]> = queues.collect();
        let weights = (!others.is_empty()).then(|| {
            let weights = std::iter::once(&first).chain(&others).map(|queue| queue.weight);
            Arc::new(ArcSwap::from_pointee(weights.collect()))
        });
        Some(Self { first, others, weights })
    }

    /// Returns all queues, in the order of the catalogue.
    pub fn iter(&self) -> impl Iterator<Item = &EndpointQueue> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns the first queue of the catalogue. It is the only queue unless `has_several` returns true.
    #[must_use]
    pub fn first(&self) -> &EndpointQueue {
        &self.first
    }

    /// Returns whether there are several queues.
    #[must_use]
    pub fn has_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// Returns the queue at an index that `choose` or `position` has returned, or the first queue if the index is out of range.
    #[must_use]
    pub fn get(&self, index: usize) -> &EndpointQueue {
        let other = index.checked_sub(1).and_then(|index| self.others.get(index));
        other.unwrap_or(&self.first)
    }

    /// Returns the index of the queue with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|queue| queue.name.as_str() == name)
    }

    /// Returns the names of all queues, separated by commas.
    #[must_use]
    pub fn names(&self) -> String {
        self.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Returns all queues with their current weights.
    #[must_use]
    pub fn weights(&self) -> Vec<(&EndpointQueue, u32)> {
        match &self.weights {
            None => vec![(&self.first, self.first.weight)],
            Some(weights) => self.iter().zip(weights.load().iter().copied()).collect(),
        }
    }

    /// Returns whether a current weight differs from the weight in the catalogue.
    #[must_use]
    pub fn has_changed_weights(&self) -> bool {
        self.weights().iter().any(|(queue, weight)| queue.weight != *weight)
    }

    /// Changes the current weights of some queues. The other weights do not change.
    ///
    /// # Errors
    /// Returns `WeightError` if a queue or a weight is invalid, or if no queue would get requests. In that case, no
    /// weight is changed.
    pub fn set_weights(&self, changes: &BTreeMap<String, u32>) -> Result<(), WeightError> {
        let Some(weights) = &self.weights else {
            return Err(WeightError::SingleQueue(self.first.name.clone()));
        };
        let mut new: Vec<u32> = weights.load().to_vec();
        for (name, weight) in changes {
            let position = self.position(name).and_then(|position| new.get_mut(position));
            let Some(position) = position else {
                return Err(WeightError::UnknownQueue { name: name.clone(), known: self.names() });
            };
            if *weight > WEIGHT_MAX {
                return Err(WeightError::TooLarge { name: name.clone(), weight: *weight });
            }
            *position = *weight;
        }
        if new.iter().all(|weight| *weight == 0) {
            return Err(WeightError::AllZero);
        }
        weights.store(Arc::new(new));
        Ok(())
    }

    /// Chooses a queue for a request and returns its index. Without a key, the choice is random. Requests with the same
    /// key get the same queue as long as the weights do not change. Does not allocate.
    #[must_use]
    pub fn choose(&self, key: Option<&RequestKey<'_>>) -> usize {
        let Some(weights) = &self.weights else { return 0 };
        let weights = weights.load();
        match key {
            None => choose_random(&weights),
            Some(key) => self.choose_by_key(&weights, key),
        }
    }

    /// Chooses a queue by weighted rendezvous hashing. If the weight of a queue changes, keys move only to or from that
    /// queue.
    fn choose_by_key(&self, weights: &[u32], key: &RequestKey<'_>) -> usize {
        let score = |queue: &EndpointQueue, weight: u32| {
            // The value is greater than 0 and less than 1, so that its logarithm is finite and negative.
            let uniform = (f64::from(key.hash(&queue.name)) + 0.5) / (f64::from(u32::MAX) + 1.0);
            f64::from(weight) / -uniform.ln()
        };
        let queues = self.iter().zip(weights.iter().copied()).enumerate();
        let scores = queues.filter(|(_, (_, weight))| *weight > 0);
        let scores = scores.map(|(index, (queue, weight))| (index, score(queue, weight)));
        scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(index, _)| index)
    }
}

fn choose_random(weights: &[u32]) -> usize {
    let sum: u32 = weights.iter().sum();
    if sum == 0 {
        debug_assert!(false, "weights always have a positive sum");
        return 0;
    }
    let mut rest = rand::random_range(0..sum);
    for (index, weight) in weights.iter().enumerate() {
        match rest.checked_sub(*weight) {
            Some(less) => rest = less,
            None => return index,
        }
    }
    0
}

/// The identity of a request that a client may repeat: the idempotency key, and the caller that the key belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey<'a> {
    /// The caller.
    pub principal: Option<&'a str>,
    /// The idempotency key.
    pub idempotency_key: &'a str,
}

impl RequestKey<'_> {
    /// Hashes the key for a queue. All gateways and all versions of fjord must compute the same value, so that a repeated
    /// request gets the same queue from each of them. The algorithm must therefore never change.
    fn hash(&self, queue: &QueueName) -> u32 {
        let mut hasher = SipHasher13::new();
        for text in [queue.as_str(), self.principal.unwrap_or_default(), self.idempotency_key] {
            hasher.write(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.write(text.as_bytes());
        }
        u32::try_from(hasher.finish() >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(weights: &[(&str, u32)]) -> EndpointQueues {
        let queue = |(name, weight): &(&str, u32)| EndpointQueue {
            name: QueueName::new(name).unwrap(),
            procedure: None,
            weight: *weight,
        };
        EndpointQueues::new(weights.iter().map(queue).collect()).unwrap()
    }

    fn changes(weights: &[(&str, u32)]) -> BTreeMap<String, u32> {
        weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    /// Asserts that a count lies within six standard deviations of the mean of its binomial distribution. A correct count lies
    /// outside this range about twice in a billion runs.
    fn check_count(count: u32, trials: u32, probability: f64) {
        let mean = f64::from(trials) * probability;
        let deviation = (mean * (1.0 - probability)).sqrt();
        let difference = (f64::from(count) - mean).abs();
        assert!(difference <= 6.0 * deviation, "{count} of {trials}, expected {mean}");
    }

    fn keyed(queues: &EndpointQueues, number: u32) -> usize {
        let key = format!("key-{number}");
        queues.choose(Some(&RequestKey { principal: Some("ann"), idempotency_key: &key }))
    }

    #[test]
    fn requests_are_divided_by_weight() {
        const TRIALS: u32 = 100_000;
        let queues = queues(&[("a", 80), ("none", 0), ("b", 15), ("c", 5)]);
        let (mut random, mut by_key) = ([0; 4], [0; 4]);
        for number in 0..TRIALS {
            random[queues.choose(None)] += 1;
            by_key[keyed(&queues, number)] += 1;
        }
        for counts in [random, by_key] {
            for (count, weight) in counts.into_iter().zip([0.8, 0.0, 0.15, 0.05]) {
                check_count(count, TRIALS, weight);
            }
        }
    }

    #[test]
    fn a_key_keeps_its_queue_unless_that_queue_loses_weight() {
        let queues = queues(&[("a", 95), ("b", 5), ("c", 0)]);
        let before: Vec<usize> = (0..2000).map(|number| keyed(&queues, number)).collect();
        assert!((0..2000).all(|number| keyed(&queues, number) == before[number as usize]));
        queues.set_weights(&changes(&[("b", 20)])).unwrap();
        let after: Vec<usize> = (0..2000).map(|number| keyed(&queues, number)).collect();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().count() > 0 && moved.clone().all(|(_, after)| *after == 1));
        queues.set_weights(&changes(&[("b", 0)])).unwrap();
        assert!((0..2000).all(|number| keyed(&queues, number) == 0));
    }

    #[test]
    fn the_queue_of_a_key_is_the_same_in_every_release() {
        let queues = queues(&[("a", 1), ("b", 1)]);
        let chosen: Vec<usize> = (0..16).map(|number| keyed(&queues, number)).collect();
        assert_eq!(chosen, [1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1]);
        let choose = |principal: Option<&str>, idempotency_key: &str| {
            queues.choose(Some(&RequestKey { principal, idempotency_key }))
        };
        let callers = (0..32).map(|number| choose(Some(&*number.to_string()), "k"));
        assert!(callers.collect::<std::collections::BTreeSet<_>>().len() == 2);
    }

    #[test]
    fn one_queue_gets_every_request() {
        let queues = queues(&[("a", 1)]);
        assert_eq!((queues.choose(None), keyed(&queues, 1)), (0, 0));
        assert!(!queues.has_several() && queues.weights.is_none());
        let error = queues.set_weights(&changes(&[("a", 2)])).unwrap_err();
        assert_eq!(error.to_string(), "it has only the queue a, so there is nothing to divide");
    }

    #[test]
    fn invalid_weights_change_nothing() {
        let queues = queues(&[("a", 95), ("b", 5)]);
        for (weights, words) in [
            (&[("c", 1), ("a", 0)][..], "it has no queue \"c\": expected one of a, b"),
            (
                &[("a", 0), ("b", WEIGHT_MAX + 1)],
                "expected a weight from 0 to 1000000, got 1000001",
            ),
            (&[("a", 0), ("b", 0)], "expected a positive sum"),
        ] {
            let error = queues.set_weights(&changes(weights)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!queues.has_changed_weights());
        }
        queues.set_weights(&changes(&[("b", 0)])).unwrap();
        assert!(queues.has_changed_weights());
        let weights: Vec<u32> = queues.weights().iter().map(|(_, weight)| *weight).collect();
        assert_eq!(weights, [95, 0]);
        let error = queues.set_weights(&changes(&[("a", 0)])).unwrap_err();
        assert_eq!(error, WeightError::AllZero);
    }
}
