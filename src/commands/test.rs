//! `fjord test`: runs the examples of the catalogue and compares the answers: those of a gateway, or those of the procedures
//! themselves.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::catalogue::{self, Catalogue, Endpoint, Example};
use crate::cli::{Role, TestArguments, TestFormat};
use crate::config::{Config, Sources};
use crate::local_api::OpenFunction;
use crate::telemetry::logs;

use evaluation::{HttpAnswer, evaluate};
use result::{ExampleOutcome, ExampleResult, TargetError};
use target::ExampleTarget;

mod credentials;
mod database_copies;
mod evaluation;
mod gateway_client;
mod junit;
mod report;
mod result;
mod selection;
mod target;
mod update;

/// How much longer than the session of its endpoint an example may take.
const MARGIN: Duration = Duration::from_secs(10);

/// The reason why no example was run.
#[derive(Debug)]
enum TestError {
    /// The arguments, the configuration or the catalogue are invalid.
    Usage(Vec<String>),
    /// A file, the network or a database cannot be used.
    Failed(Vec<String>),
}

/// Runs the selected examples and reports their results.
pub(super) fn run(
    arguments: &TestArguments,
    sources: &Sources,
    open: OpenFunction,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let (status, errors) = match test(arguments, sources, open, output) {
        Ok(Ok(is_success)) => return Ok(ExitCode::from(u8::from(!is_success))),
        Ok(Err(TestError::Usage(errors))) => (EXIT_USAGE, errors),
        Ok(Err(TestError::Failed(errors))) => (EXIT_FAILED, errors),
        Err(error) => return Err(error),
    };
    print_lines(&mut output.err, "error", &errors)?;
    Ok(ExitCode::from(status))
}

/// Returns whether every example passed and every file was written.
fn test(
    arguments: &TestArguments,
    sources: &Sources,
    open: OpenFunction,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Result<bool, TestError>> {
    // Only the worker's configuration names queues and databases.
    let role = if arguments.url.is_some() { sources.role } else { Some(Role::Worker) };
    let sources = Sources { role, ..sources.clone() };
    let (config, catalogue) = match load(&sources) {
        Ok(loaded) => loaded,
        Err(errors) => return Ok(Err(TestError::Usage(errors))),
    };
    let selected = match selection::select(&catalogue, &arguments.filters) {
        Ok(selected) => selected,
        Err(error) => return Ok(Err(TestError::Usage(vec![error]))),
    };
    logs::warn_on_stderr();
    // One thread, because it holds the lock of stderr, which the log lines need, too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let results = runtime.block_on(async {
        let target = ExampleTarget::open(arguments, config.clone(), &catalogue, open).await?;
        let results = run_all(&selected, &target, arguments.format, output).await;
        target.close().await;
        Ok(results)
    });
    let results = match results {
        Ok(results) => results?,
        Err(error) => return Ok(Err(error)),
    };
    let mut errors = Vec::new();
    if let Some(file) = &arguments.junit
        && let Err(error) = junit::write(file, &results, started.elapsed())
    {
        errors.push(error);
    }
    let updated = if arguments.update {
        let updated = update::update(&catalogue, &config.catalogue.defaults, &results);
        errors.extend(updated.errors.iter().cloned());
        updated
    } else {
        update::UpdateResult::default()
    };
    let unresolved = results
        .iter()
        .filter(|result| result.outcome.is_failure() && !updated.examples.contains(&result.id()));
    let is_success = errors.is_empty() && unresolved.count() == 0;
    match arguments.format {
        TestFormat::Text => {
            report::write_summary(&results, &updated, started.elapsed(), &mut output.out)?;
        }
        TestFormat::Json => {
            let document = report::to_json(&results, &updated, started.elapsed());
            writeln!(output.out, "{document:#}")?;
        }
    }
    print_lines(&mut output.err, "error", &errors)?;
    Ok(Ok(is_success))
}

fn load(sources: &Sources) -> Result<(Config, Arc<Catalogue>), Vec<String>> {
    let lines = |errors: Vec<crate::config::ConfigError>| -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    };
    let config = Config::load(sources).map_err(lines)?.config;
    let catalogue = catalogue::load(&config.catalogue.directory, &config.catalogue.defaults);
    let catalogue =
        catalogue.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok((config, Arc::new(catalogue)))
}

/// Runs examples one after the other, in the order of the catalogue, because each can depend on what the ones before wrote.
async fn run_all(
    selected: &[(Arc<Endpoint>, usize)],
    target: &ExampleTarget,
    format: TestFormat,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Vec<ExampleResult>> {
    let mut results: Vec<ExampleResult> = Vec::with_capacity(selected.len());
    let mut unreachable: Option<String> = None;
    for (endpoint, index) in selected {
        let Some(example) = endpoint.examples.get(*index) else { continue };
        let started = Instant::now();
        let (outcome, received) = match &unreachable {
            Some(reason) => (ExampleOutcome::Error(format!("not sent: {reason}")), None),
            None => run_example(endpoint, example, target, &mut unreachable).await,
        };
        let (endpoint, duration) = (Arc::clone(endpoint), started.elapsed());
        let result = ExampleResult { endpoint, index: *index, outcome, duration, received };
        if format == TestFormat::Text {
            report::write_result(&result, &mut output.out)?;
            output.out.flush()?;
        }
        results.push(result);
    }
    Ok(results)
}

async fn run_example(
    endpoint: &Endpoint,
    example: &Example,
    target: &ExampleTarget,
    unreachable: &mut Option<String>,
) -> (ExampleOutcome, Option<HttpAnswer>) {
    if let Some(reason) = target.reason_to_skip(endpoint) {
        return (ExampleOutcome::Skipped(reason), None);
    }
    let limit = endpoint.session + MARGIN;
    let error = match timeout(limit, target.send(endpoint, example)).await {
        Ok(Ok(received)) => {
            let evaluation = evaluate(endpoint, example, &received);
            let outcome = if evaluation.is_success() {
                ExampleOutcome::Passed(evaluation)
            } else {
                ExampleOutcome::Failed(evaluation)
            };
            return (outcome, Some(received));
        }
        Ok(Err(TargetError::Unreachable(reason))) => {
            *unreachable = Some(reason.clone());
            reason
        }
        Ok(Err(TargetError::Failed(reason))) => reason,
        Err(_) => format!("no answer within {limit:?}"),
    };
    (ExampleOutcome::Error(error), None)
}
