//! The public side: HTTPS in, one answer out.
//!
//! listener → connection → router → auth → rate → params → session → respond

pub mod budget;
pub mod auth;
pub mod caller;
pub mod hold;
pub mod mail;
pub mod place;
pub mod queues;
pub mod replies;
mod generations;
pub mod rate;
pub mod respond;
pub mod session;

pub use caller::{Caller, Peer};
