//! The handler `procedure`: reads the parameters again, calls the procedure, says what came of it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::{Execution, payload};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::outcome::Word;
use crate::problem::{Problem, ProblemKind};
use crate::procedures::arguments::arguments;
use crate::procedures::databases::Database;
use crate::procedures::{Call, CallError, Outcome, Transaction};
use crate::telemetry::traces;

use crate::roles::worker::execution::handlers::{HandlerError, Tools};
use crate::roles::worker::observation::spans;
use crate::roles::worker::{Ending, Job, QueueHandler};
use conclusion::conclude;
use json_sink::Answer;

pub mod conclusion;
mod json;
pub mod json_sink;
mod redact;

/// Makes the handler.
///
/// # Errors
/// `HandlerError` when the queue has no database.
pub fn make(tools: &Tools) -> Result<Arc<dyn QueueHandler>, HandlerError> {
    let database = tools.database.clone().ok_or(HandlerError::NeedsDatabase)?;
    Ok(Arc::new(Procedure { database, answer_bytes_max: tools.answer_bytes_max }))
}

#[derive(Debug)]
struct Procedure {
    database: Database,
    answer_bytes_max: usize,
}

impl QueueHandler for Procedure {
    fn handle<'a>(
        &'a self,
        job: Job,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Ending> {
        Box::pin(self.call(job, deadline, cancel))
    }
}

impl Procedure {
    async fn call(&self, job: Job, deadline: Instant, cancel: &Cancel) -> Ending {
        let endpoint = &job.endpoint;
        let Some(procedure) = &endpoint.procedure else {
            // The catalogue refuses such an endpoint when it is loaded.
            let problem = Problem::new(ProblemKind::Internal);
            return Ending::Problem { problem, outcome: Word::Internal };
        };
        // The message may come from anybody who may publish: what the gateway checked is checked again.
        let arguments = match payload::read(endpoint, &job.request.payload) {
            Ok(values) => arguments(endpoint, values),
            Err(violations) => {
                let problem = Problem::invalid(violations);
                if job.request.dry_run {
                    job.times.mark_rolled_back();
                }
                return Ending::Problem { problem, outcome: Word::BadMessage };
            }
        };
        let mut answer = Answer::new(endpoint.result, self.answer_bytes_max).leaving(&job.times);
        let transaction = match (endpoint.transaction, job.request.dry_run) {
            (_, true) => Transaction::RolledBack,
            (true, false) => Transaction::Committed,
            (false, false) => Transaction::None,
        };
        let call = Call {
            queue: &endpoint.queue,
            procedure,
            arguments: &arguments,
            deadline,
            may_repeat: job.request.execution == Execution::AtLeastOnce,
            transaction,
        };
        let span = traces::open(job.request.traceparent.as_deref());
        let began = Instant::now();
        let backend = &self.database.backend;
        let result = backend.call(call, &mut answer, cancel).await;
        let waited = answer.waited();
        job.times.tell(waited, began.elapsed().saturating_sub(waited));
        let ended = Instant::now();
        if let Err(CallError::NotSent(error)) = &result {
            self.database.note_failure(error);
        }
        if job.request.dry_run && leaves_nothing(&result) {
            job.times.mark_rolled_back();
        }
        let ending = conclude(&job, answer, result);
        if let Some(span) = span {
            let told = spans::call(backend.system(), procedure, ending.outcome());
            span.since(began + waited).end_at(ended, told);
        }
        ending
    }
}

/// Whether nothing of a dry run stays. That its deadline or a cancel stopped it proves nothing.
fn leaves_nothing(result: &Result<Outcome, CallError>) -> bool {
    match result {
        Ok(_) | Err(CallError::NotSent(_)) => true,
        Err(CallError::Sent(error)) => error.is_rolled_back,
    }
}

#[cfg(test)]
mod tests;
