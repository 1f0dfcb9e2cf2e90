//! Checks each message. It must be a request for an endpoint of this queue, with time left for the
//! call.

use std::sync::Arc;

use crate::envelope::{Final, RefusalReason, Reply};
use crate::message::Subject;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::executor::AcceptedJob;
use crate::roles::worker::execution::handler::Job;
use crate::roles::worker::execution::job_result::JobResult;
use crate::roles::worker::intake::message::ReceivedMessage;
use crate::telemetry::conditions::{self, ConditionKind, MALFORMED};
use crate::telemetry::context::LogContext;
use crate::telemetry::{counter, names};

use super::Queue;

/// The condition in which the gateway's catalogue allows dry runs of an endpoint, but the worker's
/// does not.
const NO_DRY_RUN: ConditionKind =
    ConditionKind::new("dry runs of an endpoint that does not permit them");
/// The condition in which the gateway's catalogue has an endpoint, but the worker's does not.
const UNKNOWN_ENDPOINT: ConditionKind =
    ConditionKind::new("requests for an endpoint that is not served");

/// A request that has passed all checks.
#[derive(Debug)]
pub struct AdmittedRequest {
    pub(super) accepted: AcceptedJob,
    /// The measured duration of calls to the request's endpoint.
    pub(super) call_time: Arc<CallTime>,
    /// The ids that are logged with every line about the request.
    pub(super) ids: Arc<LogContext>,
}

/// A message that is not admitted, with the cause and the subject to report it to.
pub(super) struct RejectedMessage {
    cause: Cause,
    ids: Arc<LogContext>,
    reply: Option<Subject>,
}

enum Cause {
    Refused(RefusalReason),
    Malformed(Problem),
    NoDryRun,
}

impl Queue {
    /// Checks a message. The sender is not trusted.
    pub(super) fn admit(
        &self,
        message: ReceivedMessage,
    ) -> Result<AdmittedRequest, RejectedMessage> {
        let ReceivedMessage { request, reply, ids } = message;
        let queue = &self.subjects.name;
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                if conditions::raise(&MALFORMED, queue.as_str()) {
                    tracing::warn!(%queue, %error, "a message violates the protocol");
                }
                let problem = Problem::with_detail(ProblemKind::InvalidRequest, error.to_string());
                return Err(RejectedMessage { cause: Cause::Malformed(problem), ids, reply });
            }
        };
        let endpoint = &request.endpoint;
        let endpoints = self.endpoints.load();
        let Some(served) = endpoints.get(endpoint) else {
            if conditions::raise(&UNKNOWN_ENDPOINT, queue.as_str()) {
                tracing::error!(
                    %queue, %endpoint,
                    "a gateway sends requests for an endpoint that this worker's catalogue does not assign to this queue"
                );
            }
            let detail = "gateway and worker have different catalogues";
            let problem = Problem::with_detail(ProblemKind::Internal, detail);
            return Err(RejectedMessage { cause: Cause::Malformed(problem), ids, reply });
        };
        if request.dry_run && !served.endpoint.dry_run {
            if conditions::raise(&NO_DRY_RUN, queue.as_str()) {
                tracing::error!(
                    %queue, %endpoint,
                    "a gateway sends dry runs of an endpoint for which this worker's catalogue does not permit dry runs"
                );
            }
            return Err(RejectedMessage { cause: Cause::NoDryRun, ids, reply });
        }
        if request.timeout.is_zero() {
            return Err(RejectedMessage {
                cause: Cause::Refused(RefusalReason::Expired),
                ids,
                reply,
            });
        }
        let endpoint = Arc::clone(&served.endpoint);
        let job = Box::new(Job { endpoint, request, progress: Arc::default() });
        let accepted = AcceptedJob { job, handler: Arc::clone(&served.handler), reply };
        Ok(AdmittedRequest { accepted, call_time: Arc::clone(&served.call_time), ids })
    }

    /// Replies to a message that is not admitted.
    pub(super) fn reject(&self, RejectedMessage { cause, ids, reply }: RejectedMessage) {
        let (problem, is_rolled_back) = match cause {
            Cause::Refused(reason) => return self.refuse(reason, reply),
            Cause::Malformed(problem) => {
                counter(&names::WORKER_MALFORMED, &[]).increment(1);
                (problem, false)
            }
            Cause::NoDryRun => {
                // A gateway with this catalogue would return the same answer. Nothing was executed,
                // so the dry run left no changes.
                let detail = "this worker's catalogue does not permit dry runs of the endpoint";
                (Problem::with_detail(ProblemKind::InvalidRequest, detail), true)
            }
        };
        let Some(reply) = reply else { return };
        let result = JobResult::Problem { problem, outcome: Outcome::BadMessage };
        let answer = Final { is_rolled_back, ..result.into_final(&ids.request_id) };
        self.executor.replies.try_send(Reply::Final(answer), reply);
    }
}
