//! The outcome that logs and metrics show for each kind of problem.

use super::ProblemKind;
use crate::outcome::Word;

impl ProblemKind {
    /// Returns the outcome of a request that is answered with this problem.
    #[must_use]
    pub fn outcome(self) -> Word {
        match self {
            Self::InvalidRequest | Self::MalformedBody => Word::BadRequest,
            Self::Unauthenticated => Word::Unauthorized,
            Self::Forbidden => Word::Forbidden,
            Self::NoRoute => Word::NoRoute,
            Self::NoRow => Word::NoRow,
            Self::MethodNotAllowed => Word::MethodNotAllowed,
            Self::NotImplemented => Word::NotImplemented,
            Self::NotAcceptable => Word::NotAcceptable,
            Self::RequestTimeout => Word::RequestTimeout,
            Self::Conflict => Word::SqlConflict,
            Self::BodyTooLarge => Word::BodyTooLarge,
            Self::UriTooLong => Word::UriTooLong,
            Self::UnsupportedMediaType => Word::UnsupportedMediaType,
            Self::ExpectationFailed => Word::ExpectationFailed,
            Self::Misdirected => Word::Misdirected,
            Self::RateLimited => Word::RateLimited,
            Self::HeadersTooLarge => Word::HeadersTooLarge,
            Self::Refused(_) => Word::SqlUser,
            Self::Internal => Word::Internal,
            Self::BadAnswer => Word::BadAnswer,
            Self::NotExecuted => Word::NotExecuted,
            Self::Busy => Word::Busy,
            Self::NoWorkers => Word::NoWorkers,
            Self::Overloaded => Word::Shed,
            Self::Draining => Word::Draining,
            Self::BusDown => Word::BusDown,
            Self::BackendDown => Word::BackendDown,
            Self::AttemptTimedOut => Word::AttemptTimeout,
            Self::SessionTimedOut => Word::SessionTimeout,
            Self::Expired => Word::Expired,
            Self::Cancelled => Word::Cancelled,
            Self::BadAnswerOutcomeUnknown | Self::OutcomeUnknown => Word::OutcomeUnknown,
        }
    }
}
