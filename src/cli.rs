//! The command line: clap types only.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// What ends the help of every command.
const AFTER_HELP: &str = "Exit status: 0 good; 1 failed while it ran; 2 bad usage, or an error in the configuration \
                          found by a command; 78 an error in the configuration found by a role at its start.";

/// An HTTPS REST API in front of SQL Server stored procedures, with NATS between the two.
#[derive(Debug, Parser)]
#[command(name = "fjord", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do; without a command the role is run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the configuration is read from.
    #[command(flatten)]
    pub layers: Layers,
}

/// What every command and both roles take.
#[derive(Args)]
pub struct Layers {
    /// The role: what this process runs, or whose configuration a command looks at.
    #[arg(long, global = true, value_enum, env = "FJORD_ROLE")]
    pub role: Option<Role>,
    /// The configuration directory [default: /etc/fjord].
    #[arg(long, global = true, value_name = "DIR", env = "FJORD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets a key above every other layer, e.g. --set log.filter=debug. Not for secrets: other users see it.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Not derived: somebody may give a secret to `--set` all the same.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut layers = f.debug_struct("Layers");
        layers.field("role", &self.role).field("config", &self.config).finish_non_exhaustive()
    }
}

/// What is done instead of running a role.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks configuration and catalogue and tells every error. Without --role: for each role that has a file.
    Check {
        /// Asks NATS and the databases as well: whether they can be reached and take our credentials, whether the
        /// queues' procedures fit. Changes nothing, takes no message from anybody, and ends within a minute or so.
        #[arg(long)]
        online: bool,
    },
    /// Prints the configuration that holds, with where each value is from. Secrets are not shown.
    Config,
    /// Prints every endpoint in a line: its route, its queue, its promises and who may call it.
    Routes,
    /// Prints the JSON Schema of the catalogue, for editors.
    Schema,
    /// Prints the `OpenAPI` document of the catalogue.
    Openapi,
    /// Asks every gateway and worker over NATS how it is, and names the bottleneck.
    Status(StatusArguments),
    /// Runs one endpoint through NATS as a gateway would, past its authentication; shows the answer and where its
    /// time went. Status 1 when the answer is an error.
    Call(CallArguments),
    /// Writes catalogue entries from the procedures of a database: routes, parameters and results by convention, to be
    /// looked at by a person. What the catalogue has is left out, and no file is written over.
    Import(ImportArguments),
    /// Prints completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page.
    Man,
}

/// How the fleet's status is shown.
#[derive(Args, Clone, Debug)]
pub struct StatusArguments {
    /// Goes on, and shows it anew after each interval.
    #[arg(long)]
    pub watch: bool,
    /// One JSON document in a line, for scripts.
    #[arg(long)]
    pub json: bool,
    /// What rates and times are taken over.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
}

/// What is called, and with what.
#[derive(Args, Clone)]
pub struct CallArguments {
    /// The endpoint's id in the catalogue.
    pub endpoint: String,
    /// The parameters, wherever the catalogue has them; a table as JSON.
    #[arg(value_name = "NAME=VALUE")]
    pub values: Vec<String>,
    /// Who calls, as the worker is told.
    #[arg(long)]
    pub principal: Option<String>,
    /// The client's key for one effect.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Everything that it does in the database is rolled back, where the endpoint allows it.
    #[arg(long)]
    pub dry_run: bool,
    /// Answer and phases as one JSON document in a line.
    #[arg(long)]
    pub json: bool,
}

/// Not derived: values of parameters are never shown.
impl fmt::Debug for CallArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallArguments").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What is imported, and how it is written.
#[derive(Args, Clone, Debug)]
pub struct ImportArguments {
    /// The procedures: a pattern of `schema.name`, with `*` for any letters, e.g. registry.horse_*.
    #[arg(default_value = "*")]
    pub pattern: String,
    /// The database's name in the configuration [default: default].
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Who may call them. Needed where the configuration has no `catalogue.auth_default`, which else holds.
    #[arg(long, value_enum)]
    pub auth: Option<AuthWord>,
    /// What every path begins with.
    #[arg(long, value_name = "PATH", default_value = "/v1")]
    pub prefix: String,
    /// The file to be made, rather than stdout; e.g. endpoints/registry.json.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Who may call what was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthWord {
    /// Everybody.
    Public,
    /// Who has a token.
    Jwt,
    /// Who has a key.
    ApiKey,
    /// Who has a client certificate.
    Certificate,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// The public HTTPS face.
    Gateway,
    /// Joins NATS queue groups and runs the procedures.
    Worker,
}

impl Role {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Worker];

    /// The role's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

impl Arguments {
    /// The arguments of this process. Ends it, with a message and status 2, when they are wrong.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse()
    }

    /// The definition that completions and the manual page are made from.
    #[must_use]
    pub fn definition() -> clap::Command {
        Self::command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::definition().debug_assert();
    }

    #[test]
    fn a_command_takes_the_layers_before_and_after_it() {
        for line in
            ["fjord --role worker check --set a.b=c", "fjord check --role worker --set a.b=c"]
        {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.layers.role, Some(Role::Worker), "{line}");
            assert_eq!(arguments.layers.set, ["a.b=c"], "{line}");
            assert!(matches!(arguments.command, Some(Command::Check { online: false })), "{line}");
        }
    }
}
