//! The side that runs procedures.
//!
//! intake → slots (+ offers) → dispatch → handler → outcome

pub mod control;
pub mod dispatch;
pub mod handler;
pub mod jobs;
pub mod queue;
pub mod slots;

pub use handler::{Ending, Job, QueueHandler};
pub mod echo;
pub mod ending;
pub mod handler;
pub mod handlers;
pub mod outcome;

pub mod echo;
pub mod ending;
pub mod handler;
pub mod handlers;
pub mod outcome;

pub use ending::Ending;
pub use handler::{Job, QueueHandler};
