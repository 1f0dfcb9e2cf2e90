//! `fjord import`: creates catalogue entries for the procedures in a database. Existing files are not modified.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::catalogue::{self, CatalogueError};
use crate::cli::{AuthChoice, ImportArguments, Role};
use crate::config::worker::DEFAULT_DATABASE;
use crate::config::{CatalogueConfig, Config, Sources};
use crate::procedures::ResultDescription;

use entry::{ImportedEndpoint, WRAPPER};
use existing::ExistingEndpoints;
use read::ReadProcedure;

mod entry;
mod existing;
mod procedure_name;
mod read;
mod returns;
mod sample;

/// Reads the procedures, writes the entries and reports the skipped procedures.
pub(super) fn run(
    arguments: &ImportArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let role = sources.role.or(Some(Role::Worker));
    let config = match Config::load(&Sources { role, ..sources.clone() }) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            print_lines(&mut output.err, "error", &errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if config.catalogue.defaults.auth.is_none() && arguments.auth.is_none() {
        let text = "--auth is required, because the configuration has no catalogue.auth_default";
        print_lines(&mut output.err, "error", [text])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let name = arguments.database.as_deref().unwrap_or(DEFAULT_DATABASE);
    let Some(database) = config.procedures.databases.get(name) else {
        let text = format!("--database: no [procedures.databases.{name}] is configured");
        print_lines(&mut output.err, "error", [text])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    };
    let mut existing = match ExistingEndpoints::load(&config.catalogue) {
        Ok(existing) => existing,
        Err(errors) => {
            print_lines(&mut output.err, "error", errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let described = match read::procedures(name, database, arguments, &existing)? {
        Ok(described) => described,
        Err(error) => {
            writeln!(output.err, "error: {error}")?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    };
    let entries = entries(&described, arguments, &config.catalogue, &mut existing, output)?;
    if entries.is_empty() {
        let pattern = &arguments.pattern;
        match described.len() {
            0 => writeln!(output.err, "error: no procedure matches {pattern:?}")?,
            count => writeln!(
                output.err,
                "error: nothing to import: {pattern:?} matches {}, and none was imported",
                counted(count, "procedure")
            )?,
        }
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    let advice = advice(&entries);
    let count = entries.len();
    let mut text = serde_json::to_string_pretty(&entry::ImportedCatalogue(entries))?;
    text.push('\n');
    if let Some(path) = &arguments.output {
        if let Err(error) = write_new(path, &text) {
            writeln!(output.err, "error: cannot write {}: {error}", path.display())?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    } else {
        output.out.write_all(text.as_bytes())?;
    }
    writeln!(output.err, "{} written", counted(count, "endpoint"))?;
    print_lines(&mut output.err, "review", advice)?;
    Ok(ExitCode::SUCCESS)
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Creates the directory of a new file and writes the file either completely or not at all. An existing file is never
/// overwritten, because a person may have edited it.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("expected the path of a file"))?;
    // The catalogue ignores hidden files.
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Unlike a rename, this fails if the file exists. Some file systems do not support hard links.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists && !path.exists() => {
                fs::rename(&temporary, path)
            }
            linked => linked,
        }
    });
    let _already_renamed = fs::remove_file(&temporary);
    written
}

/// Returns the aspects of the created entries that a person must review.
fn advice(entries: &[(String, ImportedEndpoint<'_>)]) -> Vec<&'static str> {
    let may_have_defaults = entries.iter().any(|(_, endpoint)| endpoint.may_have_defaults());
    let has_get = entries.iter().any(|(_, endpoint)| endpoint.route.starts_with("GET "));
    let mut advice = Vec::new();
    if may_have_defaults {
        advice.push(
            "all parameters are required, because the database does not report defaults; \
             remove \"required\" from each parameter that has a default",
        );
    }
    if has_get {
        advice.push(
            "GET was chosen for some procedures because of their names. Make sure that these procedures do not write, \
             because they may be executed more than once",
        );
    }
    advice.push(
        "results were guessed from names, with \"full\" as the fallback; declare the result of each procedure",
    );
    if entries.iter().any(|(_, endpoint)| endpoint.is_typed()) {
        advice.push(
            "\"returns\" was copied from the database's description. SQL Server describes only the first result set. A \
             column is nullable unless the database reports that it is never NULL",
        );
    }
    advice
}

/// Creates an entry for each procedure that is not in the catalogue yet. For each other procedure, reports why it is
/// skipped and how to fix the problem.
fn entries<'a>(
    described: &'a [ReadProcedure],
    arguments: &ImportArguments,
    config: &CatalogueConfig,
    existing: &mut ExistingEndpoints,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Vec<(String, ImportedEndpoint<'a>)>> {
    let mut entries = Vec::new();
    for ReadProcedure { description: procedure, results, sample_error } in described {
        if existing.has_procedure(&procedure.name) {
            writeln!(output.err, "skipped: {}: it is already in the catalogue", procedure.name)?;
            continue;
        }
        let auth = arguments.auth.map(auth_json);
        let created =
            entry::create((procedure, results.as_ref()), &arguments.prefix, auth, existing);
        let checked =
            created.and_then(|(id, entry)| check(&id, &entry, config).map(|()| (id, entry)));
        match checked {
            Ok((id, entry)) => {
                existing.add(&id, &entry.route);
                let unknown = match results {
                    Some(ResultDescription { sets: Err(reason), .. }) => Some(reason.clone()),
                    _ => None,
                };
                let failed =
                    sample_error.as_ref().map(|error| format!("the sample failed: {error}"));
                let reasons: Vec<String> = unknown.into_iter().chain(failed).collect();
                if !reasons.is_empty() {
                    let reasons = on_one_line(&reasons.join("; "));
                    writeln!(output.err, "untyped: {}: {reasons}", procedure.name)?;
                }
                entries.push((id, entry));
            }
            Err(reason) => {
                writeln!(output.err, "skipped: {}: {reason}", procedure.name)?;
            }
        }
    }
    Ok(entries)
}

/// Replaces blanks and control characters such as line breaks, which a message of the database can contain, with single
/// blanks.
fn on_one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Checks that the catalogue accepts an entry.
fn check(id: &str, entry: &ImportedEndpoint<'_>, config: &CatalogueConfig) -> Result<(), String> {
    let catalogue = entry::ImportedCatalogue(vec![(id.to_owned(), entry.clone())]);
    let text = serde_json::to_string(&catalogue).map_err(|error| error.to_string())?;
    let Err(errors) = catalogue::load::parse(&[("", &text)], &config.defaults) else {
        return Ok(());
    };
    // The file does not exist yet, so the message names the procedure instead of the endpoint.
    let reasons = errors.iter().map(|CatalogueError { key, expected, .. }| match key.as_str() {
        "" => expected.clone(),
        key => format!("{key}: {expected}"),
    });
    Err(format!(
        "{}; {WRAPPER}, or write its entry by hand",
        reasons.collect::<Vec<_>>().join(", ")
    ))
}

/// Returns the value of `auth` in the catalogue.
fn auth_json(choice: AuthChoice) -> serde_json::Value {
    let method = match choice {
        AuthChoice::Public => return "public".into(),
        AuthChoice::Jwt => "jwt",
        AuthChoice::ApiKey => "api-key",
        AuthChoice::Certificate => "certificate",
    };
    serde_json::json!({ "methods": [method] })
}
