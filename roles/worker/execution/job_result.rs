//! How a job ended: what becomes of it on the wire, and the word for it in metrics.

use bytes::Bytes;

use crate::envelope::Final;
use crate::outcome::Word;
use crate::problem::{PROBLEM_JSON, Problem};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer. Its `outcome` is the word.
    Final(Final),
    /// With a problem that the client is told of.
    Problem {
        /// The problem.
        problem: Problem,
        /// The word for metrics and the `Fjord-Outcome` header.
        outcome: Word,
    },
    /// It certainly had no effect and another worker may do it: a refusal, not an answer.
    NotExecuted {
        /// What a client is told when nobody else can do it either.
        problem: Problem,
        /// The word for metrics.
        outcome: Word,
    },
    /// It may have run and its outcome is lost with the database's connection; a second execution does no harm. Nothing is
    /// said: the gateway hears no more of it, as of a worker that died, and sends it to another.
    Unanswered {
        /// What a client would be told.
        problem: Problem,
        /// The word for metrics.
        outcome: Word,
    },
}

/// How a job ended whose call was sent to the database: a refusal is none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentEnding {
    /// With an answer.
    Final(Final),
    /// With a problem that the client is told of.
    Problem {
        /// The problem.
        problem: Problem,
        /// The word for metrics.
        outcome: Word,
    },
    /// With nothing that may be said: see `Ending::Unanswered`.
    Unanswered {
        /// What a client would be told.
        problem: Problem,
        /// The word for metrics.
        outcome: Word,
    },
}

impl From<SentEnding> for Ending {
    fn from(ending: SentEnding) -> Self {
        match ending {
            SentEnding::Final(answer) => Self::Final(answer),
            SentEnding::Problem { problem, outcome } => Self::Problem { problem, outcome },
            SentEnding::Unanswered { problem, outcome } => Self::Unanswered { problem, outcome },
        }
    }
}

impl Ending {
    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Word {
        match self {
            Self::Final(answer) => answer.outcome,
            Self::Problem { outcome, .. }
            | Self::NotExecuted { outcome, .. }
            | Self::Unanswered { outcome, .. } => *outcome,
        }
    }

    /// The final reply: a problem as its document (RFC 9457).
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemKind;

    #[test]
    fn a_problem_becomes_a_final_that_says_which_request_it_was() {
        let problem = Problem::with_detail(ProblemKind::Refused(422), "too young");
        let answer = Ending::Problem { problem, outcome: Word::SqlUser }.into_final("r-1");
        assert_eq!((answer.status, &*answer.content_type), (422, PROBLEM_JSON));
        assert_eq!(answer.outcome, Word::SqlUser);
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["detail"], "too young");
        assert_eq!(document["request_id"], "r-1");
    }
}
