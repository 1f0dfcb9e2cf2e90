//! The side that runs procedures.
//!
//! intake → slots (+ offers) → dispatch → handler → outcome

pub mod call_time;
pub mod control;
pub mod dispatch;
mod distance;
pub mod echo;
pub mod ending;
pub mod handler;
pub mod handlers;
pub mod health;
pub mod intake;
pub mod jobs;
mod load;
pub mod outcome;
pub mod outlet;
pub mod pace;
pub mod procedure;
pub mod queue;
pub mod recent;
mod report;
pub mod resend;
pub mod run;
pub mod slots;
mod stream;
mod traced;

pub use ending::Ending;
pub use handler::{Job, QueueHandler, Times};
