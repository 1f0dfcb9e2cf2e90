//! Decides whether a request may be dispatched, and checks its parameters.

pub mod accept;
pub mod auth;
pub(in crate::roles::gateway) mod cors;
pub mod idempotency_key;
pub mod parameters;
pub(in crate::roles::gateway) mod prefer;
pub mod rate_limit;
pub mod router;
pub(in crate::roles::gateway) mod two_generation_cache;
