//! Executes requests and sends the replies.

pub mod call_time;
pub mod chunk_channel;
mod chunk_sender;
pub mod echo;
pub mod executor;
pub mod handler;
pub mod handlers;
pub mod job_result;
pub mod procedure;
pub mod recent_replies;
pub mod reply_sender;
pub mod resend;
pub mod running_jobs;
pub mod slot;
