//! The input and output of the checks of `fjord check --online`.

use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::{Catalogue, Endpoint, EndpointQueue};
use crate::cli::Role;
use crate::config::Config;

/// The time limit for the check of one server or database.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// A role whose configuration and catalogue are valid.
#[derive(Debug)]
pub(super) struct CheckedRole {
    pub(super) role: Role,
    pub(super) config: Config,
    pub(super) catalogue: Arc<Catalogue>,
}

impl CheckedRole {
    /// Returns the endpoints of the role, each paired with each of its queues. For a worker, only the queues that it
    /// serves are included.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&Endpoint, &EndpointQueue)> {
        let is_served = |(_, queue): &(&Endpoint, &EndpointQueue)| {
            self.role == Role::Gateway || self.config.worker.queue(&queue.name).is_some()
        };
        let endpoints = self.catalogue.endpoints().iter();
        let queues = endpoints.flat_map(|endpoint| {
            endpoint.queues.iter().map(move |queue| (endpoint.as_ref(), queue))
        });
        queues.filter(is_served)
    }
}

#[derive(Debug, Default)]
pub(super) struct CheckResults {
    pub(super) errors: Vec<String>,
    /// Possible errors and items that could not be checked.
    pub(super) warnings: Vec<String>,
    /// The successful checks.
    pub(super) passed: Vec<String>,
}
