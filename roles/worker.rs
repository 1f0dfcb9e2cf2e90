//! The worker role: receives requests from NATS and calls stored procedures.
//!
//! Dependencies go one way: `run` → `prepare` → `intake` → `execution` → `observation` → `subjects`.

pub mod execution;
pub mod intake;
pub mod local;
pub mod observation;
pub mod prepare;
pub mod run;
pub mod subjects;

pub use execution::handler::{HandlerContext, HandlerError, Job, JobProgress, QueueHandler};
pub use execution::job_result::JobResult;
