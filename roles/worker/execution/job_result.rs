//! The result of a job, and its conversion into a reply.

use bytes::Bytes;

use crate::envelope::{Final, RefusalReason};
use crate::outcome::Outcome;
use crate::problem::{PROBLEM_JSON, Problem, ProblemKind};

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// An answer. Its `outcome` is the outcome of the job.
    Final(Final),
    /// A problem to report to the client.
    Problem {
        /// The problem.
        problem: Problem,
        /// The outcome for metrics and the `Fjord-Outcome` header.
        outcome: Outcome,
    },
    /// The request certainly had no effect. It is refused, so that another worker can execute it.
    NotExecuted {
        /// The problem, in case no other worker can execute it either.
        problem: Problem,
        /// The outcome for metrics.
        outcome: Outcome,
    },
    /// The connection to the database was lost during the call. The call may have been executed,
    /// but executing it again does no harm. The worker therefore sends no reply. The gateway then
    /// treats the request as lost and sends it to another worker.
    Unanswered {
        /// The problem that describes the failure.
        problem: Problem,
        /// The outcome for metrics.
        outcome: Outcome,
    },
}

/// The result of a job whose call was sent to the database. It cannot be a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentCallResult {
    /// See `JobResult::Final`.
    Final(Final),
    /// See `JobResult::Problem`.
    Problem {
        /// The problem.
        problem: Problem,
        /// The outcome for metrics and the `Fjord-Outcome` header.
        outcome: Outcome,
    },
    /// See `JobResult::Unanswered`.
    Unanswered {
        /// The problem that describes the failure.
        problem: Problem,
        /// The outcome for metrics.
        outcome: Outcome,
    },
}

/// The reply that reports a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobReply {
    /// A refusal.
    Refused(RefusalReason),
    /// No reply.
    NoReply,
    /// A final.
    Final(Final),
}

impl From<SentCallResult> for JobResult {
    fn from(result: SentCallResult) -> Self {
        match result {
            SentCallResult::Final(answer) => Self::Final(answer),
            SentCallResult::Problem { problem, outcome } => Self::Problem { problem, outcome },
            SentCallResult::Unanswered { problem, outcome } => {
                Self::Unanswered { problem, outcome }
            }
        }
    }
}

impl JobResult {
    /// Returns the outcome for metrics and logs.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Final(answer) => answer.outcome,
            Self::Problem { outcome, .. }
            | Self::NotExecuted { outcome, .. }
            | Self::Unanswered { outcome, .. } => *outcome,
        }
    }

    /// Converts the result into a reply. `parts` is the number of parts of the answer that have
    /// already been sent.
    #[must_use]
    pub fn into_reply(self, request_id: &str, parts: u32) -> JobReply {
        if parts > 0 {
            return JobReply::Final(self.into_last(request_id, parts));
        }
        match self {
            Self::NotExecuted { problem, .. } if problem.kind == ProblemKind::Expired => {
                JobReply::Refused(RefusalReason::Expired)
            }
            Self::NotExecuted { .. } => JobReply::Refused(RefusalReason::Unavailable),
            Self::Unanswered { .. } => JobReply::NoReply,
            result @ (Self::Final(_) | Self::Problem { .. }) => {
                JobReply::Final(result.into_final(request_id))
            }
        }
    }

    /// Converts the result into a final with the answer or the problem document (RFC 9457).
    #[must_use]
    pub fn into_final(self, request_id: &str) -> Final {
        match self {
            Self::Final(answer) => answer,
            Self::Problem { problem, outcome }
            | Self::NotExecuted { problem, outcome }
            | Self::Unanswered { problem, outcome } => {
                let body = Bytes::from(problem.to_json(request_id));
                Final::whole(problem.kind.status().as_u16(), PROBLEM_JSON, body, outcome)
            }
        }
    }

    /// Converts the result into the final that follows `parts` parts. The result is never reported
    /// as a refusal.
    fn into_last(self, request_id: &str, parts: u32) -> Final {
        let mut last = Final { parts, ..self.into_final(request_id) };
        if last.status >= 500 {
            // The status of the response was sent with the first part. This final only reports the
            // failure, so its body is dropped. A worker never sends 503.
            last.status = if last.status == 503 { 500 } else { last.status };
            (last.body, last.content_type) = (Bytes::new(), "".into());
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn final_of(reply: JobReply) -> Final {
        match reply {
            JobReply::Final(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_problem_becomes_a_final_with_the_request_id() {
        let problem = Problem::with_detail(ProblemKind::ProcedureError(422), "too young");
        let result = JobResult::Problem { problem, outcome: Outcome::SqlUser };
        let answer = final_of(result.into_reply("r-1", 0));
        assert_eq!((answer.status, &*answer.content_type), (422, PROBLEM_JSON));
        assert_eq!(answer.outcome, Outcome::SqlUser);
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["detail"], "too young");
        assert_eq!(document["request_id"], "r-1");
    }

    #[test]
    fn a_request_is_refused_only_before_its_first_part() {
        for (kind, reason, status) in [
            (ProblemKind::Expired, RefusalReason::Expired, 504),
            (ProblemKind::BackendDown, RefusalReason::Unavailable, 500),
        ] {
            let result = JobResult::NotExecuted {
                problem: Problem::new(kind),
                outcome: Outcome::BackendDown,
            };
            assert_eq!(result.clone().into_reply("r", 0), JobReply::Refused(reason));
            let answer = final_of(result.into_reply("r", 3));
            assert_eq!((answer.status, answer.parts), (status, 3), "{kind:?}");
            assert!(answer.body.is_empty());
        }
    }

    #[test]
    fn a_lost_call_gets_no_reply_unless_parts_were_sent() {
        let problem = Problem::new(ProblemKind::BadAnswer);
        let result = JobResult::Unanswered { problem, outcome: Outcome::SqlLost };
        assert_eq!(result.clone().into_reply("r", 0), JobReply::NoReply);
        assert_eq!(final_of(result.into_reply("r", 1)).status, 502);
    }
}
