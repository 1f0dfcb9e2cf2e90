//! Receives requests and decides whether to execute, queue or refuse them.

pub mod control;
pub mod latency;
pub mod membership;
mod message;
pub mod queue;
pub(super) mod round_trip;
pub mod slots;
