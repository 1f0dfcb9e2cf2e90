//! Clients: their identity, their network and their share of the memory.

pub mod byte_budget;
pub mod caller;
pub mod network;

pub use caller::{Caller, Peer};
pub use network::ClientNetwork;
