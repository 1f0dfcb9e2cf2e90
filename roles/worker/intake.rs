//! Receives requests and decides whether to run, queue or refuse them.

pub mod control;
pub mod latency;
pub mod membership;
mod message;
pub mod queue;
pub mod queue_set;
pub mod round_trip;
mod shared_slots;
pub mod slots;
pub mod version;
