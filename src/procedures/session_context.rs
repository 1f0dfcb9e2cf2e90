//! The facts about a call that a database can show to its procedures, triggers and policies.

use super::Argument;

/// The facts about a call. A value that is not known is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionContext<'a> {
    /// The request's id, which is the same in all attempts.
    pub request_id: Option<&'a str>,
    /// The trace id of the request's `traceparent`.
    pub trace_id: Option<&'a str>,
    /// The endpoint's id.
    pub endpoint: Option<&'a str>,
    /// The name of the authenticated caller.
    pub principal: Option<&'a str>,
    /// The values of the endpoint's parameters with `sessionContext`.
    pub values: &'a [Argument],
}
