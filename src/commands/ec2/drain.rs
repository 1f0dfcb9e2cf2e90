//! Drains this host by stopping the units of both roles whenever they are found running.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use super::failure_log::FailureLog;
use super::units::{self, UnitState};
use crate::cli::Role;
use crate::commands::Output;

/// The drain of the units of both roles.
pub(super) struct Drain {
    /// The maximum time that each unit may take to stop.
    stop_limit: Duration,
    /// The times at which the units of the gateway and of the worker began to stop. `None` for a unit that is stopped, or is not known to
    /// have been told to stop.
    stopping_since: [Option<Instant>; 2],
    progress: Option<DrainProgress>,
    failures: FailureLog,
}

/// The observed state of both units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainProgress {
    /// At least one unit is running or stopping, or its state is unknown.
    Stopping,
    /// Both units have stopped.
    Stopped,
}

impl Drain {
    /// Creates a drain. This does not stop anything yet.
    pub(super) fn new(stop_limit: Duration) -> Self {
        Self {
            stop_limit,
            stopping_since: [None; 2],
            progress: None,
            failures: FailureLog::default(),
        }
    }

    /// Queries the state of both units and stops those that are running. The gateway is stopped first, so that the
    /// worker can still answer the gateway's requests. The worker is stopped once the gateway has stopped, cannot be
    /// stopped, or has exceeded its time limit. Cancel safe.
    pub(super) async fn advance(
        &mut self,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<DrainProgress> {
        let mut failures = Vec::new();
        let mut progress = DrainProgress::Stopped;
        for (role, since) in [Role::Gateway, Role::Worker].into_iter().zip(&mut self.stopping_since)
        {
            let unit = units::unit(role);
            match observe_and_stop(&unit).await {
                Ok(UnitState::Stopped) => {
                    *since = None;
                    continue;
                }
                Ok(_) if since.get_or_insert_with(Instant::now).elapsed() < self.stop_limit => {
                    progress = DrainProgress::Stopping;
                    break;
                }
                Ok(_) => {
                    let seconds = self.stop_limit.as_secs();
                    failures.push(format!("{unit} has not stopped within {seconds} s"));
                }
                // The unit may not have been told to stop. Its time limit starts once it is known to be stopping.
                Err(failure) => failures.push(format!("cannot stop {unit}: {failure}")),
            }
            progress = DrainProgress::Stopping;
        }
        if failures.is_empty() {
            self.failures.recover();
        } else {
            self.failures.log(&failures.join("; "), output)?;
        }
        let before = self.progress.replace(progress);
        if before != self.progress {
            match progress {
                DrainProgress::Stopped => writeln!(output.out, "the roles are stopped")?,
                DrainProgress::Stopping if before.is_some() => {
                    writeln!(output.out, "the roles are running again: stopping them")?;
                }
                DrainProgress::Stopping => {}
            }
            output.out.flush()?;
        }
        Ok(progress)
    }
}

/// Returns the state of a unit. Stops the unit if it is running or its state is unknown.
async fn observe_and_stop(unit: &str) -> Result<UnitState, String> {
    let state = units::state(unit).await;
    if matches!(state, Ok(UnitState::Running) | Err(_)) {
        units::stop(unit).await?;
    }
    state
}
