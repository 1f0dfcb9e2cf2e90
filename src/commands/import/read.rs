//! Reads the procedures in a database and the columns of their results.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::entry;
use super::existing::ExistingEndpoints;
use super::sample;
use crate::catalogue::ProcedureName;
use crate::cli::ImportArguments;
use crate::commands::result_descriptions;
use crate::config::procedures::DatabaseConfig;
use crate::procedures::databases;
use crate::procedures::description::ProcedureDescription;
use crate::procedures::{Backend, ResultDescription};
use crate::telemetry::chain;

/// The maximum time to wait for the list of procedures and their parameters.
const LIMIT: Duration = Duration::from_mins(1);
/// The maximum time to wait for the descriptions of all results. Descriptions that are still missing after this time
/// are reported.
const RESULTS_LIMIT: Duration = Duration::from_mins(5);

/// A procedure in the database.
#[derive(Debug)]
pub(super) struct ReadProcedure {
    /// The name and the parameters.
    pub(super) description: ProcedureDescription,
    /// The description of the procedure's results. `None` if no entry will be created for the procedure.
    pub(super) results: Option<ResultDescription>,
    /// The reason why sampling the results failed.
    pub(super) sample_error: Option<String>,
}

/// Returns the matching procedures, or the reason why they cannot be read.
pub(super) fn procedures(
    name: &str,
    database: &DatabaseConfig,
    arguments: &ImportArguments,
    existing: &ExistingEndpoints,
) -> io::Result<Result<Vec<ReadProcedure>, String>> {
    if let DatabaseConfig::Sqlite(sqlite) = database
        && sqlite.schema.is_some()
        && !sqlite.file.exists()
    {
        // A worker creates the file from the schema. The import only reads the file.
        let file = sqlite.file.display();
        return Ok(Err(format!("database {name}: {file} does not exist; start a worker first")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let failed = |error| format!("database {name}: {}", chain(&error));
        let backend = databases::connect(database, name).map_err(failed)?;
        let read = match timeout(LIMIT, backend.describe(&arguments.pattern)).await {
            Ok(Ok(described)) => {
                let mut read = describe_answers(&backend, described, existing).await;
                if arguments.sample {
                    add_samples(&backend, &mut read).await;
                }
                Ok(read)
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(format!("database {name}: no answer within {LIMIT:?}")),
        };
        backend.close().await;
        read
    }))
}

/// Adds result descriptions to the procedures for which an entry can be created. An error does not stop the import,
/// because the entries are useful without the descriptions.
async fn describe_answers(
    backend: &Arc<dyn Backend>,
    described: Vec<ProcedureDescription>,
    existing: &ExistingEndpoints,
) -> Vec<ReadProcedure> {
    let name = |one: &ProcedureDescription| {
        let is_new = one.parameters.is_ok() && !existing.has_procedure(&one.name);
        ProcedureName::new(&one.name).ok().filter(|_| is_new)
    };
    let names: Vec<ProcedureName> = described.iter().filter_map(name).collect();
    let deadline = Instant::now() + RESULTS_LIMIT;
    let described_results = result_descriptions::describe(backend, &names, deadline).await;
    let mut results = described_results.into_iter().map(|one| one.unwrap_or_else(Into::into));
    let read = described.into_iter().map(|description| {
        let results = name(&description).and_then(|_| results.next());
        ReadProcedure { description, results, sample_error: None }
    });
    read.collect()
}

/// Samples each procedure that will become a GET endpoint and whose results are not completely described.
async fn add_samples(backend: &Arc<dyn Backend>, procedures: &mut [ReadProcedure]) {
    for ReadProcedure { description, results, sample_error } in procedures {
        let is_read = entry::method_of(description) == Some("GET");
        let (Some(results), true) = (results, is_read) else { continue };
        let is_complete = matches!(&results.sets, Ok(sets)
            if sets.iter().flatten().all(|column| !column.kinds.is_empty()));
        let (Ok(name), Ok(parameters)) =
            (ProcedureName::new(&description.name), &description.parameters)
        else {
            continue;
        };
        if is_complete {
            continue;
        }
        let sampled = sample::add_sample(backend, &name, parameters, results).await;
        *sample_error = sampled.err();
    }
}
