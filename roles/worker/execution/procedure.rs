//! The handler `procedure`: validates the parameters, calls the procedure, and maps its result.

use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::{Execution, payload};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::procedures::arguments::arguments;
use crate::procedures::databases::Database;
use crate::procedures::{Call, CallError, ProcedureResult, SessionContext, Transaction};
use crate::roles::worker::observation::spans;
use crate::telemetry::{context, traces};

use super::handler::{HandlerContext, HandlerError, Job, QueueHandler};
use super::job_result::JobResult;

pub mod answer_sink;
mod csv;
pub mod failure_log;
mod json;
mod response_headers;
pub mod status_mapping;

use answer_sink::AnswerSink;
use status_mapping::map_result;

/// Creates the handler.
///
/// # Errors
/// `HandlerError` if the queue has no database.
pub fn new(context: &HandlerContext) -> Result<Arc<dyn QueueHandler>, HandlerError> {
    let database = context.database.clone().ok_or(HandlerError::NeedsDatabase)?;
    Ok(Arc::new(ProcedureHandler { database, answer_bytes_max: context.answer_bytes_max }))
}

#[derive(Debug)]
struct ProcedureHandler {
    database: Database,
    answer_bytes_max: usize,
}

impl QueueHandler for ProcedureHandler {
    fn handle<'a>(
        &'a self,
        job: Job,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, JobResult> {
        Box::pin(self.call(job, deadline, cancel))
    }
}

impl ProcedureHandler {
    async fn call(&self, job: Job, deadline: Instant, cancel: &Cancel) -> JobResult {
        let endpoint = &job.endpoint;
        let queue = endpoint.queues.first();
        let Some(procedure) = &queue.procedure else {
            // Cannot happen: the catalogue fails to load if an endpoint lacks its procedure.
            let problem = Problem::new(ProblemKind::Internal);
            return JobResult::Problem { problem, outcome: Outcome::Internal };
        };
        let Some(representation) = job.representation() else {
            if job.request.dry_run {
                job.progress.mark_rolled_back();
            }
            let problem = Problem::new(ProblemKind::NotAcceptable);
            return JobResult::Problem { problem, outcome: Outcome::NotAcceptable };
        };
        // The gateway has validated the parameters, but the sender may not be a gateway.
        let arguments = match payload::read(endpoint, &job.request.payload) {
            Ok(values) => arguments(endpoint, values),
            Err(violations) => {
                let problem = Problem::invalid(violations);
                if job.request.dry_run {
                    job.progress.mark_rolled_back();
                }
                return JobResult::Problem { problem, outcome: Outcome::BadMessage };
            }
        };
        let sink = AnswerSink::new(endpoint.result, self.answer_bytes_max)
            .with_representation(representation);
        let mut sink = sink.with_chunks(&job.progress);
        let transaction = match (endpoint.transaction, job.request.dry_run) {
            (_, true) => Transaction::RolledBack,
            (true, false) => Transaction::Committed,
            (false, false) => Transaction::None,
        };
        let call = Call {
            queue: &queue.name,
            procedure,
            arguments: &arguments.procedure,
            session: SessionContext {
                request_id: Some(&*job.request.request_id).filter(|id| !id.is_empty()),
                trace_id: job.request.traceparent.as_deref().and_then(context::trace_id),
                endpoint: Some(job.request.endpoint.as_str()),
                principal: job.request.principal.as_deref(),
                values: &arguments.session,
            },
            deadline,
            may_repeat: job.request.execution == Execution::AtLeastOnce,
            transaction,
        };
        let span = traces::begin_child(job.request.traceparent.as_deref());
        let began = Instant::now();
        let backend = &self.database.backend;
        let result = backend.call(call, &mut sink, cancel).await;
        let waited = sink.waited();
        job.progress.record_call(waited, began.elapsed().saturating_sub(waited));
        let ended = Instant::now();
        if let Err(CallError::NotSent(error)) = &result {
            self.database.record_failure(error);
        }
        if job.request.dry_run && leaves_nothing(&result) {
            job.progress.mark_rolled_back();
        }
        let result = map_result(&job, sink, result);
        if let Some(span) = span {
            let data = spans::procedure_call(backend.system(), procedure, result.outcome());
            span.starting_at(began + waited).end_at(ended, data);
        }
        result
    }
}

/// Returns whether a dry run certainly left no changes. A call that was stopped by a deadline or a
/// cancel may have left changes.
fn leaves_nothing(result: &Result<ProcedureResult, CallError>) -> bool {
    match result {
        Ok(_) | Err(CallError::NotSent(_)) => true,
        Err(CallError::Sent(error)) => error.is_rolled_back,
    }
}

#[cfg(test)]
mod tests;
