//! Creates the queues of a worker.

use std::sync::Arc;

use crate::config::WorkerConfig;
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::intake::queue::Queue;
use crate::roles::worker::intake::slots::Slots;
use crate::roles::worker::prepare::PreparedQueue;

/// Creates the prepared queues.
pub(super) fn create(
    prepared: Vec<PreparedQueue>,
    worker: &WorkerConfig,
    executor: &Arc<Executor>,
) -> Vec<Arc<Queue>> {
    let create = |queue: PreparedQueue| {
        let PreparedQueue { subjects, config, endpoints } = queue;
        let slots = Slots::new(config.concurrency, worker.refused_max, worker.offer_timeout);
        Arc::new(Queue::new(subjects, endpoints, slots, Arc::clone(executor)))
    };
    prepared.into_iter().map(create).collect()
}
