//! The `QueueHandler` seam: what a worker does with a message of a queue.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::Endpoint;
use crate::envelope::Request;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;

use super::Ending;

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

/// A request that holds a slot.
#[derive(Clone, Debug)]
pub struct Job {
    /// The endpoint, as this worker's catalogue has it.
    pub endpoint: Arc<Endpoint>,
    /// The request as it came.
    pub request: Request,
}
