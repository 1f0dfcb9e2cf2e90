//! The handler `echo`: answers with the parameters it got. It needs no database: benchmarks and trials use it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::envelope::Final;
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::outcome::Word;

use crate::roles::worker::execution::handlers::{HandlerError, Tools};
use crate::roles::worker::{Ending, Job, QueueHandler};

/// Makes the handler.
///
/// # Errors
/// None: it needs nothing.
pub fn make(_tools: &Tools) -> Result<Arc<dyn QueueHandler>, HandlerError> {
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
    ) -> BoxFuture<'a, Ending> {
        let body = match job.request.payload {
            empty if empty.is_empty() => Bytes::from_static(b"{}"),
            payload => payload,
        };
        let answer = Final::whole(200, "application/json", body, Word::Ok);
        Box::pin(std::future::ready(Ending::Final(answer)))
    }
}
