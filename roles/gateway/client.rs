//! Clients and callers: a caller's identity, and a client's network and share of memory.

pub mod byte_budget;
pub mod caller;
pub mod network;

pub use caller::{Caller, Peer};
pub use network::ClientNetwork;
