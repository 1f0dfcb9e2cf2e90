//! How a placement ended.

use std::time::Duration;

use crate::problem::ProblemKind;
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::dispatch::session::Ending;

/// How a placement ended, and what it took.
#[derive(Debug)]
pub struct Placed {
    /// The one answer.
    pub ending: Ending,
    /// When to come again, for what was not executed.
    pub retry_after: Option<Duration>,
    /// How long it waited until a worker had it, or in vain.
    pub waited: Duration,
    /// How long the answer took from then on.
    pub answered: Duration,
    /// Attempts made.
    pub attempts: u32,
    /// What its request and its answer hold.
    pub room: Option<Reservation>,
}

impl Placed {
    pub(super) fn problem(kind: ProblemKind) -> Self {
        let ending = Ending::Problem(kind);
        let (waited, answered) = (Duration::ZERO, Duration::ZERO);
        Self { ending, retry_after: None, waited, answered, attempts: 0, room: None }
    }
}
