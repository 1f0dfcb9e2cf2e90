//! The outcome that logs and metrics show for each kind of problem.

use super::ProblemKind;
use crate::outcome::Outcome;

impl ProblemKind {
    /// Returns the outcome of a request that is answered with this problem.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::InvalidRequest | Self::MalformedBody => Outcome::BadRequest,
            Self::Unauthenticated => Outcome::Unauthorized,
            Self::Forbidden => Outcome::Forbidden,
            Self::NoRoute => Outcome::NoRoute,
            Self::NoRow => Outcome::NoRow,
            Self::MethodNotAllowed => Outcome::MethodNotAllowed,
            Self::NotImplemented => Outcome::NotImplemented,
            Self::NotAcceptable => Outcome::NotAcceptable,
            Self::RequestTimeout => Outcome::RequestTimeout,
            Self::Conflict => Outcome::SqlConflict,
            Self::PreconditionFailed => Outcome::PreconditionFailed,
            Self::BodyTooLarge => Outcome::BodyTooLarge,
            Self::UriTooLong => Outcome::UriTooLong,
            Self::UnsupportedMediaType => Outcome::UnsupportedMediaType,
            Self::ExpectationFailed => Outcome::ExpectationFailed,
            Self::Misdirected => Outcome::Misdirected,
            Self::RateLimited => Outcome::RateLimited,
            Self::TooManyInFlight => Outcome::TooManyInFlight,
            Self::HeadersTooLarge => Outcome::HeadersTooLarge,
            Self::ProcedureError(_) => Outcome::SqlUser,
            Self::Internal => Outcome::Internal,
            Self::BadAnswer => Outcome::BadAnswer,
            Self::NotExecuted => Outcome::NotExecuted,
            Self::Busy => Outcome::Busy,
            Self::NoWorkers => Outcome::NoWorkers,
            Self::QueuePaused => Outcome::QueuePaused,
            Self::Overloaded => Outcome::Overloaded,
            Self::Draining => Outcome::Draining,
            Self::BusDown => Outcome::BusDown,
            Self::BackendDown => Outcome::BackendDown,
            Self::AttemptTimedOut => Outcome::AttemptTimeout,
            Self::SessionTimedOut => Outcome::SessionTimeout,
            Self::Expired => Outcome::Expired,
            Self::Cancelled => Outcome::Cancelled,
            Self::BadAnswerOutcomeUnknown | Self::OutcomeUnknown => Outcome::OutcomeUnknown,
        }
    }
}
