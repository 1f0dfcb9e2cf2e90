//! fjord: arguments → configuration → logs → role or command → exit status.

use std::io::Write as _;
use std::process::ExitCode;

use fjord::cli::{Arguments, Layers};
use fjord::commands;
use fjord::config::{Config, Sources};

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let sources = sources(&arguments.layers);
    match arguments.command {
        Some(command) => commands::run(&command, &sources),
        None => start(&sources),
    }
}

fn sources(layers: &Layers) -> Sources {
    Sources {
        directory: layers.config.clone(),
        role: layers.role,
        environment: std::env::vars_os().collect(),
        sets: layers.set.clone(),
    }
}

/// Runs a role.
fn start(sources: &Sources) -> ExitCode {
    let mut err = std::io::stderr().lock();
    if sources.role.is_none() {
        let text = "error: nothing to run: expected --role gateway, --role worker or a command; see --help";
        writeln!(err, "{text}").ok();
        return ExitCode::from(commands::EXIT_USAGE);
    }
    match Config::load(sources) {
        Ok(_) => ExitCode::SUCCESS,
        Err(mistakes) => {
            commands::tell(&mut err, "mistake", &mistakes).ok();
            ExitCode::from(commands::EXIT_CONFIG)
        }
    }
}
