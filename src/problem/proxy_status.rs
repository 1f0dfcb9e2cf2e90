//! The errors in `Proxy-Status` (RFC 9209). They state why the gateway, as an intermediary, has no answer from a
//! worker.

use super::ProblemKind;

impl ProblemKind {
    /// Returns the error type in `Proxy-Status` (RFC 9209 §2.3) if the gateway returns this problem because it has no
    /// answer from a worker. Returns `None` if the gateway rejected the request itself, or if the problem is a worker's
    /// answer.
    #[must_use]
    pub fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::NoWorkers
            | Self::QueuePaused
            | Self::Busy
            | Self::NotExecuted
            | Self::BusDown
            | Self::BackendDown => Some("destination_unavailable"),
            // The gateway did not attempt to reach a worker.
            Self::Overloaded | Self::Draining => Some("proxy_internal_response"),
            Self::AttemptTimedOut
            | Self::SessionTimedOut
            | Self::Expired
            | Self::OutcomeUnknown => Some("http_response_timeout"),
            Self::BadAnswer | Self::BadAnswerOutcomeUnknown => Some("http_protocol_error"),
            Self::Cancelled => Some("http_response_incomplete"),
            Self::Internal => Some("proxy_internal_error"),
            Self::InvalidRequest
            | Self::MalformedBody
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NoRoute
            | Self::NoRow
            | Self::MethodNotAllowed
            | Self::NotImplemented
            | Self::NotAcceptable
            | Self::RequestTimeout
            | Self::Conflict
            | Self::PreconditionFailed
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::UnsupportedMediaType
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::RateLimited
            | Self::TooManyInFlight
            | Self::HeadersTooLarge
            | Self::ProcedureError(_) => None,
        }
    }

    /// Returns the value of `Proxy-Status`. Its details contain the slug of the problem.
    #[must_use]
    pub fn proxy_status(self) -> Option<String> {
        let error = self.proxy_error()?;
        Some(format!("fjord; error={error}; details=\"{}\"", self.definition().slug))
    }
}
