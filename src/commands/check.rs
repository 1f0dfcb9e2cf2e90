//! `fjord check`: reports every error in the configuration without starting a role. With `--online`, it also checks the NATS
//! servers and databases in the configuration.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{EXIT_USAGE, Output, print_lines, routes};
use crate::catalogue;
use crate::cli::Role;
use crate::config::{Config, Sources};
use crate::procedures::pool_sizes;

use findings::{CheckResults, CheckedRole};

mod databases;
mod findings;
mod nats;
mod online;
mod returns;

/// Checks the selected role or, if none is selected, each role that has a file in the directory.
pub(super) fn run(
    sources: &Sources,
    is_online: bool,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let roles = match sources.role {
        Some(role) => vec![Some(role)],
        None => configured_roles(sources),
    };
    let (mut errors, mut warnings, mut checked) = (Vec::new(), Vec::new(), Vec::new());
    let mut passed = Vec::new();
    for role in &roles {
        match Config::load(&Sources { role: *role, ..sources.clone() }) {
            Ok(loaded) => {
                warnings.extend(loaded.warnings);
                let config = &loaded.config.catalogue;
                match catalogue::load(&config.directory, &config.defaults) {
                    Ok(catalogue) => {
                        warnings.extend(routes::warnings(&catalogue));
                        let config = loaded.config;
                        if *role == Some(Role::Worker) {
                            let (short, enough) = pool_sizes::summaries(&config, &catalogue);
                            warnings
                                .extend(short.into_iter().map(|line| format!("worker: {line}")));
                            passed.extend(enough.into_iter().map(|line| format!("worker: {line}")));
                        }
                        checked.extend(role.map(|role| CheckedRole { role, config, catalogue }));
                    }
                    Err(found) => errors.extend(found.iter().map(ToString::to_string)),
                }
            }
            Err(found) => errors.extend(found.iter().map(ToString::to_string)),
        }
    }
    let online = if is_online { online::run(&checked)? } else { CheckResults::default() };
    errors.extend(online.errors);
    warnings.extend(online.warnings);
    sort(&mut errors);
    sort(&mut warnings);
    print_lines(&mut output.err, "warning", &warnings)?;
    print_lines(&mut output.err, "error", &errors)?;
    for line in passed.iter().chain(&online.passed) {
        writeln!(output.out, "{line}")?;
    }
    if !errors.is_empty() {
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let names: Vec<&str> = roles.iter().flatten().map(|role| role.as_str()).collect();
    let names = if names.is_empty() { "no role".to_owned() } else { names.join(" and ") };
    writeln!(output.out, "{}: valid for {names}", sources.directory().display())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the roles that have a file. If there are none, returns a single `None`: the configuration is then checked without a
/// role, so no role's required keys and files are checked.
fn configured_roles(sources: &Sources) -> Vec<Option<Role>> {
    let configured = Role::ALL.into_iter().filter(|role| sources.has_role_file(*role));
    let roles: Vec<_> = configured.map(Some).collect();
    if roles.is_empty() { vec![None] } else { roles }
}

/// Sorts a list and removes duplicates: the roles share most layers, so they have errors in common.
fn sort<T: Ord>(list: &mut Vec<T>) {
    list.sort();
    list.dedup();
}
