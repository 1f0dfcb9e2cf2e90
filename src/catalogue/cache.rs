//! Defines how the answers of an endpoint can be reused. Clients can store them, identical concurrent requests can
//! share them, and the gateway can answer from its cache.

use std::time::Duration;

/// The rules for the reuse of an endpoint's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRules {
    /// Whether a successful answer has an `ETag` that is computed from its content.
    pub etag: bool,
    /// Whether identical concurrent requests share one call.
    pub coalesce: bool,
    /// The time for which a gateway may store a successful answer, or `None` if a gateway may not store it.
    pub ttl: Option<Duration>,
    /// Whether the answers are the same for all callers. If so, callers can get each other's answers.
    pub is_shared: bool,
}

impl CacheRules {
    /// Returns whether a gateway can answer a request without a call.
    #[must_use]
    pub fn reuses_answers(self) -> bool {
        self.coalesce || self.ttl.is_some()
    }

    /// Returns whether an answer must be collected before its response begins.
    #[must_use]
    pub fn needs_whole_answer(self) -> bool {
        self.etag || self.reuses_answers()
    }
}
