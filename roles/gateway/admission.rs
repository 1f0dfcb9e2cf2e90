//! Decides whether a request may be dispatched, and with which parameters.

pub mod accept;
pub mod auth;
pub(in crate::roles::gateway) mod cors;
pub(in crate::roles::gateway) mod generations;
pub mod idempotency;
pub mod params;
pub(in crate::roles::gateway) mod prefer;
pub mod rate;
pub mod router;
