//! The kinds of problems, each with a status, type URI and title.

use http::StatusCode;

use super::Effect;

/// The prefix of all type URIs. It is followed by the slug of the kind.
const TYPE_BASE: &str = "urn:fjord:problem:";

/// The kinds of problems. Each has a stable type URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The request is malformed or violates the rules of the endpoint.
    InvalidRequest,
    /// The framing of the body is invalid, so the start of the next request is unknown.
    MalformedBody,
    /// The credentials are missing or invalid.
    Unauthenticated,
    /// The credentials are valid but do not permit this request.
    Forbidden,
    /// No endpoint has this path.
    NoRoute,
    /// The procedure returned no row.
    NoRow,
    /// The path has no endpoint with this method.
    MethodNotAllowed,
    /// No endpoint has this method.
    NotImplemented,
    /// The client accepts none of the available representations.
    NotAcceptable,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The procedure reports a conflict with stored data.
    Conflict,
    /// The stored state does not match `If-Match`.
    PreconditionFailed,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The URI is longer than allowed.
    UriTooLong,
    /// The endpoint does not accept the media type of the body.
    UnsupportedMediaType,
    /// The `Expect` header cannot be met.
    ExpectationFailed,
    /// The request is for a host that is not served here.
    Misdirected,
    /// The caller exceeds its rate limit.
    RateLimited,
    /// The caller already has the maximum number of requests in flight.
    TooManyInFlight,
    /// The request's headers are larger than allowed.
    HeadersTooLarge,
    /// The procedure rejected the request. The status comes from the catalogue or from the SQL
    /// error.
    ProcedureError(u16),
    /// An error in fjord or in its configuration.
    Internal,
    /// The answer from a worker or the database cannot be forwarded.
    BadAnswer,
    /// Like `BadAnswer`, after an at-most-once request was granted and may have been executed.
    BadAnswerOutcomeUnknown,
    /// Not executed, for a reason that has no kind of its own.
    NotExecuted,
    /// Not executed: every worker was busy for as long as the request could wait.
    Busy,
    /// Not executed: no worker is currently serving this queue.
    NoWorkers,
    /// Not executed: an operator has paused the queue.
    QueuePaused,
    /// Not executed: too many requests are waiting.
    Overloaded,
    /// Not executed: this instance is about to stop.
    Draining,
    /// Not executed: the message bus is not connected.
    BusDown,
    /// Not executed: the database cannot be reached.
    BackendDown,
    /// No worker answered the attempt before its deadline.
    AttemptTimedOut,
    /// The session ended while the procedure was still running.
    SessionTimedOut,
    /// Not executed: the request's time ran out before a worker could start it.
    Expired,
    /// The call was cancelled before it finished.
    Cancelled,
    /// A worker stopped replying after an at-most-once request was granted.
    OutcomeUnknown,
}

/// The HTTP properties of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemDefinition {
    /// The HTTP status.
    pub status: StatusCode,
    /// The last part of the type URI.
    pub slug: &'static str,
    /// The title.
    pub title: &'static str,
    /// Whether the procedure was executed.
    pub effect: Effect,
    /// Whether the connection must be closed after the response.
    pub closes: bool,
}

const fn definition(
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    effect: Effect,
) -> ProblemDefinition {
    ProblemDefinition { status, slug, title, effect, closes: false }
}

const fn closing(status: StatusCode, slug: &'static str, title: &'static str) -> ProblemDefinition {
    ProblemDefinition { status, slug, title, effect: Effect::NotExecuted, closes: true }
}

impl ProblemKind {
    /// Returns the properties of this kind. No other table maps fjord's errors to HTTP statuses.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one exhaustive table with an arm for each kind")]
    pub fn definition(self) -> ProblemDefinition {
        use Effect::{Executed, NotExecuted, Unknown};
        use StatusCode as S;
        match self {
            Self::InvalidRequest => definition(
                S::BAD_REQUEST,
                "invalid-request",
                "The request is not valid",
                NotExecuted,
            ),
            Self::MalformedBody => {
                closing(S::BAD_REQUEST, "invalid-request", "The request is not valid")
            }
            Self::Unauthenticated => definition(
                S::UNAUTHORIZED,
                "unauthenticated",
                "Valid credentials are required",
                NotExecuted,
            ),
            Self::Forbidden => {
                definition(S::FORBIDDEN, "forbidden", "Not allowed for this caller", NotExecuted)
            }
            Self::NoRoute => {
                definition(S::NOT_FOUND, "no-route", "There is nothing at this path", NotExecuted)
            }
            Self::NoRow => definition(S::NOT_FOUND, "no-row", "No such record", Executed),
            Self::MethodNotAllowed => definition(
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path has no such method",
                NotExecuted,
            ),
            Self::NotImplemented => {
                closing(S::NOT_IMPLEMENTED, "not-implemented", "No endpoint has this method")
            }
            Self::NotAcceptable => definition(
                S::NOT_ACCEPTABLE,
                "not-acceptable",
                "No representation that the caller accepts",
                NotExecuted,
            ),
            Self::RequestTimeout => closing(
                S::REQUEST_TIMEOUT,
                "request-timeout",
                "The request was not received in time",
            ),
            Self::Conflict => definition(
                S::CONFLICT,
                "conflict",
                "The request conflicts with existing data",
                Executed,
            ),
            Self::PreconditionFailed => definition(
                S::PRECONDITION_FAILED,
                "precondition-failed",
                "The current state does not match the precondition",
                Executed,
            ),
            Self::BodyTooLarge => definition(
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                NotExecuted,
            ),
            Self::UriTooLong => closing(S::URI_TOO_LONG, "uri-too-long", "The URI is too long"),
            Self::UnsupportedMediaType => definition(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body's media type is not supported",
                NotExecuted,
            ),
            Self::ExpectationFailed => closing(
                S::EXPECTATION_FAILED,
                "expectation-failed",
                "The Expect header cannot be met",
            ),
            Self::Misdirected => definition(
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "This host is not served here",
                NotExecuted,
            ),
            Self::RateLimited => definition(
                S::TOO_MANY_REQUESTS,
                "rate-limited",
                "The caller exceeds its rate limit",
                NotExecuted,
            ),
            Self::TooManyInFlight => definition(
                S::TOO_MANY_REQUESTS,
                "too-many-in-flight",
                "The caller has too many requests in flight",
                NotExecuted,
            ),
            Self::HeadersTooLarge => closing(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The request headers are too large",
            ),
            Self::ProcedureError(status) => definition(
                S::from_u16(status).unwrap_or(S::INTERNAL_SERVER_ERROR),
                "refused",
                "The procedure refused the request",
                Executed,
            ),
            Self::Internal => definition(
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "An error of this service",
                Unknown,
            ),
            Self::BadAnswer => {
                definition(S::BAD_GATEWAY, "bad-answer", "No valid answer from a worker", Unknown)
            }
            Self::BadAnswerOutcomeUnknown => definition(
                S::BAD_GATEWAY,
                "outcome-unknown",
                "It is not known whether the procedure ran",
                Unknown,
            ),
            Self::NotExecuted => {
                definition(S::SERVICE_UNAVAILABLE, "not-executed", "Not executed", NotExecuted)
            }
            Self::Busy => definition(
                S::SERVICE_UNAVAILABLE,
                "busy",
                "Not executed: every worker is busy",
                NotExecuted,
            ),
            Self::NoWorkers => definition(
                S::SERVICE_UNAVAILABLE,
                "no-workers",
                "Not executed: no worker is available",
                NotExecuted,
            ),
            Self::QueuePaused => definition(
                S::SERVICE_UNAVAILABLE,
                "queue-paused",
                "Not executed: the queue is paused",
                NotExecuted,
            ),
            Self::Overloaded => definition(
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Not executed: too many requests are waiting",
                NotExecuted,
            ),
            Self::Draining => definition(
                S::SERVICE_UNAVAILABLE,
                "draining",
                "Not executed: this instance is stopping",
                NotExecuted,
            ),
            Self::BusDown => definition(
                S::SERVICE_UNAVAILABLE,
                "bus-down",
                "Not executed: the message bus is not connected",
                NotExecuted,
            ),
            Self::BackendDown => definition(
                S::SERVICE_UNAVAILABLE,
                "backend-down",
                "Not executed: the database is not available",
                NotExecuted,
            ),
            Self::AttemptTimedOut => definition(
                S::GATEWAY_TIMEOUT,
                "attempt-timed-out",
                "The procedure did not answer in time",
                Unknown,
            ),
            Self::SessionTimedOut => definition(
                S::GATEWAY_TIMEOUT,
                "session-timed-out",
                "The procedure ran longer than the session allows",
                Unknown,
            ),
            Self::Expired => definition(
                S::GATEWAY_TIMEOUT,
                "expired",
                "The request expired before a worker could start it",
                NotExecuted,
            ),
            Self::Cancelled => {
                definition(S::GATEWAY_TIMEOUT, "cancelled", "The call was cancelled", Unknown)
            }
            Self::OutcomeUnknown => definition(
                S::GATEWAY_TIMEOUT,
                "outcome-unknown",
                "It is not known whether the procedure ran",
                Unknown,
            ),
        }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.definition().status
    }

    /// Returns the type URI.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("{TYPE_BASE}{}", self.definition().slug)
    }
}
