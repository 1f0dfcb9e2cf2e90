//! The commands of the executable, one file each.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::catalogue::{self, Catalogue};
use crate::cli::{Arguments, Command};
use crate::config::{Config, Sources};

use crate::endpoint_call::CallFunction;
use crate::local_api::OpenFunction;
use crate::start_check::PrepareFunction;

pub mod call;
mod check;
mod config;
mod control;
mod dev;
mod drain;
mod ec2;
mod import;
mod init;
mod log;
pub mod nats_connection;
pub mod openapi;
mod plain_http;
mod printable;
mod private_directory;
pub mod process_guard;
mod queue;
mod reload;
mod result_descriptions;
pub mod routes;
pub mod schema;
mod shell;
mod status;
mod table;
mod test;

/// The exit status of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// The exit status for invalid usage, or for a configuration error found by a command.
pub const EXIT_USAGE: u8 = 2;
/// The exit status of `fjord ec2 watch` if the autoscaling group terminates the instance before it is drained, or if
/// there is no lifecycle action to complete. systemd does not restart the unit, because another attempt would have the
/// same result.
pub const EXIT_TERMINATION_FAILED: u8 = 3;
/// The exit status for a configuration error found by a role when it starts (`EX_CONFIG` in sysexits.h). systemd does
/// not restart the unit (`RestartPreventExitStatus=`), because the next start would find the same error.
pub const EXIT_CONFIG: u8 = 78;

/// The output streams of a command.
#[derive(Debug)]
pub struct Output<O, E> {
    /// Receives the result.
    pub out: O,
    /// Receives errors and warnings.
    pub err: E,
}

/// The functions of the roles that commands call.
#[derive(Clone, Copy, Debug)]
pub struct RoleFunctions {
    /// Executes the call for `fjord call`.
    pub call_endpoint: CallFunction,
    /// Prepares the roles for `fjord check` and `fjord dev`.
    pub prepare: PrepareFunction,
    /// Opens the databases for `fjord test`.
    pub open_local_api: OpenFunction,
}

/// Runs a command and returns the exit status of the process.
#[must_use]
pub fn run(command: &Command, sources: &Sources, roles: RoleFunctions) -> ExitCode {
    let mut output = Output { out: io::stdout().lock(), err: io::stderr().lock() };
    let status = match command {
        Command::Check(arguments) => check::run(sources, *arguments, roles.prepare, &mut output),
        Command::Config => config::run(sources, &mut output),
        Command::Routes => {
            with_catalogue(sources, &mut output, |catalogue, _| routes::run(catalogue))
        }
        Command::Openapi => with_catalogue(sources, &mut output, |catalogue, config| {
            openapi::run(catalogue, &config.openapi)
        }),
        Command::Schema => {
            output.out.write_all(schema::run().as_bytes()).map(|()| ExitCode::SUCCESS)
        }
        Command::Status(arguments) => status::run(arguments, sources, &mut output),
        Command::Drain(arguments) => drain::run(arguments, sources, &mut output),
        Command::Queue(command) => queue::run(command, sources, &mut output),
        Command::Log(arguments) => log::run(arguments, sources, &mut output),
        Command::Ec2(command) => ec2::run(command, sources, &mut output),
        Command::Reload(arguments) => reload::run(arguments, sources, &mut output),
        Command::Call(arguments) => call::run(arguments, sources, roles.call_endpoint, &mut output),
        Command::Test(arguments) => {
            // The command locks the output itself, on another thread.
            drop(output);
            return test::run(arguments, sources, roles.open_local_api);
        }
        Command::Import(arguments) => import::run(arguments, sources, &mut output),
        Command::Init(arguments) => init::run(arguments, sources, &mut output),
        Command::Dev(arguments) => dev::run(arguments, sources, roles.prepare, &mut output),
        Command::Completions { shell } => completions(*shell, &mut output.out),
        Command::Man => clap_mangen::Man::new(Arguments::definition())
            .render(&mut output.out)
            .map(|()| ExitCode::SUCCESS),
    };
    status.unwrap_or_else(|error| failed_to_write(&error, &mut output.err))
}

/// Prints lines, each preceded by `label` and a colon.
///
/// # Errors
/// Returns an I/O error if the output cannot be written.
pub fn print_lines(
    err: &mut impl Write,
    label: &str,
    lines: impl IntoIterator<Item = impl std::fmt::Display>,
) -> io::Result<()> {
    lines.into_iter().try_for_each(|line| writeln!(err, "{label}: {line}"))
}

/// Loads the catalogue and prints the result of `print`.
fn with_catalogue(
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
    print: impl Fn(&Catalogue, &Config) -> String,
) -> io::Result<ExitCode> {
    let errors: Vec<String> = match Config::load(sources) {
        Ok(loaded) => {
            let config = &loaded.config.catalogue;
            match catalogue::load(&config.directory, &config.defaults) {
                Ok(catalogue) => {
                    output.out.write_all(print(&catalogue, &loaded.config).as_bytes())?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(errors) => errors.iter().map(ToString::to_string).collect(),
            }
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    print_lines(&mut output.err, "error", &errors)?;
    Ok(ExitCode::from(EXIT_USAGE))
}

fn completions(shell: clap_complete::Shell, out: &mut impl Write) -> io::Result<ExitCode> {
    let mut definition = Arguments::definition();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "fjord", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Handles an output error. A closed pipe counts as success, because the reader does not want any more output.
fn failed_to_write(error: &io::Error, err: &mut impl Write) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    // If this write fails too, only the exit status reports the error.
    writeln!(err, "error: cannot write the output: {error}").ok();
    ExitCode::from(EXIT_FAILED)
}
