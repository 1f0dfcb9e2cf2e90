//! The executable. It parses the arguments, runs a role or a command, and returns the exit status.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use fjord::cli::{Arguments, Layers};
use fjord::commands::{self, RoleFunctions};
use fjord::config::{Config, Sources};
use fjord::free_memory;
use fjord::lifecycle::Signals;
use fjord::listen;
use fjord::roles::{self, RunError};
use fjord::start_check;
use fjord::telemetry::chain;
use fjord::telemetry::logs::Logs;

/// A request allocates several hundred small objects and frees many of them on other threads. See docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The maximum time to wait for the last log lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::from_process();
    let sources = sources(&arguments.layers);
    // Only libraries use the default provider. fjord passes its provider explicitly to every rustls configuration.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        let text = "error: another TLS provider is already installed";
        writeln!(std::io::stderr(), "{text}").ok();
        return ExitCode::from(commands::EXIT_FAILED);
    }
    match arguments.command {
        Some(command) => {
            let roles = RoleFunctions {
                call_endpoint: roles::gateway::call::execute,
                prepare: roles::check,
                open_local_api: roles::local::open,
            };
            commands::run(&command, &sources, roles)
        }
        None => start(&sources),
    }
}

fn sources(layers: &Layers) -> Sources {
    Sources {
        directory: layers.config.clone(),
        role: layers.role,
        environment: std::env::vars_os().collect(),
        sets: layers.set.clone(),
        only_nats_files: false,
        may_be_incomplete: false,
    }
}

/// Runs a role.
fn start(sources: &Sources) -> ExitCode {
    listen::inherited::receive();
    let mut err = std::io::stderr().lock();
    let Some(role) = sources.role else {
        let text = "error: expected --role gateway, --role worker or a command; see --help";
        writeln!(err, "{text}").ok();
        return ExitCode::from(commands::EXIT_USAGE);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(free_memory::collect)
        .build();
    // The signal handlers are installed before any file is read, so that no signal kills the process while it starts.
    let signals = runtime.and_then(|runtime| {
        let signals = runtime.block_on(async { Signals::listen() })?;
        Ok((runtime, signals))
    });
    let (runtime, signals) = match signals {
        Ok(started) => started,
        Err(error) => {
            writeln!(err, "error: cannot create a runtime that listens for signals: {error}").ok();
            return ExitCode::from(commands::EXIT_FAILED);
        }
    };
    let Ok(loaded) = Config::load(sources) else {
        let errors = start_check::all_errors(sources, |loaded| roles::check(role, loaded));
        commands::print_lines(&mut err, "error", &errors).ok();
        return ExitCode::from(commands::EXIT_CONFIG);
    };
    let logs = match Logs::start(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => {
            writeln!(err, "error: {error}").ok();
            return ExitCode::from(commands::EXIT_FAILED);
        }
    };
    let result = runtime.block_on(roles::run(role, loaded, sources.clone(), signals));
    logs.flush(FLUSH_LIMIT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(errors)) => {
            commands::print_lines(&mut err, "error", &errors).ok();
            ExitCode::from(commands::EXIT_CONFIG)
        }
        Err(error) => {
            writeln!(err, "error: {}", chain(&error)).ok();
            ExitCode::from(commands::EXIT_FAILED)
        }
    }
}
