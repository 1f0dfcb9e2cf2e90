//! What goes wrong between a client and a procedure: one table of our own HTTP statuses (RFC 9457).

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

mod word;

/// The media type of every error answer (RFC 9457 §3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Where a client finds what a problem type means; the kind's slug is appended.
const TYPE_BASE: &str = "urn:fjord:problem:";

/// One failure, as the client may see it. Its cause is logged where it was noticed, never sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which failure it is.
    pub kind: ProblemKind,
    /// What is different about this occurrence, for a person. Never SQL, a host, a path or a stack.
    pub detail: Option<String>,
    /// Every violation of a bad request, all at once.
    pub violations: Vec<Violation>,
    /// When to try again; the answer's `Retry-After` rounds it up to whole seconds.
    pub retry_after: Option<Duration>,
    /// What may have happened to the procedure, where more is known than its kind says.
    pub effect: Option<Effect>,
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Where it is: `path`, `query`, `header` or `body`.
    #[serde(rename = "in")]
    pub place: String,
    /// The parameter's name, for everything but a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// A JSON Pointer (RFC 6901) into the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What was expected. Never the value that was sent: it may be a secret.
    pub detail: String,
}

impl Violation {
    /// A violation of a named parameter outside the body.
    #[must_use]
    pub fn of_parameter(place: &str, parameter: &str, detail: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            parameter: Some(parameter.to_owned()),
            pointer: None,
            detail: detail.into(),
        }
    }

    /// A violation inside the JSON body, at a JSON Pointer.
    #[must_use]
    pub fn of_body(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            place: "body".to_owned(),
            parameter: None,
            pointer: Some(pointer.into()),
            detail: detail.into(),
        }
    }
}

/// What may have happened to the procedure when its client is told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The procedure certainly did not run.
    NotExecuted,
    /// The procedure ran, and answered with this failure.
    Executed,
    /// It may or may not have run.
    Unknown,
}

impl Effect {
    /// The word of the `effect` member.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotExecuted => "not-executed",
            Self::Executed => "executed",
            Self::Unknown => "unknown",
        }
    }
}

/// What happened, as a stable problem type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The request is malformed or breaks the endpoint's rules.
    InvalidRequest,
    /// The body's framing is broken: where the next request begins cannot be known.
    MalformedBody,
    /// No credentials, or bad ones.
    Unauthenticated,
    /// Good credentials that may not do this.
    Forbidden,
    /// No endpoint has this path.
    NoRoute,
    /// The procedure found no row.
    NoRow,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// No path has this method.
    NotImplemented,
    /// No representation that the client accepts.
    NotAcceptable,
    /// The client was too slow to send its request.
    RequestTimeout,
    /// The procedure reports a conflict with what is stored.
    Conflict,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The URI is longer than allowed.
    UriTooLong,
    /// The body's media type is not the endpoint's.
    UnsupportedMediaType,
    /// An `Expect` header that we cannot meet.
    ExpectationFailed,
    /// The request was sent to a host that is not served here.
    Misdirected,
    /// The caller is over its own rate.
    RateLimited,
    /// The request's headers are larger than allowed.
    HeadersTooLarge,
    /// The procedure refused with an error of its own; the status comes from the catalogue.
    Refused(u16),
    /// Something is wrong with us or with our configuration.
    Internal,
    /// A worker or the database gave an answer that cannot be passed on.
    BadAnswer,
    /// As `BadAnswer`, after a grant of an at-most-once request: it may have been executed.
    BadAnswerOutcomeUnknown,
    /// Not executed, for a reason that has no kind of its own.
    NotExecuted,
    /// Not executed: every worker was busy for as long as the request could wait.
    Busy,
    /// Not executed: no worker serves this queue now.
    NoWorkers,
    /// Not executed: too many requests wait already.
    Overloaded,
    /// Not executed: this instance is about to stop.
    Draining,
    /// Not executed: the message bus is not connected.
    BusDown,
    /// Not executed: the database cannot be reached.
    BackendDown,
    /// An attempt was not answered by its deadline.
    AttemptTimedOut,
    /// The session ended while the procedure still ran.
    SessionTimedOut,
    /// The budget was already spent when a worker saw the message: not executed.
    Expired,
    /// The call was cancelled before it had finished.
    Cancelled,
    /// A granted at-most-once request whose worker went silent.
    OutcomeUnknown,
}

/// A row of the table: what a kind means in HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The status.
    pub status: StatusCode,
    /// The last part of the problem's type URI.
    pub slug: &'static str,
    /// The fixed title.
    pub title: &'static str,
    /// What the client may believe about the procedure.
    pub effect: Effect,
    /// Whether the connection cannot be used for another request.
    pub closes: bool,
}

const fn meaning(
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    effect: Effect,
) -> Meaning {
    Meaning { status, slug, title, effect, closes: false }
}

const fn closing(status: StatusCode, slug: &'static str, title: &'static str) -> Meaning {
    Meaning { status, slug, title, effect: Effect::NotExecuted, closes: true }
}

impl ProblemKind {
    /// What this kind means in HTTP. The only place in fjord where our failures become statuses.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one exhaustive table, a line or two for each kind")]
    pub fn meaning(self) -> Meaning {
        use Effect::{Executed, NotExecuted, Unknown};
        use StatusCode as S;
        match self {
            Self::InvalidRequest => {
                meaning(S::BAD_REQUEST, "invalid-request", "The request is not valid", NotExecuted)
            }
            Self::MalformedBody => {
                closing(S::BAD_REQUEST, "invalid-request", "The request is not valid")
            }
            Self::Unauthenticated => meaning(
                S::UNAUTHORIZED,
                "unauthenticated",
                "Valid credentials are needed",
                NotExecuted,
            ),
            Self::Forbidden => {
                meaning(S::FORBIDDEN, "forbidden", "Not allowed for this caller", NotExecuted)
            }
            Self::NoRoute => {
                meaning(S::NOT_FOUND, "no-route", "There is nothing at this path", NotExecuted)
            }
            Self::NoRow => meaning(S::NOT_FOUND, "no-row", "No such record", Executed),
            Self::MethodNotAllowed => meaning(
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path has no such method",
                NotExecuted,
            ),
            Self::NotImplemented => closing(
                S::NOT_IMPLEMENTED,
                "not-implemented",
                "There is no such method here at all",
            ),
            Self::NotAcceptable => meaning(
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
            Self::Conflict => {
                meaning(S::CONFLICT, "conflict", "In conflict with what is stored", Executed)
            }
            Self::BodyTooLarge => meaning(
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                NotExecuted,
            ),
            Self::UriTooLong => closing(S::URI_TOO_LONG, "uri-too-long", "The URI is too long"),
            Self::UnsupportedMediaType => meaning(
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
            Self::Misdirected => meaning(
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "This host is not served here",
                NotExecuted,
            ),
            Self::RateLimited => meaning(
                S::TOO_MANY_REQUESTS,
                "rate-limited",
                "The caller is over its rate",
                NotExecuted,
            ),
            Self::HeadersTooLarge => closing(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The request headers are too large",
            ),
            Self::Refused(status) => meaning(
                S::from_u16(status).unwrap_or(S::INTERNAL_SERVER_ERROR),
                "refused",
                "The procedure refused the request",
                Executed,
            ),
            Self::Internal => {
                meaning(S::INTERNAL_SERVER_ERROR, "internal", "An error of this service", Unknown)
            }
            Self::BadAnswer => {
                meaning(S::BAD_GATEWAY, "bad-answer", "No usable answer from a worker", Unknown)
            }
            Self::BadAnswerOutcomeUnknown => meaning(
                S::BAD_GATEWAY,
                "outcome-unknown",
                "It is not known whether the procedure ran",
                Unknown,
            ),
            Self::NotExecuted => {
                meaning(S::SERVICE_UNAVAILABLE, "not-executed", "Not executed", NotExecuted)
            }
            Self::Busy => meaning(
                S::SERVICE_UNAVAILABLE,
                "busy",
                "Not executed: every worker is busy",
                NotExecuted,
            ),
            Self::NoWorkers => meaning(
                S::SERVICE_UNAVAILABLE,
                "no-workers",
                "Not executed: no worker is available",
                NotExecuted,
            ),
            Self::Overloaded => meaning(
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Not executed: too many requests are waiting",
                NotExecuted,
            ),
            Self::Draining => meaning(
                S::SERVICE_UNAVAILABLE,
                "draining",
                "Not executed: this instance is stopping",
                NotExecuted,
            ),
            Self::BusDown => meaning(
                S::SERVICE_UNAVAILABLE,
                "bus-down",
                "Not executed: the message bus is not connected",
                NotExecuted,
            ),
            Self::BackendDown => meaning(
                S::SERVICE_UNAVAILABLE,
                "backend-down",
                "Not executed: the database is not available",
                NotExecuted,
            ),
            Self::AttemptTimedOut => meaning(
                S::GATEWAY_TIMEOUT,
                "attempt-timed-out",
                "The procedure did not answer in time",
                Unknown,
            ),
            Self::SessionTimedOut => meaning(
                S::GATEWAY_TIMEOUT,
                "session-timed-out",
                "The procedure ran longer than a client is kept waiting",
                Unknown,
            ),
            Self::Expired => meaning(
                S::GATEWAY_TIMEOUT,
                "expired",
                "The time allowed was spent before a worker could start",
                NotExecuted,
            ),
            Self::Cancelled => {
                meaning(S::GATEWAY_TIMEOUT, "cancelled", "The call was cancelled", Unknown)
            }
            Self::OutcomeUnknown => meaning(
                S::GATEWAY_TIMEOUT,
                "outcome-unknown",
                "It is not known whether the procedure ran",
                Unknown,
            ),
        }
    }

    /// The status of this kind.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.meaning().status
    }

    /// The problem type's URI.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("{TYPE_BASE}{}", self.meaning().slug)
    }
}

impl Problem {
    /// A problem that says no more than its kind.
    #[must_use]
    pub fn new(kind: ProblemKind) -> Self {
        Self { kind, detail: None, violations: Vec::new(), retry_after: None, effect: None }
    }

    /// A problem with a sentence for the caller.
    #[must_use]
    pub fn with_detail(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(kind) }
    }

    /// The problem of a request that breaks rules: all of them.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(ProblemKind::InvalidRequest) }
    }

    /// The problem of a dry run that was answered without the worker's word that nothing of it stays.
    #[must_use]
    pub fn unproved_dry_run() -> Self {
        let detail = "the worker did not prove that the dry run was rolled back";
        Self::with_detail(ProblemKind::BadAnswerOutcomeUnknown, detail)
    }

    /// The same problem, saying when to try again.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The same problem, saying what may have happened to the procedure.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Self {
        Self { effect: Some(effect), ..self }
    }

    /// The problem document for one request.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let meaning = self.kind.meaning();
        let document = Document {
            kind: self.kind.type_uri(),
            title: meaning.title,
            status: meaning.status.as_u16(),
            detail: self.detail.as_deref(),
            instance: format!("urn:fjord:request:{request_id}"),
            request_id,
            effect: self.effect.unwrap_or(meaning.effect).as_str(),
            errors: &self.violations,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// The document as it is written (RFC 9457 §3, with our extension members).
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    instance: String,
    request_id: &'a str,
    effect: &'static str,
    #[serde(skip_serializing_if = "<[Violation]>::is_empty")]
    errors: &'a [Violation],
}
