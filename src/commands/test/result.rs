//! The result of an example, and the reason why there is no answer.

use std::sync::Arc;
use std::time::Duration;

use super::evaluation::{Evaluation, HttpAnswer};
use crate::catalogue::{Endpoint, Example};

/// The result of one example.
#[derive(Debug)]
pub(super) struct ExampleResult {
    pub(super) endpoint: Arc<Endpoint>,
    /// The index of the example within its endpoint.
    pub(super) index: usize,
    pub(super) outcome: ExampleOutcome,
    pub(super) duration: Duration,
    /// The status of the answer, if any.
    pub(super) status: Option<u16>,
    /// The answer, if it may be needed for `--update`.
    pub(super) received: Option<HttpAnswer>,
}

/// How an example ended.
#[derive(Debug)]
pub(super) enum ExampleOutcome {
    /// The answer matches the expected one.
    Passed(Evaluation),
    /// The answer differs from the expected one.
    Failed(Evaluation),
    /// No answer was received, for this reason.
    Error(String),
    /// The example was not run, for this reason.
    Skipped(String),
}

/// The reason why no answer was received.
#[derive(Debug)]
pub(super) enum TargetError {
    /// No request can reach the target.
    Unreachable(String),
    /// The target accepted the request but did not answer it.
    NoAnswer(String),
    /// The request could not be sent, or the answer was incomplete or too large.
    Failed(String),
}

impl ExampleOutcome {
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Error(_))
    }

    /// Returns the name of the outcome in reports.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Failed(_) => "failed",
            Self::Error(_) => "error",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Returns the lines that explain a failure.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Passed(_) => Vec::new(),
            Self::Failed(evaluation) => evaluation.lines(),
            Self::Error(reason) | Self::Skipped(reason) => vec![reason.clone()],
        }
    }

    /// Returns the members of the answer that `returns` does not declare.
    pub(super) fn undeclared(&self) -> &[String] {
        match self {
            Self::Passed(evaluation) | Self::Failed(evaluation) => &evaluation.undeclared,
            Self::Error(_) | Self::Skipped(_) => &[],
        }
    }
}

impl ExampleResult {
    pub(super) fn example(&self) -> Option<&Example> {
        self.endpoint.examples.get(self.index)
    }

    pub(super) fn name(&self) -> &str {
        self.example().map_or("", |example| &example.name)
    }

    /// Returns the name by which the arguments select the example.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.endpoint.id, self.name())
    }
}
