//! The command line: clap types only.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod ec2;
mod fleet;

pub use ec2::{AwsArguments, Ec2Command, PublishArguments, WatchArguments};
pub use fleet::{
    DrainArguments, LogArguments, QueueCommand, QueueLimitArguments, QueueNamesArguments,
    QueueWeightArguments, ReloadArguments, ReplyOptions, StatusArguments, TargetOptions,
};

/// The last lines of every command's help.
const AFTER_HELP: &str = "Exit status: 0 success; 1 failure; 2 invalid usage, or a configuration error found by a \
                          command; 3 an instance that ec2 watch could not drain; 78 a configuration error found by a role when it \
                          starts.";

/// An HTTPS REST API in front of SQL Server stored procedures, with NATS between the two.
#[derive(Debug, Parser)]
#[command(name = "fjord", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The command to run. Without one, the role is started.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the configuration is read from.
    #[command(flatten)]
    pub layers: Layers,
}

/// Options of all commands and both roles.
#[derive(Args)]
pub struct Layers {
    /// The role to start, or the role whose configuration a command uses.
    #[arg(long, global = true, value_enum, env = "FJORD_ROLE")]
    pub role: Option<Role>,
    /// The configuration directory [default: /etc/fjord].
    #[arg(long, global = true, value_name = "DIR", env = "FJORD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets a key with the highest priority, e.g. --set log.filter=debug. Not for secrets: other users can see it.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `Debug` is not derived, because the value of `--set` may be a secret.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut layers = f.debug_struct("Layers");
        layers.field("role", &self.role).field("config", &self.config).finish_non_exhaustive()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Creates a configuration directory for developing an API: a commented configuration, an endpoint and its
    /// procedure for the embedded database. Never overwrites a file.
    Init(InitArguments),
    /// Runs an API on this machine for development: a NATS server, a worker and a gateway, with throw-away certificates and
    /// keys, on 127.0.0.1 only. Applies changed files when they are saved. Not for production.
    Dev(DevArguments),
    /// Checks the configuration, the files that it names and the catalogue, and reports every error that would prevent a
    /// role from starting. Without --role, checks each role that has its own configuration file or section.
    Check(CheckArguments),
    /// Prints the effective configuration, with the origin of each value. Secrets are not shown.
    Config,
    /// Prints one line per endpoint: route, queue, procedure, execution, timeout and authentication.
    Routes,
    /// Prints the JSON Schema of the catalogue, for editors.
    Schema,
    /// Prints the `OpenAPI` document of the catalogue.
    Openapi,
    /// Shows the state of all gateways and workers, and identifies the bottleneck.
    Status(StatusArguments),
    /// Makes every process in the fleet apply the current contents of its files. First, every
    /// process checks its files. If a process reports a fault or does not reply, nothing changes.
    Reload(ReloadArguments),
    /// Makes one process, or every process on a host, finish its requests or calls and exit, as after SIGTERM.
    Drain(DrainArguments),
    /// Pauses or resumes queues of the running workers, changes the number of calls that the workers run concurrently, or
    /// changes how gateways divide requests among queues. The changes last until a process stops.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Adds directives to the log filter of running processes for a limited time, without changing their configuration.
    Log(LogArguments),
    /// Commands for hosts on EC2.
    #[command(subcommand)]
    Ec2(Ec2Command),
    /// Calls an endpoint through NATS as a gateway would, without authentication. Prints the answer and the duration of each
    /// phase. The exit status is 1 if the answer is an error.
    Call(CallArguments),
    /// Runs the catalogue's examples, and compares the answers with the expected ones and with `returns`. Without --url,
    /// calls the procedures directly, with the worker's configuration and without NATS. Embedded databases are then
    /// recreated for each run. Data that examples write to SQL Server is not removed. The exit status is 1 if an answer
    /// differs.
    Test(TestArguments),
    /// Creates catalogue entries for the procedures in a database: routes, parameters and results
    /// are derived by convention and must be reviewed. Skips procedures that the catalogue already
    /// contains, and never overwrites a file.
    Import(ImportArguments),
    /// Prints the completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page.
    Man,
}

/// Options of `fjord init`.
#[derive(Args, Clone)]
pub struct InitArguments {
    /// The directory in which the files are created.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The ADO connection string of a SQL Server database whose procedures are imported, instead of
    /// creating an embedded database. "-" reads the connection string as a line from stdin, so that
    /// other users cannot see the password.
    #[arg(long, value_name = "STRING")]
    pub mssql: Option<String>,
    /// Who may call the imported endpoints [default: jwt].
    #[arg(long, value_enum, requires = "mssql")]
    pub auth: Option<AuthChoice>,
}

/// `Debug` is not derived, because the connection string contains a password.
impl fmt::Debug for InitArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitArguments").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Options of `fjord dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArguments {
    /// The configuration directory, used instead of --config.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The directory to create for the certificates, keys and tokens of this run. It is removed
    /// when the run ends [default: a temporary directory].
    #[arg(long, value_name = "DIR")]
    pub run_directory: Option<PathBuf>,
}

/// Options of `fjord check`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CheckArguments {
    /// Also checks NATS and the databases: connections, credentials, and whether the procedures match the catalogue.
    /// Changes nothing, receives no requests, and takes at most about a minute.
    #[arg(long)]
    pub online: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub format: CheckFormat,
}

/// How `fjord check` prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A line for each error and warning.
    Text,
    /// One JSON document with files, lines, keys and messages, for editors and CI.
    Json,
}

/// Options of `fjord call`.
#[derive(Args, Clone)]
pub struct CallArguments {
    /// The endpoint's id in the catalogue.
    pub endpoint: String,
    /// The parameters, regardless of the part of the request that they belong to. Tables are
    /// written as JSON.
    #[arg(value_name = "NAME=VALUE")]
    pub values: Vec<String>,
    /// The name of the caller, which is passed to the worker.
    #[arg(long)]
    pub principal: Option<String>,
    /// The idempotency key.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// The queue to send the request to, whatever its weight, if the endpoint has several [default: chosen according to the
    /// catalogue's weights].
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Rolls back all changes in the database, if the endpoint permits dry runs.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints the answer and the phases as one JSON document on a single line.
    #[arg(long)]
    pub json: bool,
}

/// `Debug` is not derived, because parameter values must not be shown.
impl fmt::Debug for CallArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallArguments").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Options of `fjord test`.
#[derive(Args, Clone, Debug)]
pub struct TestArguments {
    /// The examples to run: ids of endpoints, or endpoint/example, in which `*` matches any characters [default: all].
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// The queue whose procedure is called, for endpoints with several queues that include it [default: the first queue in
    /// the catalogue that the worker serves].
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    pub queue: Option<String>,
    /// The gateway to send the requests to, such as `https://localhost:8443`.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The file with the CA certificates that verify the gateway's certificate [default: the
    /// system's].
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,
    /// A file with a token, which is sent to endpoints that are not public.
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "api_key_file")]
    pub token_file: Option<PathBuf>,
    /// A file with an API key, which is sent to endpoints that are not public.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub api_key_file: Option<PathBuf>,
    /// The client certificate.
    #[arg(long, value_name = "FILE", requires = "url", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// The key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Uses the embedded databases that the configuration names instead of new ones. The examples
    /// can change them.
    #[arg(long, conflicts_with = "url")]
    pub in_place: bool,
    /// Writes the actual answers into the catalogue files for examples whose answers differ.
    #[arg(long)]
    pub update: bool,
    /// The file to which the results are written in `JUnit` XML format.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// How the results are printed.
    #[arg(long, value_enum, default_value_t = TestFormat::Text)]
    pub format: TestFormat,
}

/// How `fjord test` prints its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// A line for each example, and a line for each difference.
    Text,
    /// One JSON document.
    Json,
}

/// Options of `fjord import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArguments {
    /// The procedures to import: a pattern for `schema.name`, in which `*` matches any characters, e.g. registry.horse_*.
    #[arg(default_value = "*")]
    pub pattern: String,
    /// The name of the database in the configuration [default: default].
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Who may call the endpoints. Required unless the configuration has `catalogue.auth_default`.
    #[arg(long, value_enum)]
    pub auth: Option<AuthChoice>,
    /// The prefix of all paths.
    #[arg(long, value_name = "PATH", default_value = "/v1")]
    pub prefix: String,
    /// If the database does not describe the results of a read-only procedure, calls it once with NULL for every parameter.
    /// Each call is rolled back.
    #[arg(long)]
    pub sample: bool,
    /// The file to create, e.g. endpoints/registry.json. Without it, the entries are printed.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Who may call the imported endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthChoice {
    /// Everyone.
    Public,
    /// Callers with a token.
    Jwt,
    /// Callers with an API key.
    ApiKey,
    /// Callers with a client certificate.
    Certificate,
}

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// Serves HTTPS requests.
    Gateway,
    /// Joins NATS queue groups and calls procedures.
    Worker,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Worker];

    /// Returns the name of the role.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }

    /// Returns the role of the processes that this one communicates with.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Worker,
            Self::Worker => Self::Gateway,
        }
    }
}

impl Arguments {
    /// Parses the arguments of this process. If they are invalid, prints a message and exits with status 2.
    #[must_use]
    pub fn from_process() -> Self {
        Self::parse()
    }

    /// Returns the definition from which completions and the manual page are generated.
    #[must_use]
    pub fn definition() -> clap::Command {
        Self::command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::definition().debug_assert();
    }

    #[test]
    fn options_may_precede_or_follow_the_command() {
        for line in
            ["fjord --role worker check --set a.b=c", "fjord check --role worker --set a.b=c"]
        {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.layers.role, Some(Role::Worker), "{line}");
            assert_eq!(arguments.layers.set, ["a.b=c"], "{line}");
            assert!(matches!(arguments.command, Some(Command::Check(_))), "{line}");
        }
    }
}
