//! Records each request: the access line, metrics and spans.

pub(in crate::roles::gateway) mod phases;
pub(in crate::roles::gateway) mod queue_weights;
pub(in crate::roles::gateway) mod request_log;
