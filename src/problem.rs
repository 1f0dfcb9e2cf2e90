//! Problems: the errors that fjord itself returns to clients, as problem documents (RFC 9457).

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod kind;
mod outcome;
mod proxy_status;

pub use kind::{ProblemDefinition, ProblemKind};

/// The media type of problem documents (RFC 9457 §3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error in the form that the client may see. Its cause is logged where it occurs and is never
/// sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of error.
    pub kind: ProblemKind,
    /// A description for human readers. It never contains SQL, host names, paths or stack traces.
    pub detail: Option<String>,
    /// All violations of an invalid request.
    pub violations: Vec<Violation>,
    /// The time until the client may retry, rounded up to whole seconds in `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Whether the procedure was executed, if more is known about that than the kind implies.
    pub effect: Option<Effect>,
}

/// A violation of a rule by a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The location, such as `path`, `query`, `header` or `body`.
    #[serde(rename = "in")]
    pub location: String,
    /// The name of the parameter, except in a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// A JSON Pointer (RFC 6901) into the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A description of the expected value. It never contains the value that was sent, which may be
    /// a secret.
    pub detail: String,
}

impl Violation {
    /// Creates a violation of a named parameter outside the body.
    #[must_use]
    pub fn in_parameter(location: &str, parameter: &str, detail: impl Into<String>) -> Self {
        Self {
            location: location.to_owned(),
            parameter: Some(parameter.to_owned()),
            pointer: None,
            detail: detail.into(),
        }
    }

    /// Creates a violation in the JSON body, at a JSON Pointer.
    #[must_use]
    pub fn in_body(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            location: "body".to_owned(),
            parameter: None,
            pointer: Some(pointer.into()),
            detail: detail.into(),
        }
    }
}

/// Whether the procedure was executed, as far as is known to the sender of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The procedure was not executed.
    NotExecuted,
    /// The procedure was executed and returned this error.
    Executed,
    /// The procedure may have been executed.
    Unknown,
}

impl Effect {
    /// Returns the value of the member `effect`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotExecuted => "not-executed",
            Self::Executed => "executed",
            Self::Unknown => "unknown",
        }
    }
}

impl Problem {
    /// Creates a problem without details.
    #[must_use]
    pub fn new(kind: ProblemKind) -> Self {
        Self { kind, detail: None, violations: Vec::new(), retry_after: None, effect: None }
    }

    /// Creates a problem with a description for the caller.
    #[must_use]
    pub fn with_detail(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(kind) }
    }

    /// Creates the problem for an invalid request, with all its violations.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(ProblemKind::InvalidRequest) }
    }

    /// Creates the problem for a dry run whose answer does not confirm that it was rolled back.
    #[must_use]
    pub fn unconfirmed_dry_run() -> Self {
        let detail = "the worker did not confirm that the dry run was rolled back";
        Self::with_detail(ProblemKind::BadAnswerOutcomeUnknown, detail)
    }

    /// Sets the time after which the client may retry.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Sets whether the procedure was executed.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Self {
        Self { effect: Some(effect), ..self }
    }

    /// Returns the problem document for the response to a request.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let definition = self.kind.definition();
        let document = ProblemDocument {
            kind: self.kind.type_uri(),
            title: definition.title,
            status: definition.status.as_u16(),
            detail: self.detail.as_deref(),
            instance: instance(request_id),
            request_id,
            effect: self.effect.unwrap_or(definition.effect).as_str(),
            errors: &self.violations,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// Returns the URI that identifies one occurrence of a problem (the member `instance`).
#[must_use]
pub fn instance(request_id: &str) -> String {
    format!("urn:fjord:request:{request_id}")
}

/// The members of a problem document (RFC 9457 §3), including fjord's extensions.
#[derive(Serialize)]
struct ProblemDocument<'a> {
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
