//! The worker role: receives requests from NATS and calls stored procedures.
//!
//! Dependencies go one way: `run` → `intake` → `execution` → `observation`.

pub mod execution;
pub mod intake;
pub mod observation;
pub mod run;

pub use execution::handler::{Job, QueueHandler, Times};
pub use execution::job_result::Ending;
