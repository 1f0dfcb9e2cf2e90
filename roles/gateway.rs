//! The public side: HTTPS in, one answer out.
//!
//! listener → connection → router → auth → rate → params → session → respond

pub mod auth;
pub mod budget;
pub mod caller;
mod generations;
pub mod hold;
pub mod idempotency;
pub mod mail;
pub mod place;
pub mod queues;
pub mod rate;
pub mod replies;
pub mod connection;
pub mod listener;
pub mod rate;
pub mod respond;
pub mod session;
pub mod params;
pub mod respond;
pub mod router;

pub use caller::{Caller, Peer};
