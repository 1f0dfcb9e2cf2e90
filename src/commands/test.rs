//! `fjord test`: runs the examples of the catalogue and compares the answers: those of a gateway, or those of the procedures
//! themselves.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::printable::printable;
use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::catalogue::{self, Catalogue, Endpoint, Example};
use crate::cli::{Role, TestArguments, TestFormat};
use crate::config::{Config, Sources};
use crate::lifecycle::Signals;
use crate::local_api::OpenFunction;
use crate::telemetry::logs;

use availability::Availability;
use evaluation::{HttpAnswer, evaluate};
use junit::JunitFile;
use result::{ExampleOutcome, ExampleResult, TargetError};
use target::ExampleTarget;
use update::{CatalogueFiles, UpdateResult};

mod availability;
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
/// The longest wait for connections to close, and for what still runs on other threads.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// The maximum size of all answers that are kept for `--update`, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;

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
    let (status, errors) = match test(arguments, sources, open, output)? {
        Ok(status) => return Ok(ExitCode::from(status)),
        Err(TestError::Usage(errors)) => (EXIT_USAGE, errors),
        Err(TestError::Failed(errors)) => (EXIT_FAILED, errors),
    };
    print_errors(&errors, output)?;
    Ok(ExitCode::from(status))
}

fn print_errors(errors: &[String], output: &mut Output<impl Write, impl Write>) -> io::Result<()> {
    print_lines(&mut output.err, "error", errors.iter().map(|error| printable(error)))
}

/// Returns the exit status of a run.
fn test(
    arguments: &TestArguments,
    sources: &Sources,
    open: OpenFunction,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Result<u8, TestError>> {
    // Only the worker's configuration names queues and databases.
    let role = if arguments.url.is_some() { sources.role } else { Some(Role::Worker) };
    let sources = Sources { role, ..sources.clone() };
    let plan = match TestPlan::create(arguments, &sources) {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    logs::warn_on_stderr();
    // One thread, because it holds the lock of stderr, which the log lines need, too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let mut results: Vec<ExampleResult> = Vec::with_capacity(plan.selected.len());
    let ended = runtime.block_on(async {
        // From now on, a signal does not end this process before it has removed the databases.
        let mut signals = Signals::listen()?;
        tokio::select! {
            ended = plan.run_all(open, &mut results, output) => ended,
            _ = signals.next() => Ok(Ok(true)),
        }
    });
    // A procedure that does not end must not keep the process.
    runtime.shutdown_timeout(CLOSE_LIMIT);
    match ended? {
        Ok(is_interrupted) => plan.report(&results, is_interrupted, started.elapsed(), output),
        Err(error) => Ok(Err(error)),
    }
}

/// Everything that a run needs.
#[derive(Debug)]
struct TestPlan<'a> {
    arguments: &'a TestArguments,
    config: Config,
    catalogue: Arc<Catalogue>,
    /// The endpoint and the index of each example.
    selected: Vec<(Arc<Endpoint>, usize)>,
    /// With `--update`.
    files: Option<CatalogueFiles>,
    junit: Option<JunitFile>,
}

impl<'a> TestPlan<'a> {
    fn create(arguments: &'a TestArguments, sources: &Sources) -> Result<Self, TestError> {
        let (config, catalogue) = load(sources).map_err(TestError::Usage)?;
        let catalogue = match &arguments.queue {
            None => catalogue,
            Some(name) => in_queue(&catalogue, name).map_err(|it| TestError::Usage(vec![it]))?,
        };
        let selected = selection::select(&catalogue, &arguments.filters)
            .map_err(|error| TestError::Usage(vec![error]))?;
        let failed = |error: String| TestError::Failed(vec![error]);
        let files = arguments.update.then(|| CatalogueFiles::read(&catalogue));
        let files = files.transpose().map_err(failed)?;
        let junit = arguments.junit.as_deref().map(JunitFile::create);
        let junit = junit.transpose().map_err(failed)?;
        Ok(Self { arguments, config, catalogue, selected, files, junit })
    }

    /// Runs examples one after the other, in the order of the catalogue, because each can depend on what the ones before wrote.
    /// Returns false, because it was not interrupted.
    async fn run_all(
        &self,
        open: OpenFunction,
        results: &mut Vec<ExampleResult>,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Result<bool, TestError>> {
        let config = self.config.clone();
        let opened = ExampleTarget::open(self.arguments, config, &self.catalogue, open).await;
        let target = match opened {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        let mut availability = Availability::default();
        let mut kept_bytes = 0;
        for (endpoint, index) in &self.selected {
            let Some(example) = endpoint.examples.get(*index) else { continue };
            let started = Instant::now();
            let (outcome, received) = match availability.reason() {
                Some(reason) => (ExampleOutcome::Error(format!("not sent: {reason}")), None),
                None => run_example(endpoint, example, &target, &mut availability).await,
            };
            let status = received.as_ref().map(|received| received.status);
            let is_kept = self.arguments.update && matches!(outcome, ExampleOutcome::Failed(_));
            let received = received.filter(|received| {
                let bytes = kept_bytes + received.body.len();
                let is_kept = is_kept && bytes <= KEPT_BYTES_MAX;
                if is_kept {
                    kept_bytes = bytes;
                }
                is_kept
            });
            let (endpoint, duration) = (Arc::clone(endpoint), started.elapsed());
            let result =
                ExampleResult { endpoint, index: *index, outcome, duration, status, received };
            if self.arguments.format == TestFormat::Text {
                report::write_result(&result, &mut output.out)?;
                output.out.flush()?;
            }
            results.push(result);
        }
        // The databases are removed anyway.
        timeout(CLOSE_LIMIT, target.close()).await.ok();
        Ok(Ok(false))
    }

    /// Writes the answers into the catalogue and the results to stdout. Returns the exit status.
    fn report(
        self,
        results: &[ExampleResult],
        is_interrupted: bool,
        took: Duration,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Result<u8, TestError>> {
        let mut errors = Vec::new();
        let mut updated = UpdateResult::default();
        if is_interrupted {
            let missing = self.selected.len() - results.len();
            let not_updated = if self.files.is_some() { "; no file was updated" } else { "" };
            errors.push(format!(
                "stopped by a signal; examples without a result: {missing}{not_updated}"
            ));
        } else if let Some(files) = &self.files {
            updated = files.update(&self.catalogue, &self.config.catalogue.defaults, results);
            errors.extend(updated.errors.iter().cloned());
        }
        if let Some(junit) = self.junit
            && let Err(error) = junit.write(results, &updated.examples, took)
        {
            errors.push(error);
        }
        let is_unresolved = |result: &ExampleResult| {
            result.outcome.is_failure() && !updated.examples.contains(&result.id())
        };
        let mut status =
            if errors.is_empty() && !results.iter().any(is_unresolved) { 0 } else { EXIT_FAILED };
        let is_skipped =
            |result: &ExampleResult| matches!(result.outcome, ExampleOutcome::Skipped(_));
        if let Some(first) = results.first()
            && !is_interrupted
            && results.iter().all(is_skipped)
        {
            let reason = first.outcome.lines().concat();
            errors.push(format!("every example was skipped: {}: {reason}", first.id()));
            status = EXIT_USAGE;
        }
        let out = &mut output.out;
        match self.arguments.format {
            TestFormat::Text => report::write_summary(results, &updated, took, out)?,
            TestFormat::Json => report::write_json(results, &updated, took, out)?,
        }
        print_errors(&errors, output)?;
        Ok(Ok(status))
    }
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

/// Returns the catalogue with only this queue in the endpoints that have it.
fn in_queue(catalogue: &Catalogue, name: &str) -> Result<Arc<Catalogue>, String> {
    let found = catalogue.with_queue(name);
    let missing = || format!("--queue: no endpoint has the queue {name:?}: see fjord routes");
    found.map(Arc::new).ok_or_else(missing)
}

async fn run_example(
    endpoint: &Endpoint,
    example: &Example,
    target: &ExampleTarget,
    availability: &mut Availability,
) -> (ExampleOutcome, Option<HttpAnswer>) {
    if let Some(reason) = target.reason_to_skip(endpoint) {
        return (ExampleOutcome::Skipped(reason), None);
    }
    let limit = endpoint.session + MARGIN;
    let error = match timeout(limit, target.send(endpoint, example)).await {
        Ok(Ok(received)) => {
            availability.answered();
            let evaluation = evaluate(endpoint, example, &received);
            let outcome = if evaluation.is_success() {
                ExampleOutcome::Passed(evaluation)
            } else {
                ExampleOutcome::Failed(evaluation)
            };
            return (outcome, Some(received));
        }
        Ok(Err(TargetError::Unreachable(reason))) => {
            availability.unreachable(reason.clone());
            reason
        }
        Ok(Err(TargetError::Failed(reason))) => {
            availability.answered();
            reason
        }
        Err(_) => {
            availability.timed_out();
            format!("no answer within {limit:?}")
        }
    };
    (ExampleOutcome::Error(error), None)
}
