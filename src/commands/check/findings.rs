//! The input and output of the checks of `fjord check --online`.

use std::time::Duration;

use crate::catalogue::{Catalogue, Endpoint};
use crate::cli::Role;
use crate::config::Config;

/// The time limit for the check of one server or database.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// A role whose configuration and catalogue are valid.
#[derive(Debug)]
pub(super) struct CheckedRole {
    /// The role.
    pub(super) role: Role,
    /// The configuration of the role.
    pub(super) config: Config,
    /// The catalogue of the role.
    pub(super) catalogue: Catalogue,
}

impl CheckedRole {
    /// Returns the endpoints that the role serves: all in a gateway, those of its queues in a worker.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let is_served = |endpoint: &&Endpoint| {
            self.role == Role::Gateway || self.config.worker.queue(&endpoint.queue).is_some()
        };
        self.catalogue.endpoints().iter().map(AsRef::as_ref).filter(is_served)
    }
}

/// The results of checks.
#[derive(Debug, Default)]
pub(super) struct CheckResults {
    /// The errors that were found.
    pub(super) errors: Vec<String>,
    /// Possible errors, and items that could not be checked.
    pub(super) warnings: Vec<String>,
    /// The successful checks.
    pub(super) passed: Vec<String>,
}
