//! The queues that requests are sent to, each with its waiters, members and timing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::{EndpointId, QueueName};
use crate::envelope::{RESEND_TOKEN, WORKERS_TOKEN};
use crate::message::{Subject, SubjectError};
use crate::roles::gateway::client::CallerKey;
use crate::telemetry::{Counter, Histogram, LabelValue, counter, gauge, histogram, names};

use deliveries::Deliveries;
use members::Members;
use timing::QueueTiming;
use wait_queue::{QueueAdmission, WaitQueue};

pub mod deliveries;
pub mod members;
pub mod timing;
pub mod wait_queue;

/// A queue, with the gateway's state for it.
#[derive(Debug)]
pub struct GatewayQueue {
    /// The number of the queue within this process. It is part of the reply subjects.
    pub number: u32,
    /// The name of the queue.
    pub name: QueueName,
    /// The subject on which the queue's workers (a NATS queue group) receive requests.
    pub subject: Subject,
    /// The subject for messages to all workers: member queries, and cancellations of requests whose
    /// worker is unknown.
    pub broadcast: Subject,
    /// The subject on which workers are asked to send answers again.
    pub resend: Subject,
    /// The prefix of every subject that addresses one of this queue's workers. Messages about the
    /// queue's requests are sent only to subjects with this prefix.
    pub worker_prefix: Subject,
    /// The requests that wait for a slot.
    pub wait_queue: WaitQueue,
    /// The requests that have been sent.
    pub deliveries: Arc<Deliveries>,
    /// The workers that are known to reply. They are tracked while any worker of the queue is
    /// suspected of hanging.
    pub members: Members,
    /// The reply times of the queue's workers.
    pub timing: QueueTiming,
    /// The metrics of the queue.
    pub metrics: GatewayQueueMetrics,
}

/// The metrics of a queue, looked up once.
pub struct GatewayQueueMetrics {
    /// The number of requests for the queue.
    pub arrivals: Counter,
    /// The waiting times of requests.
    pub wait: Histogram,
}

impl GatewayQueueMetrics {
    fn new(label: &[LabelValue]) -> Self {
        let arrivals = counter(&names::GATEWAY_ARRIVALS, label);
        // Registers the counter at zero, so that a rate includes the first requests.
        arrivals.increment(0);
        Self { arrivals, wait: histogram(&names::GATEWAY_QUEUE_WAIT, label) }
    }
}

impl fmt::Debug for GatewayQueueMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayQueueMetrics").finish_non_exhaustive()
    }
}

/// All queues of this process, which include the queues of every catalogue that the process has
/// loaded.
#[derive(Debug)]
pub struct QueueRegistry {
    prefix: Subject,
    queues: RwLock<QueueTable>,
}

#[derive(Debug, Default)]
struct QueueTable {
    by_name: HashMap<QueueName, Arc<GatewayQueue>>,
    by_number: Vec<Arc<GatewayQueue>>,
}

impl QueueRegistry {
    /// Creates an empty registry. All subjects begin with `prefix`.
    #[must_use]
    pub fn new(prefix: Subject) -> Self {
        Self { prefix, queues: RwLock::default() }
    }

    /// Returns the queue with this name, creating it if necessary.
    ///
    /// # Errors
    /// `SubjectError` if the prefix and the name do not form a subject. Validated names
    /// always form one.
    pub fn get_or_create(&self, name: &QueueName) -> Result<Arc<GatewayQueue>, SubjectError> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.by_name.get(name) {
            return Ok(Arc::clone(queue));
        }
        drop(queues);
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.by_name.get(name) {
            return Ok(Arc::clone(queue));
        }
        let number = u32::try_from(queues.by_number.len()).unwrap_or(u32::MAX);
        let queue = Arc::new(GatewayQueue::new(number, name, &self.prefix)?);
        queues.by_number.push(Arc::clone(&queue));
        queues.by_name.insert(name.clone(), Arc::clone(&queue));
        Ok(queue)
    }

    /// Returns the queue with this number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<Arc<GatewayQueue>> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.by_number.get(usize::try_from(number).ok()?).cloned()
    }

    /// Returns all queues.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<GatewayQueue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).by_number.clone()
    }
}

impl GatewayQueue {
    /// Decides whether to admit a new request of a caller. A worker must accept the request within
    /// `timeout`.
    #[must_use]
    pub fn admit(
        &self,
        (caller, endpoint): (CallerKey, &EndpointId),
        timeout: Duration,
        waiting_max: usize,
        now: Instant,
    ) -> QueueAdmission {
        let first_reply = self.timing.estimate(endpoint).first_reply.min(timeout / 2);
        self.wait_queue.admit(caller, timeout.saturating_sub(first_reply), waiting_max, now)
    }

    /// Creates an empty queue.
    ///
    /// # Errors
    /// `SubjectError` if the prefix and the name do not form a subject.
    pub fn new(number: u32, name: &QueueName, prefix: &Subject) -> Result<Self, SubjectError> {
        let label = [(names::QUEUE, name.to_string())];
        Ok(Self {
            number,
            name: name.clone(),
            subject: prefix.join(format_args!("q.{name}"))?,
            broadcast: prefix.join(format_args!("cancel.{name}"))?,
            resend: prefix.join(format_args!("{RESEND_TOKEN}.{name}"))?,
            worker_prefix: prefix.join(format_args!("{WORKERS_TOKEN}.{name}"))?,
            wait_queue: WaitQueue::new(gauge(&names::GATEWAY_WAITING, &label)),
            deliveries: Arc::new(Deliveries::new(name)),
            members: Members::new(gauge(&names::GATEWAY_SUSPECTED, &label)),
            timing: QueueTiming::default(),
            metrics: GatewayQueueMetrics::new(&label),
        })
    }
}
