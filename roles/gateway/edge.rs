//! The edge: accepts connections, reads requests and writes responses.

pub(in crate::roles::gateway) mod compression;
pub mod connection;
pub mod documentation;
pub mod health_check;
pub mod listener;
