//! `fjord config`: prints the effective configuration, with the origin of each value.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{EXIT_USAGE, Output, print_lines};
use crate::catalogue;
use crate::cli::Role;
use crate::config::{Config, SettingEntry, SettingOrigin, Sources};
use crate::procedures::pool_sizes;

/// Prints lines of TOML, `key = value  # origin`, sorted by key. Keys without a value are printed as comments. Secrets
/// are redacted.
pub(super) fn run(
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let loaded = match Config::load(sources) {
        Ok(loaded) => loaded,
        Err(errors) => {
            print_lines(&mut output.err, "error", &errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut entries = loaded.entries;
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries.iter().try_for_each(|entry| write_entry(&mut output.out, entry))?;
    for line in connections(&loaded.config) {
        writeln!(output.out, "# {line}")?;
    }
    print_lines(&mut output.err, "warning", &loaded.warnings)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns lines about the number of database connections. The number depends on the settings and on the queues in the
/// catalogue.
fn connections(config: &Config) -> Vec<String> {
    if config.role != Some(Role::Worker) {
        return Vec::new();
    }
    let Ok(catalogue) = catalogue::load(&config.catalogue.directory, &config.catalogue.defaults)
    else {
        return Vec::new();
    };
    let (mut lines, enough) = pool_sizes::summaries(config, &catalogue);
    lines.extend(enough);
    lines
}

fn write_entry(out: &mut impl Write, entry: &SettingEntry) -> io::Result<()> {
    let origin = match &entry.origin {
        SettingOrigin::Default => "default",
        SettingOrigin::Layer(name) => name,
    };
    match &entry.value {
        Some(value) => writeln!(out, "{} = {value}  # {origin}", entry.key),
        None => writeln!(out, "# {} is not set", entry.key),
    }
}
