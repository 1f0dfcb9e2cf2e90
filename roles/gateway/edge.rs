//! Accepts connections, reads requests and writes responses.

pub mod connection;
pub mod documentation;
pub mod health;
pub mod listener;
