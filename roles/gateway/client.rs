//! Clients and callers: a caller's identity and requests in flight, and a client's network and share of memory.

pub mod byte_budget;
pub mod caller;
pub mod network;
pub mod requests_per_caller;

pub use caller::{Caller, Peer};
pub use network::ClientNetwork;
pub use requests_per_caller::{CallerKey, CallerPermit, RequestsPerCaller};
