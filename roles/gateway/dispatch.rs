//! Dispatches requests to the workers of their queues and collects their replies.

pub mod dispatch_result;
pub mod dispatcher;
pub mod message;
pub mod queues;
pub mod replies;
pub mod retry_budget;
mod services;
pub mod session;
pub mod session_driver;
pub mod session_task;
pub mod stream_driver;
mod worker_monitor;

pub use dispatch_result::{DispatchFailure, DispatchResult};
pub use dispatcher::{Dispatched, Dispatcher};
pub use session_task::AnswerMemory;
pub use stream_driver::{StreamDriver, StreamingAnswer};
