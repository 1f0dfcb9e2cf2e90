//! `fjord check --online`: checks all NATS servers and databases concurrently.

use std::io;

use futures_util::future::join_all;

use super::findings::{CheckResults, CheckedRole};
use super::{databases, nats};
use crate::cli::Role;
use crate::future::BoxFuture;

/// Runs the checks of all roles.
///
/// # Errors
/// Returns the operating system's error if no runtime can be created.
pub(super) fn run(roles: &[CheckedRole]) -> io::Result<CheckResults> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checks = roles.iter().flat_map(|role| {
        let servers = nats::checks(role);
        let databases =
            if role.role == Role::Worker { databases::checks(role) } else { Vec::new() };
        servers.into_iter().chain(databases)
    });
    let checks: Vec<BoxFuture<'_, CheckResults>> = checks.collect();
    let mut all = CheckResults::default();
    for results in runtime.block_on(join_all(checks)) {
        all.errors.extend(results.errors);
        all.warnings.extend(results.warnings);
        all.passed.extend(results.passed);
    }
    Ok(all)
}
