//! Runs requests that have a slot and sends their replies.

pub mod call_time;
mod chunk_channel;
mod chunk_sender;
pub mod echo;
pub mod executor;
pub mod handler;
pub mod handlers;
pub mod job_result;
pub mod procedure;
pub mod recent_replies;
pub mod resend;
pub mod running_jobs;
