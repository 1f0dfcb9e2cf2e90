//! `fjord import`: writes catalogue entries from the database's procedures. It changes nothing that is there.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::timeout;

use super::{EXIT_FAILED, EXIT_USAGE, Output, tell};
use crate::catalogue;
use crate::cli::{AuthWord, ImportArguments, Role};
use crate::config::procedures::DatabaseConfig;
use crate::config::worker::DEFAULT_DATABASE;
use crate::config::{CatalogueConfig, Config, Sources};
use crate::procedures::databases;
use crate::procedures::described::Described;
use crate::telemetry::chain;

use entry::Written;
use taken::Taken;

mod entry;
mod taken;
mod words;

/// Longest wait for the database.
const LIMIT: Duration = Duration::from_mins(1);

/// What a person has to look at in everything that was written.
const ADVICE: [&str; 3] = [
    "every parameter is required: the database does not say which have a default; take \"required\" away where one has",
    "GET is for names that read: look whether these procedures really write nothing, they may be executed twice",
    "results are a guess from the names, \"full\" where there is none: write what the procedure returns",
];

/// Describes, writes, and says what was left out.
pub(super) fn run(
    arguments: &ImportArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let role = sources.role.or(Some(Role::Worker));
    let config = match Config::load(&Sources { role, ..sources.clone() }) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            tell(&mut output.err, "error", &errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if config.catalogue.auth_default.is_none() && arguments.auth.is_none() {
        let text = "--auth: is missing: the configuration has no catalogue.auth_default, so say who may call";
        tell(&mut output.err, "error", [text])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let name = arguments.database.as_deref().unwrap_or(DEFAULT_DATABASE);
    let Some(database) = config.procedures.databases.get(name) else {
        let text = format!("--database: no [procedures.databases.{name}] is configured");
        tell(&mut output.err, "error", [text])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    };
    let described = match describe(name, database, arguments)? {
        Ok(described) => described,
        Err(error) => {
            writeln!(output.err, "error: {error}")?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    };
    let mut taken = match Taken::by(&config.catalogue) {
        Ok(taken) => taken,
        Err(errors) => {
            tell(&mut output.err, "error", errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let entries = entries(&described, arguments, &config.catalogue, &mut taken, output)?;
    if entries.is_empty() {
        writeln!(output.err, "error: no procedure of {:?} is new", arguments.pattern)?;
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    let count = entries.len();
    let mut text = serde_json::to_string_pretty(&entry::Document(entries))?;
    text.push('\n');
    if let Some(path) = &arguments.output {
        // Never over what is there: somebody may have worked on it.
        let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            writeln!(output.err, "error: {} is not written: {error}", path.display())?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    } else {
        output.out.write_all(text.as_bytes())?;
    }
    writeln!(output.err, "{count} endpoints written")?;
    tell(&mut output.err, "look", ADVICE)?;
    Ok(ExitCode::SUCCESS)
}

/// The procedures that fit, or why they cannot be had.
fn describe(
    name: &str,
    database: &DatabaseConfig,
    arguments: &ImportArguments,
) -> io::Result<Result<Vec<Described>, String>> {
    if let DatabaseConfig::Sqlite(sqlite) = database
        && sqlite.schema.is_some()
        && !sqlite.file.exists()
    {
        // A worker makes it from its schema; we only read.
        let file = sqlite.file.display();
        return Ok(Err(format!("database {name}: {file} is not there: start a worker first")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let failed = |error| format!("database {name}: {}", chain(&error));
        let backend = databases::connect(database, name).map_err(failed)?;
        let described = timeout(LIMIT, backend.describe(&arguments.pattern)).await;
        backend.close().await;
        described
            .map_err(|_| format!("database {name}: no answer within {LIMIT:?}"))?
            .map_err(failed)
    }))
}

/// An entry for each procedure that can have one and is not in the catalogue yet; says why others have none.
fn entries<'a>(
    described: &'a [Described],
    arguments: &ImportArguments,
    config: &CatalogueConfig,
    taken: &mut Taken,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Vec<(String, Written<'a>)>> {
    let mut entries = Vec::new();
    for procedure in described {
        if taken.has_procedure(&procedure.name) {
            writeln!(output.err, "left out: {}: the catalogue has it", procedure.name)?;
            continue;
        }
        let made =
            entry::make(procedure, &arguments.prefix, arguments.auth.map(written_auth), taken);
        let checked = made.and_then(|(id, entry)| {
            let text = serde_json::to_string(&entry::Document(vec![(id.clone(), entry.clone())]))
                .map_err(|error| error.to_string())?;
            match catalogue::load::parse(&[("", &text)], config) {
                Ok(_) => Ok((id, entry)),
                Err(errors) => {
                    Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
                }
            }
        });
        match checked {
            Ok((id, entry)) => {
                taken.take(&id, &entry.route);
                entries.push((id, entry));
            }
            Err(reason) => {
                writeln!(output.err, "left out: {}: {reason}", procedure.name)?;
            }
        }
    }
    Ok(entries)
}

/// `auth` as the catalogue has it.
fn written_auth(word: AuthWord) -> serde_json::Value {
    let method = match word {
        AuthWord::Public => return "public".into(),
        AuthWord::Jwt => "jwt",
        AuthWord::ApiKey => "api-key",
        AuthWord::Certificate => "certificate",
    };
    serde_json::json!({ "methods": [method] })
}
