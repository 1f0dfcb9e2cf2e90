//! The side that runs procedures.

pub mod handler;

pub use handler::{Job, QueueHandler};
