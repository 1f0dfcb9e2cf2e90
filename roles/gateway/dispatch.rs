//! Dispatches requests to the workers of their queues and collects their replies.

pub mod dispatcher;
pub mod message;
pub mod queues;
pub mod replies;
pub mod retry_budget;
pub mod reuse;
mod services;
pub mod session;
pub mod session_driver;
pub mod session_summary;
pub mod session_task;
pub mod stream_driver;
mod worker_monitor;

pub use dispatcher::{DispatchRequest, DispatchResult, Dispatcher};
pub use reuse::{AnswerReuse, AnswerSource, ReusableRequest};
pub use session_summary::{DispatchFailure, SessionSummary};
pub use session_task::AnswerReservation;
pub use stream_driver::{StreamDriver, StreamingAnswer};
