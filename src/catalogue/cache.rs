//! How the answers of an endpoint can be reused: by the client, with a conditional request.

/// How the answers of an endpoint can be reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRules {
    /// Whether a successful answer has an `ETag` that is computed from its content.
    pub etag: bool,
}

impl CacheRules {
    /// Returns whether an answer must be collected before its response begins.
    #[must_use]
    pub fn needs_whole_answer(self) -> bool {
        self.etag
    }
}
