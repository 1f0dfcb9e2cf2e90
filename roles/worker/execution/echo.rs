//! The handler `echo`, which answers with the parameters of the request. It needs no database, so
//! it is useful for benchmarks and trials.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::envelope::Final;
use crate::envelope::reply::JSON;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::outcome::Outcome;

use super::handler::{HandlerContext, HandlerError, Job, QueueHandler};
use super::job_result::JobResult;

/// Creates the handler.
///
/// # Errors
/// Never fails.
pub fn new(_context: &HandlerContext) -> Result<Arc<dyn QueueHandler>, HandlerError> {
    Ok(Arc::new(Echo))
}

#[derive(Debug)]
struct Echo;

impl QueueHandler for Echo {
    fn handle<'a>(
        &'a self,
        job: Job,
        _deadline: Instant,
        _cancel: &'a Cancel,
    ) -> BoxFuture<'a, JobResult> {
        let body = match job.request.payload {
            empty if empty.is_empty() => Bytes::from_static(b"{}"),
            payload => payload,
        };
        let answer = Final::whole(200, JSON, body, Outcome::Ok);
        Box::pin(std::future::ready(JobResult::Final(answer)))
    }
}
