//! fjord: an HTTPS REST API in front of SQL Server stored procedures, with NATS between the two.
//!
//! One executable, two roles. This library is the executable's inside; `ARCHITECTURE.md` is its map.

pub mod admin;
pub mod catalogue;
pub mod cli;
pub mod commands;
pub mod config;
pub mod endpoint_call;
pub mod envelope;
pub mod fleet;
pub mod future;
pub mod in_flight;
pub mod lifecycle;
pub mod listen;
pub mod message;
pub mod messaging;
pub mod outcome;
pub mod problem;
pub mod procedures;
pub mod telemetry;
pub mod tls;

/// The two roles. They sit beside `src` because the checkout's top level is what an operator sees first.
#[path = "../roles/mod.rs"]
pub mod roles;

/// The examples in `CONTRIBUTING.md`, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
pub mod contributing {}
