//! The gateway, which accepts HTTPS requests and answers each of them exactly once.
//!
//! Requests pass through `edge`, `pipeline`, `admission` and `dispatch`. `observation` records
//! them.

pub mod active_config;
pub mod admission;
pub mod call;
pub mod client;
pub mod dispatch;
pub mod edge;
mod observation;
pub mod pipeline;
pub mod prepare;
mod report;
pub mod response;
pub mod run;
