//! `fjord dev`: runs a NATS server, a worker and a gateway for developing an API. Applies changes to files while these
//! processes are running.
//!
//! The roles are child processes that run the same executable, as in production, because signals, logs and metrics are
//! process-wide.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::private_directory::PrivateDirectory;
use super::process_guard::ProcessGuard;
use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::cli::DevArguments;
use crate::config::Sources;
use crate::lifecycle::Signals;
use crate::start_check::PrepareFunction;
use crate::telemetry::chain;
use crate::tls::ThrowawayCertificates;

mod child;
mod console;
mod introduction;
mod nats_server;
mod plan;
mod ports;
mod role_process;
mod samples;
mod session;
mod token;
mod watcher;

use child::ChildProcess;
use console::{Console, NATS_SERVER};
use plan::{DevPlan, RunFiles};
use session::DevSession;
use token::TokenSigner;

/// The maximum time to wait until the NATS server is listening.
const NATS_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two checks of whether the NATS server is listening.
const TICK: Duration = Duration::from_millis(5);

/// Runs all processes until a signal arrives or one of them exits unexpectedly.
pub(super) fn run(
    arguments: &DevArguments,
    sources: &Sources,
    check_role: PrepareFunction,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let base = Sources {
        directory: Some(arguments.directory.clone()),
        role: None,
        only_nats_files: false,
        may_be_incomplete: false,
        ..sources.clone()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From this point on, a signal ends the process only after the directory has been removed.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let directory = match &arguments.run_directory {
        Some(path) => PrivateDirectory::named(path),
        None => PrivateDirectory::temporary("fjord-dev"),
    };
    let directory = match directory {
        Ok(directory) => directory,
        Err(error) => return fail(output, EXIT_FAILED, &[error]),
    };
    let prepared = Box::pin(start(&base, directory.path(), check_role, &mut signals, output));
    let status = runtime.block_on(prepared);
    // Dropping the runtime stops the remaining processes, so that they cannot write to the directory.
    drop(runtime);
    drop(directory);
    status
}

fn fail(
    output: &mut Output<impl Write, impl Write>,
    status: u8,
    errors: &[String],
) -> io::Result<ExitCode> {
    print_lines(&mut output.err, "error", errors)?;
    Ok(ExitCode::from(status))
}

/// Creates the files of the run, checks the configuration and starts all processes.
async fn start(
    base: &Sources,
    directory: &Path,
    check_role: PrepareFunction,
    signals: &mut Signals,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let started = Instant::now();
    let created = ThrowawayCertificates::create(directory).map_err(|error| chain(&error));
    let created = created.and_then(|certificates| Ok((certificates, TokenSigner::new()?)));
    let (certificates, signer) = match created {
        Ok(created) => created,
        Err(error) => return fail(output, EXIT_FAILED, &[error]),
    };
    let files = RunFiles { directory, certificates: &certificates, signer: &signer, check_role };
    let plan = match DevPlan::load(base, &files, None) {
        Ok(plan) => plan,
        Err(errors) => return fail(output, EXIT_USAGE, &errors),
    };
    let executable = match nats_server::find(&base.environment).await {
        Ok(executable) => executable,
        Err(error) => return fail(output, EXIT_FAILED, &[error]),
    };
    let port = plan.ports.nats.port;
    let command = match nats_server::command(&executable, directory, &certificates, port) {
        Ok(command) => command,
        Err(error) => return fail(output, EXIT_FAILED, &[error]),
    };
    let mut console = Console::new(output, ProcessGuard::start(Some(directory))?);
    let mut nats = ChildProcess::start(NATS_SERVER, command, &console.context())?;
    let is_listening = tokio::select! {
        is_listening = console.during(listens(&mut nats, directory)) => is_listening?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    if let Err(error) = is_listening {
        let last = nats.last_lines().await;
        let lines = last.iter().map(console::format);
        console.errors(&std::iter::once(error).chain(lines).collect::<Vec<_>>())?;
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    let mut session = DevSession::start(base, files, plan, console, (nats, started))?;
    let status = Box::pin(session.run(signals)).await;
    session.stop(signals).await?;
    status
}

/// Waits until the NATS server is listening.
async fn listens(nats: &mut ChildProcess, directory: &Path) -> Result<(), String> {
    let is_listening = async {
        while !nats_server::is_listening(directory) {
            sleep(TICK).await;
        }
    };
    tokio::select! {
        () = is_listening => Ok(()),
        _ = nats.wait() => Err(format!("{NATS_SERVER} has ended; its last lines:")),
        () = sleep(NATS_LIMIT) => Err(format!("{NATS_SERVER} is not listening after {NATS_LIMIT:?}")),
    }
}
