//! `fjord check`: reports every error that would prevent a role from starting, without starting the role. With
//! `--online`, also checks the NATS servers and databases in the configuration.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{EXIT_USAGE, Output, routes};
use crate::catalogue;
use crate::cli::{CheckArguments, CheckFormat, Role};
use crate::config::{Config, Sources};
use crate::procedures::pool_sizes;
use crate::start_check::{self, PrepareFunction, StartError};

use findings::{CheckResults, CheckedRole};
use report::{CheckReport, Severity};

mod databases;
mod findings;
mod in_flight;
mod nats;
mod online;
mod position;
mod report;
mod returns;
mod schemas;

/// Checks the selected role or, if none is selected, each role that the configuration directory defines.
pub(super) fn run(
    sources: &Sources,
    arguments: CheckArguments,
    prepare: PrepareFunction,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let roles = match sources.role {
        Some(role) => vec![role],
        None => configured_roles(sources),
    };
    let mut report = CheckReport::new(sources.directory(), &roles);
    let mut checked = Vec::new();
    for role in &roles {
        let sources = Sources { role: Some(*role), ..sources.clone() };
        checked.extend(check_role(*role, &sources, prepare, &mut report));
    }
    if roles.is_empty() {
        check_without_role(sources, &mut report);
    }
    let online = if arguments.online { online::run(&checked)? } else { CheckResults::default() };
    report.add_online(online);
    report.sort();
    match arguments.format {
        CheckFormat::Text => report.write_text(output)?,
        CheckFormat::Json => writeln!(output.out, "{:#}", report.to_json())?,
    }
    Ok(if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) })
}

/// Performs the first steps of starting a role.
fn check_role(
    role: Role,
    sources: &Sources,
    prepare: PrepareFunction,
    report: &mut CheckReport,
) -> Option<CheckedRole> {
    let (settings, _) = Config::load_with_errors(sources);
    for warning in settings.map(|loaded| loaded.warnings).unwrap_or_default() {
        report.add(Severity::Warning, role, &StartError::Config(warning));
    }
    let (loaded, catalogue) = match start_check::load(sources, |loaded| prepare(role, loaded)) {
        Ok(prepared) => prepared,
        Err(errors) => {
            for error in &errors {
                report.add(Severity::Error, role, error);
            }
            return None;
        }
    };
    report.add_warnings(routes::warnings(&catalogue));
    report.add_warnings(schemas::warnings(&catalogue));
    if role == Role::Gateway {
        let limit = loaded.config.gateway.http.requests_in_flight_per_caller_max;
        report.add_warnings(in_flight::warnings(&catalogue, limit));
    }
    if role == Role::Worker {
        let (short, enough) = pool_sizes::summaries(&loaded.config, &catalogue);
        report.add_warnings(short.into_iter().map(|line| format!("worker: {line}")));
        report.passed.extend(enough.into_iter().map(|line| format!("worker: {line}")));
    }
    Some(CheckedRole { role, config: loaded.config, catalogue })
}

/// Checks the catalogue and the sections that both roles share.
fn check_without_role(sources: &Sources, report: &mut CheckReport) {
    let checked = start_check::load(sources, |loaded| {
        let config = &loaded.config.catalogue;
        let catalogue = catalogue::load(&config.directory, &config.defaults);
        catalogue.map_err(|errors| errors.into_iter().map(StartError::from).collect())
    });
    match checked {
        Ok((loaded, catalogue)) => {
            for warning in loaded.warnings {
                report.add(Severity::Warning, None, &StartError::Config(warning));
            }
            report.add_warnings(routes::warnings(&catalogue));
            report.add_warnings(schemas::warnings(&catalogue));
        }
        Err(errors) => errors.iter().for_each(|error| report.add(Severity::Error, None, error)),
    }
}

/// Returns the roles that have a file of their own. If neither role has one, returns the roles whose section contains
/// keys in a shared layer. Hosts of different roles may share such a layer.
fn configured_roles(sources: &Sources) -> Vec<Role> {
    let with_file: Vec<_> =
        Role::ALL.into_iter().filter(|role| sources.has_role_file(*role)).collect();
    if !with_file.is_empty() {
        return with_file;
    }
    let sections = Config::sections(&Sources { role: None, ..sources.clone() });
    let has_section = |role: &Role| sections.iter().any(|section| section == role.as_str());
    Role::ALL.into_iter().filter(has_section).collect()
}
