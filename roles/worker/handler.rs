//! The `QueueHandler` seam: what a worker does with a message of a queue.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::envelope::{Final, Request};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::problem::Problem;

/// What a worker does with a message of a queue.
pub trait QueueHandler: Debug + Send + Sync {
    /// Does the job before its deadline; the slot is held until this returns.
    ///
    /// Not safe to drop: the `cancel` sign is given instead, and the return waited for.
    fn handle<'a>(
        &'a self,
        job: Job,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Ending>;
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An answer.
    Final(Final),
    /// A failure that the caller is told, with its word for metrics and logs.
    Problem(Problem, &'static str),
    /// It certainly did not run: it is refused, and may be sent elsewhere.
    NotExecuted,
}

/// A request that holds a slot.
#[derive(Clone, Debug)]
pub struct Job {
    /// The endpoint, as this worker's catalogue has it.
    pub endpoint: Arc<Endpoint>,
    /// The request as it came.
    pub request: Request,
}
