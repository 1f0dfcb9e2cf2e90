//! The public side: HTTPS in, one answer out.
//!
//! listener → connection → router → auth → rate → params → session → respond

pub mod accept;
pub mod auth;
pub mod budget;
pub mod byte_budget;
pub mod call;
pub mod caller;
pub mod client_network;
pub mod connection;
mod cors;
mod distance;
pub mod documentation;
mod generations;
pub mod health;
pub mod hold;
pub mod idempotency;
pub mod listener;
pub mod mail;
pub mod members;
pub mod params;
mod phases;
pub mod pipeline;
pub mod place;
mod prefer;
pub mod queues;
pub mod rate;
pub mod rejections;
mod repeat;
pub mod replies;
mod report;
pub mod respond;
pub mod router;
pub mod run;
pub mod session;
pub mod snapshot;
pub mod timing;
mod traced;
mod trip;

pub use caller::{Caller, Peer};
pub use client_network::ClientNetwork;
