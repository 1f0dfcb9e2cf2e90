//! `fjord ec2 watch`: stops the roles of this host when EC2 announces that it will stop the instance.

use std::fmt;
use std::io::{self, Write};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::failed;
use super::http_client;
use super::instance_metadata::InstanceMetadata;
use super::metric_data::encoded;
use super::notices::{self, Notice};
use super::signed_api::{CallFailure, SignedApi};
use crate::cli::{Role, WatchArguments};
use crate::commands::printable::printable;
use crate::commands::{EXIT_FAILED, Output};
use crate::telemetry::logs;

/// The name of EC2 Auto Scaling in signatures and endpoint names, and its name in policies.
const SERVICE: (&str, &str) = ("autoscaling", "autoscaling");
/// The time after which a failure that persists is logged again.
const FAILURE_REPEAT: Duration = Duration::from_mins(10);

/// What the command has done so far.
struct Watch<'a> {
    arguments: &'a WatchArguments,
    client: reqwest::Client,
    metadata: InstanceMetadata,
    /// The notices that have been logged.
    seen: Vec<Notice>,
    /// Whether both roles have stopped after a notice.
    is_drained: bool,
    metadata_failures: FailureLog,
    stop_failures: FailureLog,
}

/// The last failure of an operation that is tried again at each query, and when it was logged.
#[derive(Default)]
struct FailureLog(Option<(String, Instant)>);

/// Why a unit has not stopped.
enum StopFailure {
    /// systemctl has not ended within this time. Requests may still be in progress.
    TimedOut(Duration),
    /// systemctl has failed, because the unit is masked, for instance.
    Failed(String),
}

pub(super) fn run(
    arguments: &WatchArguments,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    logs::warn_on_stderr();
    let client = match http_client::new(arguments.aws.ca.as_deref()) {
        Ok(client) => client,
        Err(failure) => return failed(&failure, output),
    };
    let metadata = InstanceMetadata::new(client.clone(), &arguments.aws.metadata_url);
    let mut watch = Watch {
        arguments,
        client,
        metadata,
        seen: Vec::new(),
        is_drained: false,
        metadata_failures: FailureLog::default(),
        stop_failures: FailureLog::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch.run(output))
}

impl Watch<'_> {
    async fn run(&mut self, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
        let interval = Duration::from_secs(self.arguments.interval);
        loop {
            let (notices, failure) =
                notices::read(&mut self.metadata, self.arguments.ignore_rebalance).await;
            match failure {
                Some(failure) => self.metadata_failures.log(failure, output)?,
                None => self.recovered(output)?,
            }
            if let Some(status) = self.handle(&notices, output).await? {
                return Ok(status);
            }
            sleep(interval).await;
        }
    }

    /// Stops the roles if there is a notice, unless they have stopped. Returns the exit status once nothing is left to do, or if
    /// systemd must start the command again.
    async fn handle(
        &mut self,
        notices: &[Notice],
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Option<ExitCode>> {
        for notice in notices {
            if !self.seen.contains(notice) {
                let action = if self.is_drained {
                    "the roles are already stopped"
                } else {
                    "stopping the roles"
                };
                writeln!(output.out, "{}: {action}", printable(&notice.to_string()))?;
                output.out.flush()?;
                // At most one notice of each kind is new in normal operation.
                self.seen
                    .retain(|seen| std::mem::discriminant(seen) != std::mem::discriminant(notice));
                self.seen.push(notice.clone());
            }
        }
        let failures = if notices.is_empty() || self.is_drained {
            Vec::new()
        } else {
            self.stop_roles(output).await?
        };
        if !notices.contains(&Notice::Terminating) {
            // The command continues to run: if the roles have not stopped, it tries again, and if the group terminates the
            // instance later, the group waits for its hook.
            return Ok(None);
        }
        if failures.iter().any(|failure| matches!(failure, StopFailure::TimedOut(_))) {
            writeln!(
                output.err,
                "error: this instance is not drained: requests may still be in progress"
            )?;
            return Ok(Some(ExitCode::from(EXIT_FAILED)));
        }
        let mut has_failed = !failures.is_empty();
        if let Some((hook, group)) = self.hook()
            && let Err(failure) = self.complete(&hook, &group).await
        {
            has_failed = true;
            writeln!(output.err, "error: {}", printable(&failure))?;
        }
        let result = if has_failed { "with errors" } else { "without errors" };
        writeln!(output.out, "this instance is drained {result}")?;
        Ok(Some(if has_failed { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }))
    }

    /// Returns the names of the hook and the group. systemd passes empty names if they are not configured.
    fn hook(&self) -> Option<(String, String)> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        given(&self.arguments.hook).zip(given(&self.arguments.group))
    }

    /// Stops both roles, and returns the failures. The gateway is stopped first, so that the worker can still answer its requests.
    async fn stop_roles(
        &mut self,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Vec<StopFailure>> {
        let limit = Duration::from_secs(self.arguments.stop_timeout);
        let (mut failures, mut messages) = (Vec::new(), Vec::new());
        for role in [Role::Gateway, Role::Worker] {
            let unit = format!("fjord@{}.service", role.as_str());
            if let Err(failure) = stop(&unit, limit).await {
                messages.push(format!("cannot stop {unit}: {failure}"));
                failures.push(failure);
            }
        }
        self.is_drained = failures.is_empty();
        if self.is_drained {
            writeln!(output.out, "the roles are stopped")?;
            output.out.flush()?;
        } else {
            self.stop_failures.log(messages.join("; "), output)?;
        }
        Ok(failures)
    }

    /// Tells the autoscaling group that it need not wait for this instance any longer.
    async fn complete(&mut self, hook: &str, group: &str) -> Result<(), String> {
        let instance = self.metadata.get("instance-id").await?;
        let form = format!(
            "Version=2011-01-01&LifecycleHookName={}&AutoScalingGroupName={}&InstanceId={}&LifecycleActionResult=CONTINUE",
            encoded(hook),
            encoded(group),
            encoded(&instance),
        );
        let url = self.arguments.autoscaling_url.as_deref();
        let api = SignedApi::new(self.client.clone(), SERVICE, url, &mut self.metadata).await?;
        match api.call("CompleteLifecycleAction", &form, &mut self.metadata).await {
            // The first attempt has succeeded, but its answer was lost.
            Err(CallFailure::Refused(error, _)) if error.is_without_action() => Ok(()),
            Err(failure) => Err(failure.into_message()),
            Ok(()) => Ok(()),
        }
    }

    fn recovered(&mut self, output: &mut Output<impl Write, impl Write>) -> io::Result<()> {
        if self.metadata_failures.0.take().is_some() {
            writeln!(output.out, "the instance metadata can be read again")?;
            output.out.flush()?;
        }
        Ok(())
    }
}

impl FailureLog {
    /// Logs a failure that is new, or that has persisted for a long time.
    fn log(
        &mut self,
        failure: String,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<()> {
        let is_known = self
            .0
            .as_ref()
            .is_some_and(|(known, at)| *known == failure && at.elapsed() < FAILURE_REPEAT);
        if is_known {
            return Ok(());
        }
        writeln!(output.err, "error: {}", printable(&failure))?;
        self.0 = Some((failure, Instant::now()));
        Ok(())
    }
}

impl fmt::Display for StopFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => {
                write!(f, "systemctl has not ended within {} s", limit.as_secs())
            }
            Self::Failed(reason) => write!(f, "systemctl: {reason}"),
        }
    }
}

/// Stops a unit, and waits until it has stopped.
async fn stop(unit: &str, limit: Duration) -> Result<(), StopFailure> {
    let mut command = Command::new("systemctl");
    command.args(["stop", unit]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let stopped = timeout(limit, command.output()).await;
    let stopped = stopped.map_err(|_| StopFailure::TimedOut(limit))?;
    let output = stopped.map_err(|error| StopFailure::Failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(StopFailure::Failed(format!("{}: {}", output.status, reason.trim())))
}
