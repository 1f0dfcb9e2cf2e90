//! The queues that endpoints go to: subject and hold of each, for as long as the process lives.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use crate::catalogue::QueueName;
use crate::envelope::{REPEAT_TOKEN, WORKERS_TOKEN};
use crate::message::{Subject, SubjectError};
use crate::telemetry::{Counter, Histogram, LabelValue, counter, gauge, histogram, names};

use super::hold::Hold;
use super::members::Members;
use super::timing::Timing;

/// One queue as the gateway sees it.
#[derive(Debug)]
pub struct Queue {
    /// Its number within this process: part of the reply subjects.
    pub number: u32,
    /// Its name.
    pub name: QueueName,
    /// Where requests go.
    pub subject: Subject,
    /// Where a cancel goes when nobody knows which worker has the call.
    pub cancel: Subject,
    /// Where its workers are asked for answers again.
    pub repeat: Subject,
    /// Above the subjects of all its workers: nothing of its requests goes anywhere else.
    pub workers: Subject,
    /// Requests that wait.
    pub hold: Hold,
    /// Which of its workers answer, once one did not.
    pub members: Members,
    /// How long its workers take.
    pub timing: Timing,
    /// Its metrics.
    pub figures: Figures,
}

/// A queue's metrics, looked up once.
pub struct Figures {
    /// Requests that were to be placed.
    pub arrivals: Counter,
    /// How long they waited.
    pub wait: Histogram,
}

impl Figures {
    fn of(label: &[LabelValue]) -> Self {
        let arrivals = counter(&names::GATEWAY_ARRIVALS, label);
        // At zero from the start, so that the first requests count in a rate.
        arrivals.increment(0);
        Self { arrivals, wait: histogram(&names::GATEWAY_QUEUE_WAIT, label) }
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

/// Every queue that was ever used. It only grows, at a reload, by what the catalogue names.
#[derive(Debug)]
pub struct Queues {
    prefix: Subject,
    all: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<QueueName, Arc<Queue>>,
    by_number: Vec<Arc<Queue>>,
}

impl Queues {
    /// No queues yet.
    #[must_use]
    pub fn new(prefix: Subject) -> Self {
        Self { prefix, all: RwLock::default() }
    }

    /// The queue of this name; made when it is new.
    ///
    /// # Errors
    /// `SubjectError` when prefix and name make no subject: impossible for checked names.
    pub fn named(&self, name: &QueueName) -> Result<Arc<Queue>, SubjectError> {
        let known = self.all.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(queue) = known.by_name.get(name) {
            return Ok(Arc::clone(queue));
        }
        drop(known);
        let mut all = self.all.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(queue) = all.by_name.get(name) {
            return Ok(Arc::clone(queue));
        }
        let label = [(names::QUEUE, name.to_string())];
        let queue = Arc::new(Queue {
            number: u32::try_from(all.by_number.len()).unwrap_or(u32::MAX),
            name: name.clone(),
            subject: self.prefix.join(format_args!("q.{name}"))?,
            cancel: self.prefix.join(format_args!("cancel.{name}"))?,
            repeat: self.prefix.join(format_args!("{REPEAT_TOKEN}.{name}"))?,
            workers: self.prefix.join(format_args!("{WORKERS_TOKEN}.{name}"))?,
            figures: Figures::of(&label),
            members: Members::new(gauge(&names::GATEWAY_SUSPECTED, &label)),
            timing: Timing::default(),
            hold: Hold::new(gauge(&names::GATEWAY_WAITING, &label)),
        });
        all.by_number.push(Arc::clone(&queue));
        all.by_name.insert(name.clone(), Arc::clone(&queue));
        Ok(queue)
    }

    /// The queue of this number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Option<Arc<Queue>> {
        let all = self.all.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.by_number.get(usize::try_from(number).ok()?).cloned()
    }

    /// Every queue.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Queue>> {
        self.all.read().unwrap_or_else(std::sync::PoisonError::into_inner).by_number.clone()
    }
}
