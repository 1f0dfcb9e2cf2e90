//! The NATS connection used by commands.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::cli::Role;
use crate::config::messaging::{NatsConfig, TransportConfig};
use crate::config::{Config, Sources};
use crate::fleet::query;
use crate::message::Subject;
use crate::messaging::nats::permission_check;
use crate::messaging::{self, Transport, TransportError};
use crate::telemetry::logs;

/// The maximum time to wait for a connection, including retries.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// An established connection.
pub(super) struct NatsConnection {
    pub(super) transport: Arc<dyn Transport>,
    /// The prefix of all subjects of the fleet.
    pub(super) prefix: Subject,
    /// The monitoring URLs of the NATS servers.
    pub(super) monitoring: Vec<String>,
    /// A connection to the system account, if one is configured. The connection may not be established yet.
    pub(super) system: Option<Arc<dyn Transport>>,
}

impl NatsConnection {
    /// Returns the error for a fleet query that received no reply.
    pub(super) fn no_reply(&self) -> String {
        let Self { transport, prefix, .. } = self;
        let cause = problems(&**transport).unwrap_or_else(|| {
            let inbox = transport.inbox();
            format!(
                "no gateway or worker with the prefix {prefix} is connected to this NATS, or none replies, for example \
                 because its user may not publish to {inbox}.>"
            )
        });
        format!("no reply on {prefix}.{}: {cause}", query::STATUS_TOKEN)
    }
}

/// Returns the problems of a connection, or `None` if it has none.
fn problems(transport: &dyn Transport) -> Option<String> {
    let mut problems = transport.problems();
    if problems.len() > 1 {
        // The replacement of the client is only a consequence of the other problems.
        problems.remove(messaging::CLIENT_REPLACED);
    }
    let texts: Vec<String> = problems.into_values().collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Returns the configuration sources for a command that uses only NATS. They are the sources of the selected role, or
/// of the first role that has a file.
#[must_use]
pub fn sources(sources: &Sources) -> Sources {
    let configured = || Role::ALL.into_iter().find(|role| sources.has_role_file(*role));
    let role = sources.role.or_else(configured);
    Sources { role, only_nats_files: true, may_be_incomplete: true, ..sources.clone() }
}

/// Connects and runs a command. If the connection fails, reports the reason.
pub(super) fn run<O: Write, E: Write>(
    sources: &Sources,
    name: &str,
    output: &mut Output<O, E>,
    command: impl AsyncFnOnce(NatsConnection, &mut Output<O, E>) -> io::Result<ExitCode>,
) -> io::Result<ExitCode> {
    let config = match Config::load(&self::sources(sources)) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            print_lines(&mut output.err, "error", &errors)?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let TransportConfig::Nats(nats) = &config.messaging.transport;
    if nats.servers.is_empty() {
        print_lines(&mut output.err, "error", ["messaging.nats.servers: is missing"])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    logs::warn_on_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let system =
            nats.system.clone().map(|credentials| NatsConfig { credentials, ..nats.clone() });
        let connected = async {
            let transport = messaging::nats::connect(nats, name).await?;
            let system = match &system {
                Some(system) => Some(messaging::nats::connect(system, name).await?),
                None => None,
            };
            Ok::<_, TransportError>((transport, system))
        };
        let (transport, system) = match connected.await {
            Ok(connected) => connected,
            Err(error) => {
                writeln!(output.err, "error: cannot use the NATS configuration: {error}")?;
                return Ok(ExitCode::from(EXIT_FAILED));
            }
        };
        let mut link = transport.link();
        let up = messaging::wait_until_up(&mut link);
        if !matches!(timeout(CONNECT_LIMIT, up).await, Ok(Some(_))) {
            // The causes of failed attempts are not logged to stderr, so they are reported here.
            let cause = problems(&*transport).unwrap_or_else(|| {
                let servers =
                    nats.servers.iter().map(|server| permission_check::display_name(server));
                format!("no answer from {}", servers.collect::<Vec<_>>().join(", "))
            });
            writeln!(output.err, "error: no connection to NATS within {CONNECT_LIMIT:?}: {cause}")?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        let prefix = config.messaging.prefix.clone();
        let monitoring = nats.monitoring.clone();
        command(NatsConnection { transport, prefix, monitoring, system }, output).await
    })
}
