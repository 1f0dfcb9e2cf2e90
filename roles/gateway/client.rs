//! Clients and callers: the identity of a caller, the network of a client, and its share of memory.

pub mod byte_budget;
pub mod caller;
pub mod network;

pub use caller::{Caller, Peer};
pub use network::ClientNetwork;
