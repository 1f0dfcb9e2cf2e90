//! The public side: HTTPS in, one answer out.
//!
//! listener → connection → router → auth → rate → params → session → respond

pub mod caller;
pub mod respond;

pub use caller::{Caller, Peer};
