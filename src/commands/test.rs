//! `fjord test`: runs the examples in the catalogue and compares the answers with the expected ones. The answers come
//! from a gateway or directly from the procedures.

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
use crate::local_api::OpenFunction;
use crate::telemetry::logs;

use availability::Availability;
use database_copies::DatabaseCopies;
use evaluation::{HttpAnswer, evaluate};
use gateway_client::GatewayClient;
use interruptible::StopFlag;
use junit::JunitFile;
use result::{ExampleOutcome, ExampleResult, TargetError};
use target::ExampleTarget;
use update::{CatalogueFiles, UpdateResult};

mod availability;
mod credentials;
mod database_copies;
mod evaluation;
mod gateway_client;
mod interruptible;
mod junit;
mod report;
mod result;
mod selection;
mod target;
mod update;

/// The extra time that an example may take beyond the `session` timeout of its endpoint.
const MARGIN: Duration = Duration::from_secs(10);
/// The maximum time to wait for connections to close, and for work on other threads to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// The maximum total size in bytes of the answers that are kept for `--update`.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The reason why no example was run.
#[derive(Debug)]
enum TestError {
    /// The arguments, the configuration or the catalogue are invalid.
    Usage(Vec<String>),
    /// A file, the network or a database is unavailable.
    Failed(Vec<String>),
}

/// Runs the selected examples and reports their results. The caller must not hold the locks of stdout and stderr.
pub(super) fn run(arguments: &TestArguments, sources: &Sources, open: OpenFunction) -> ExitCode {
    let status = prepare_and_run(arguments, sources, open).unwrap_or_else(|error| {
        let (status, errors) = match error {
            TestError::Usage(errors) => (EXIT_USAGE, errors),
            TestError::Failed(errors) => (EXIT_FAILED, errors),
        };
        print_errors(&errors, &mut io::stderr().lock());
        status
    });
    ExitCode::from(status)
}

/// Prints errors. If printing fails too, only the exit status shows that there were errors.
fn print_errors(errors: &[String], err: &mut impl Write) {
    print_lines(err, "error", errors.iter().map(|error| printable(error))).ok();
}

/// How a run ended.
#[derive(Debug)]
enum RunEnd {
    /// Every selected example has a result.
    Completed,
    /// The remaining examples were not run, for this reason.
    Stopped(String),
    /// No example was run.
    NotStarted(TestError),
}

/// Runs the examples and returns the exit status.
fn prepare_and_run(
    arguments: &TestArguments,
    sources: &Sources,
    open: OpenFunction,
) -> Result<u8, TestError> {
    // The report is started first, so that the file never contains the results of an earlier run.
    let junit = arguments.junit.as_deref().map(JunitFile::start);
    let junit = junit.transpose().map_err(|error| TestError::Failed(vec![error]))?;
    // Queues and databases are named only in the worker's configuration.
    let role = if arguments.url.is_some() { sources.role } else { Some(Role::Worker) };
    let sources = Sources { role, ..sources.clone() };
    let plan = match TestPlan::create(arguments, &sources) {
        Ok(plan) => plan,
        Err(error) => return Err(report_not_started(junit, error, Duration::ZERO)),
    };
    logs::warn_on_stderr();
    let copies = plan.copies.clone();
    // Up to this point, a signal ends the process. From now on, a signal ends only the run, so that the databases can
    // be removed.
    let ended = interruptible::run(move |stop| {
        // Log lines are also written to stderr, so stderr must not stay locked.
        let mut output = Output { out: io::stdout().lock(), err: io::stderr() };
        plan.execute(open, stop, junit, &mut output)
    });
    copies.remove();
    match ended {
        Ok(Some(status)) => status,
        Ok(None) => Ok(EXIT_FAILED),
        Err(error) => Err(TestError::Failed(vec![format!("cannot start the run: {error}")])),
    }
}

/// The state of a run.
#[derive(Debug)]
struct TestPlan {
    arguments: TestArguments,
    config: Config,
    catalogue: Arc<Catalogue>,
    /// The endpoint and the index of each selected example.
    selected: Vec<(Arc<Endpoint>, usize)>,
    /// The client for the gateway. Present if `--url` is used and the run has not started.
    gateway: Option<GatewayClient>,
    /// The catalogue files. Present with `--update`.
    files: Option<CatalogueFiles>,
    /// The databases of the run. Used if neither `--url` nor `--in-place` is given.
    copies: DatabaseCopies,
}

impl TestPlan {
    fn create(arguments: &TestArguments, sources: &Sources) -> Result<Self, TestError> {
        let (config, catalogue) = load(sources).map_err(TestError::Usage)?;
        let catalogue = match &arguments.queue {
            None => catalogue,
            Some(name) => in_queue(&catalogue, name).map_err(|it| TestError::Usage(vec![it]))?,
        };
        let selected = selection::select(&catalogue, &arguments.filters)
            .map_err(|error| TestError::Usage(vec![error]))?;
        let failed = |error: String| TestError::Failed(vec![error]);
        let gateway = arguments.url.as_deref().map(|url| GatewayClient::new(url, arguments));
        let gateway = gateway.transpose()?;
        let files = arguments.update.then(|| CatalogueFiles::read(&catalogue));
        let files = files.transpose().map_err(failed)?;
        let (arguments, copies) = (arguments.clone(), DatabaseCopies::default());
        Ok(Self { arguments, config, catalogue, selected, gateway, files, copies })
    }

    /// Runs the examples and reports the results. Returns the exit status.
    fn execute(
        mut self,
        open: OpenFunction,
        mut stop: StopFlag,
        junit: Option<JunitFile>,
        output: &mut Output<impl Write, impl Write>,
    ) -> Result<u8, TestError> {
        let started = Instant::now();
        let mut results: Vec<ExampleResult> = Vec::with_capacity(self.selected.len());
        let gateway = self.gateway.take();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = match runtime {
            Ok(runtime) => {
                let ended = runtime.block_on(async {
                    tokio::select! {
                        ended = self.run_all(gateway, open, &mut results, output) => ended,
                        _ = stop.wait_for(|stop| *stop) => RunEnd::Stopped("stopped by a signal".to_owned()),
                    }
                });
                // A procedure that does not end must not keep the process alive.
                runtime.shutdown_timeout(CLOSE_LIMIT);
                ended
            }
            Err(error) => {
                let error = format!("cannot create a runtime: {error}");
                RunEnd::NotStarted(TestError::Failed(vec![error]))
            }
        };
        self.copies.remove();
        self.report(&results, ended, started.elapsed(), (junit, output))
    }

    /// Runs the examples sequentially, in catalogue order, because an example can depend on data written by earlier
    /// ones.
    async fn run_all(
        &self,
        gateway: Option<GatewayClient>,
        open: OpenFunction,
        results: &mut Vec<ExampleResult>,
        output: &mut Output<impl Write, impl Write>,
    ) -> RunEnd {
        let opened = if let Some(client) = gateway {
            Ok(ExampleTarget::Gateway(client))
        } else {
            let config = self.config.clone();
            let copies = (!self.arguments.in_place).then_some(&self.copies);
            ExampleTarget::open_procedures(copies, config, &self.catalogue, open).await
        };
        let target = match opened {
            Ok(target) => target,
            Err(error) => return RunEnd::NotStarted(error),
        };
        let ended = self.run_selected(&target, results, output).await;
        // A timeout is ignored, because the databases are removed in any case.
        timeout(CLOSE_LIMIT, target.close()).await.ok();
        ended
    }

    async fn run_selected(
        &self,
        target: &ExampleTarget,
        results: &mut Vec<ExampleResult>,
        output: &mut Output<impl Write, impl Write>,
    ) -> RunEnd {
        let mut availability = Availability::default();
        let mut kept_bytes = 0;
        for (endpoint, index) in &self.selected {
            let Some(example) = endpoint.examples.get(*index) else { continue };
            if let Some(reason) = availability.reason() {
                return RunEnd::Stopped(reason);
            }
            let started = Instant::now();
            let (outcome, received) =
                match run_example(endpoint, example, target, &mut availability).await {
                    Ok(ended) => ended,
                    Err(reason) => return RunEnd::Stopped(reason),
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
                let written = report::write_result(&result, &mut output.out);
                if let Err(error) = written.and_then(|()| output.out.flush()) {
                    results.push(result);
                    return RunEnd::Stopped(not_written(&error));
                }
            }
            results.push(result);
        }
        RunEnd::Completed
    }

    /// Writes the answers to the catalogue and the results to stdout. Returns the exit status.
    fn report(
        self,
        results: &[ExampleResult],
        ended: RunEnd,
        took: Duration,
        (junit, output): (Option<JunitFile>, &mut Output<impl Write, impl Write>),
    ) -> Result<u8, TestError> {
        let mut errors = Vec::new();
        let mut updated = UpdateResult::default();
        match ended {
            RunEnd::NotStarted(error) => return Err(report_not_started(junit, error, took)),
            RunEnd::Stopped(reason) => {
                let missing = self.selected.len() - results.len();
                let not_updated = if self.files.is_some() { "; no file was updated" } else { "" };
                errors.push(format!("{reason}; examples without a result: {missing}{not_updated}"));
            }
            RunEnd::Completed => {
                if let Some(files) = &self.files {
                    let defaults = &self.config.catalogue.defaults;
                    updated = files.update(&self.catalogue, defaults, results);
                    errors.extend(updated.errors.iter().cloned());
                }
            }
        }
        let is_unresolved = |result: &ExampleResult| {
            result.outcome.is_failure() && !updated.examples.contains(&result.id())
        };
        let mut status =
            if errors.is_empty() && !results.iter().any(is_unresolved) { 0 } else { EXIT_FAILED };
        let is_skipped =
            |result: &ExampleResult| matches!(result.outcome, ExampleOutcome::Skipped(_));
        if let Some(first) = results.first()
            && errors.is_empty()
            && results.iter().all(is_skipped)
        {
            let reason = first.outcome.lines().concat();
            errors.push(format!("every example was skipped: {}: {reason}", first.id()));
            status = EXIT_USAGE;
        }
        if let Some(junit) = junit
            && let Err(error) = junit.write(results, &updated.examples, &errors, took)
        {
            errors.push(error);
            status = EXIT_FAILED;
        }
        let out = &mut output.out;
        let written = match self.arguments.format {
            TestFormat::Text => report::write_summary(results, &updated, took, out),
            TestFormat::Json => report::write_json(results, &updated, &errors, took, out),
        };
        if let Err(error) = written.and_then(|()| out.flush()) {
            // The exit status is a failure even if the reader has closed the pipe. A caller that checks only the status
            // must not mistake missing results for success.
            status = EXIT_FAILED;
            let error = not_written(&error);
            if !errors.iter().any(|known| known.starts_with(&error)) {
                errors.push(error);
            }
        }
        print_errors(&errors, &mut output.err);
        Ok(status)
    }
}

fn not_written(error: &io::Error) -> String {
    format!("cannot write the output: {error}")
}

/// Writes the errors that prevented the run from starting to the `JUnit` file.
fn report_not_started(junit: Option<JunitFile>, error: TestError, took: Duration) -> TestError {
    let Some(junit) = junit else { return error };
    let (TestError::Usage(errors) | TestError::Failed(errors)) = &error;
    let written = junit.write(&[], &[], errors, took);
    match (error, written) {
        (error, Ok(())) => error,
        (TestError::Usage(errors), Err(another)) => {
            TestError::Usage([errors, vec![another]].concat())
        }
        (TestError::Failed(errors), Err(another)) => {
            TestError::Failed([errors, vec![another]].concat())
        }
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

/// Returns a copy of the catalogue in which every endpoint that uses this queue uses no other.
fn in_queue(catalogue: &Catalogue, name: &str) -> Result<Arc<Catalogue>, String> {
    let found = catalogue.with_queue(name);
    let missing = || format!("--queue: no endpoint has the queue {name:?}: see fjord routes");
    found.map(Arc::new).ok_or_else(missing)
}

/// Runs an example. Returns its outcome and the answer.
///
/// # Errors
/// Returns the reason why no request can reach the target.
async fn run_example(
    endpoint: &Endpoint,
    example: &Example,
    target: &ExampleTarget,
    availability: &mut Availability,
) -> Result<(ExampleOutcome, Option<HttpAnswer>), String> {
    if let Some(reason) = target.reason_to_skip(endpoint) {
        return Ok((ExampleOutcome::Skipped(reason), None));
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
            return Ok((outcome, Some(received)));
        }
        Ok(Err(TargetError::Unreachable(reason))) => return Err(reason),
        Ok(Err(TargetError::NoAnswer(reason))) => {
            availability.not_answered();
            reason
        }
        Ok(Err(TargetError::Failed(reason))) => {
            availability.answered();
            reason
        }
        Err(_) => {
            availability.not_answered();
            format!("no answer within {limit:?}")
        }
    };
    Ok((ExampleOutcome::Error(error), None))
}
