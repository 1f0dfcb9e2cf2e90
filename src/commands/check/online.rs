//! `fjord check --online`: what only NATS and the databases can tell, all of it at once.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;

use super::{databases, nats};
use crate::catalogue::{Catalogue, Endpoint};
use crate::cli::Role;
use crate::config::Config;
use crate::future::BoxFuture;

/// Longest check of one server or database.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// A role whose configuration and catalogue have no error.
#[derive(Debug)]
pub(super) struct Part {
    /// The role.
    pub(super) role: Role,
    /// Its configuration.
    pub(super) config: Config,
    /// Its catalogue.
    pub(super) catalogue: Catalogue,
}

impl Part {
    /// The endpoints that this role serves: of a worker those of its queues.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let is_served = |endpoint: &&Endpoint| {
            self.role == Role::Gateway || self.config.worker.queue(&endpoint.queue).is_some()
        };
        self.catalogue.endpoints().iter().map(AsRef::as_ref).filter(is_served)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What does not fit.
    pub(super) errors: Vec<String>,
    /// What could not be checked.
    pub(super) warnings: Vec<String>,
    /// What was checked and is good.
    pub(super) good: Vec<String>,
}

/// Checks every server and every database of every role, side by side.
///
/// # Errors
/// When there is no runtime.
pub(super) fn run(parts: &[Part]) -> io::Result<Findings> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checks = parts.iter().flat_map(|part| {
        let servers = nats::checks(part);
        let databases =
            if part.role == Role::Worker { databases::checks(part) } else { Vec::new() };
        servers.into_iter().chain(databases)
    });
    let checks: Vec<BoxFuture<'_, Findings>> = checks.collect();
    let mut all = Findings::default();
    for found in runtime.block_on(join_all(checks)) {
        all.errors.extend(found.errors);
        all.warnings.extend(found.warnings);
        all.good.extend(found.good);
    }
    Ok(all)
}
