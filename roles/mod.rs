//! The two roles. They use `src`, never each other: they meet on the wire.

pub mod gateway;
pub mod worker;
