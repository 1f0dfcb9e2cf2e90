//! Handles the termination of this instance by its autoscaling group. The group waits until a lifecycle action is
//! completed.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::drain::DrainProgress;
use super::failure_log::FailureLog;
use super::http_client::HttpClient;
use super::instance_metadata::InstanceMetadata;
use super::lifecycle_action::{Completion, LifecycleAction};
use crate::cli::WatchArguments;
use crate::commands::printable::printable;
use crate::commands::{EXIT_TERMINATION_FAILED, Output};

/// A termination that has been announced and is in progress.
pub(super) struct Termination {
    since: Instant,
    /// The time after which the action is completed even if a unit is still running.
    limit: Duration,
    heartbeat_interval: Duration,
    /// The action for which the group waits, if a hook is configured.
    action: Option<LifecycleAction>,
    drain_failures: FailureLog,
    action_failures: FailureLog,
}

impl Termination {
    /// Starts handling a termination.
    pub(super) fn new(client: &HttpClient, arguments: &WatchArguments) -> Self {
        Self {
            since: Instant::now(),
            limit: Duration::from_secs(2 * arguments.stop_timeout),
            heartbeat_interval: Duration::from_secs(arguments.heartbeat_interval),
            action: LifecycleAction::configured(client, arguments),
            drain_failures: FailureLog::default(),
            action_failures: FailureLog::default(),
        }
    }

    /// Sends heartbeats while the roles are stopping, and then completes the action. Returns the exit status once the
    /// termination has been handled, and `None` before that. Cancel safe.
    pub(super) async fn advance(
        &mut self,
        progress: DrainProgress,
        metadata: &mut InstanceMetadata,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Option<ExitCode>> {
        let is_drained = progress == DrainProgress::Stopped;
        let is_late = !is_drained && self.since.elapsed() >= self.limit;
        if is_late {
            let seconds = self.limit.as_secs();
            let failure = format!(
                "this instance was not drained within {seconds} s: requests may still be in progress"
            );
            self.drain_failures.log(&failure, output)?;
        }
        let Some(action) = &mut self.action else {
            if !is_drained {
                return Ok(None);
            }
            writeln!(output.out, "this instance is drained")?;
            return Ok(Some(ExitCode::SUCCESS));
        };
        let is_waiting = !is_drained && !is_late;
        // The first heartbeat shows whether the action exists.
        if !action.has_heartbeat() || is_waiting && action.is_heartbeat_due(self.heartbeat_interval)
        {
            match action.heartbeat(metadata).await {
                Ok(()) => {
                    self.action_failures.recover();
                }
                Err(failure) => self.action_failures.log(&failure, output)?,
            }
        }
        if is_waiting {
            return Ok(None);
        }
        let name = action.name();
        match action.complete(metadata).await {
            Completion::Completed => {}
            Completion::NotYet => return Ok(None),
            Completion::Failed(failure) => {
                self.action_failures.log(&failure, output)?;
                return Ok(None);
            }
            Completion::NoAction(failure) => {
                self.action_failures.log(&failure, output)?;
                return Ok(Some(ExitCode::from(EXIT_TERMINATION_FAILED)));
            }
        }
        let (state, status) = if is_drained {
            ("is drained", ExitCode::SUCCESS)
        } else {
            ("is not drained", ExitCode::from(EXIT_TERMINATION_FAILED))
        };
        let text = format!("this instance {state}, and the action of {name} is completed");
        writeln!(output.out, "{}", printable(&text))?;
        Ok(Some(status))
    }
}
