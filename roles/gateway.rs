//! The gateway: accepts HTTPS requests and answers each once.
//!
//! A request passes `edge` → `pipeline` → `admission` → `dispatch`, and `observation` records it.

pub mod admission;
pub mod call;
pub mod client;
pub mod dispatch;
pub mod edge;
mod observation;
pub mod pipeline;
mod report;
pub mod response;
pub mod run;
pub mod snapshot;
