//! fjord: an HTTPS REST API in front of SQL Server stored procedures, with NATS between the two.
//!
//! The executable has two roles. This library contains the executable's code. `ARCHITECTURE.md` describes the
//! structure.

pub mod admin;
pub mod catalogue;
pub mod cli;
pub mod commands;
pub mod config;
pub mod endpoint_call;
pub mod envelope;
pub mod fair_order;
pub mod file_version;
pub mod fleet;
pub mod free_memory;
pub mod future;
pub mod http_date;
pub mod in_flight;
pub mod jitter;
pub mod lifecycle;
pub mod listen;
pub mod local_api;
pub mod message;
pub mod messaging;
pub mod new_file;
pub mod outcome;
pub mod problem;
pub mod procedures;
pub mod quality_value;
pub mod spelling;
pub mod start_check;
pub mod telemetry;
pub mod tls;
pub mod units;

/// The two roles. Their directory is next to `src`, so that it is visible at the top level of the repository.
#[path = "../roles/mod.rs"]
pub mod roles;

/// The examples in `CONTRIBUTING.md`, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
pub mod contributing {}
