//! The form of the answer that a client requests with `Accept` and `Prefer`.

use std::sync::Arc;

use http::Method;
use http::request::Parts;

use crate::catalogue::{Endpoint, Representation};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::admission::accept;
use crate::roles::gateway::admission::prefer::{self, HonoredPreferences};
use crate::telemetry::conditions::{self, ConditionKind};

/// Logged when answers in a representation that was not requested begin to arrive. Each affected request also
/// has a line in the access log.
const WRONG_MEDIA_TYPE: ConditionKind =
    ConditionKind::new("workers answer with a different media type");

/// A request, with the properties that its client wants the answer to have.
pub(super) struct NegotiatedRequest<'a> {
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) parts: &'a Parts,
    pub(super) representation: &'a Representation,
    pub(super) preferences: HonoredPreferences,
}

impl<'a> NegotiatedRequest<'a> {
    /// Chooses the representation and reads the preferences.
    ///
    /// # Errors
    /// `NotAcceptable` if the client accepts no representation, or `InvalidRequest` for an unclear preference.
    pub(super) fn new(parts: &'a Parts, endpoint: &'a Arc<Endpoint>) -> Result<Self, Problem> {
        let representation = accept::choose(&parts.headers, &endpoint.produces)
            .ok_or(Problem::new(ProblemKind::NotAcceptable))?;
        let preferences = prefer::honored(&parts.headers, endpoint)
            .map_err(|violation| Problem::invalid(vec![violation]))?;
        Ok(Self { endpoint, parts, representation, preferences })
    }

    /// Returns the media type for the worker, or `None` for JSON.
    pub(super) fn accept(&self) -> Option<String> {
        let is_json = *self.representation == Representation::Json;
        (!is_json).then(|| self.representation.media_type().to_owned())
    }

    /// Returns whether the response can begin before the answer is complete.
    pub(super) fn may_stream(&self) -> bool {
        let is_dry_run = self.preferences.transaction_end == Some(prefer::TransactionEnd::Rollback);
        !is_dry_run && !self.preferences.is_minimal
    }

    /// Returns whether the response contains the content of the answer.
    pub(super) fn keeps_answer(&self) -> bool {
        self.parts.method != Method::HEAD && !self.preferences.is_minimal
    }

    /// Checks that an answer has the media type that the client accepts.
    ///
    /// # Errors
    /// `BadAnswer`, after logging the condition.
    pub(super) fn check_media_type(&self, content_type: &str) -> Result<(), Problem> {
        if self.endpoint.is_represented(self.representation, content_type) {
            return Ok(());
        }
        if conditions::raise(&WRONG_MEDIA_TYPE, self.endpoint.id.as_str()) {
            let (endpoint, expected) = (&self.endpoint.id, self.representation.media_type());
            tracing::warn!(
                %endpoint,
                expected,
                content_type,
                "a worker answered with a different media type; it may be running an older version"
            );
        }
        Err(Problem::new(ProblemKind::BadAnswer))
    }
}
