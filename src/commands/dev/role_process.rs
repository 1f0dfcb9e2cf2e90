//! Starts the process of a role and queries its admin listener for its state.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::child::{ChildContext, ChildProcess};
use crate::cli::Role;
use crate::commands::plain_http::{self, PlainAnswer};
use crate::config::Sources;
use crate::procedures::databases::NOT_QUERIED;
use crate::telemetry::names;

/// The time limit for an answer from an admin listener.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long a process may have notes, for example about a queue that it does not serve yet, before the notes are
/// reported.
const NOTES_LIMIT: Duration = Duration::from_secs(2);
/// The variables set by systemd. Only this process itself may use them.
const SYSTEMD_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The process of a role. The process may have exited.
#[derive(Debug)]
pub(super) struct RoleProcess {
    admin_port: u16,
    /// The process. `None` if it has exited because of a configuration error.
    process: Option<ChildProcess>,
    /// When the process was started.
    started: Instant,
    /// Whether the process has become ready since it was started.
    is_ready: bool,
}

/// The state of a process that is starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoleState {
    /// The process is not ready, for these reasons. The list is empty if the process does not respond yet.
    NotReady(Vec<String>),
    /// The process is ready except for these problems.
    Ready(Vec<String>),
}

/// The JSON document that `/readyz` returns.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReadyDocument {
    reasons: BTreeMap<String, String>,
    notes: BTreeMap<String, String>,
}

/// The JSON document that `/status` returns.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusDocument {
    pending: BTreeMap<String, String>,
}

impl RoleProcess {
    /// Starts a role with the given executable and configuration.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) fn start(
        role: Role,
        executable: &Path,
        sources: &Sources,
        admin_port: u16,
        context: &ChildContext,
    ) -> io::Result<Self> {
        let mut command = Command::new(executable);
        command.arg("--role").arg(role.as_str());
        command.arg("--config").arg(sources.directory());
        command.args(sources.sets.iter().flat_map(|set| [OsStr::new("--set"), OsStr::new(set)]));
        for variable in SYSTEMD_VARIABLES {
            command.env_remove(variable);
        }
        let process = Some(ChildProcess::start(role.as_str(), command, context)?);
        Ok(Self { admin_port, process, started: Instant::now(), is_ready: false })
    }

    /// Returns the running process.
    pub(super) fn process(&mut self) -> Option<&mut ChildProcess> {
        self.process.as_mut()
    }

    /// Clears the process after it has exited.
    pub(super) fn forget(&mut self) {
        self.process = None;
    }

    /// Returns whether the process is running and not known to be ready.
    pub(super) fn is_starting(&self) -> bool {
        self.process.is_some() && !self.is_ready
    }

    /// Returns the time since the start of the process.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until the process exits. Waits forever if there is no process. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.process {
            Some(process) => process.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Stops the process, if it is running.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) async fn stop(&mut self, limit: Duration) -> io::Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(limit).await,
            None => Ok(()),
        }
    }

    /// Queries whether the process is ready, and records the result.
    pub(super) async fn poll_state(&mut self) -> RoleState {
        let Some(answer) = self.get("/readyz").await else {
            return RoleState::NotReady(Vec::new());
        };
        let document: ReadyDocument = serde_json::from_slice(&answer.body).unwrap_or_default();
        let lines = |problems: BTreeMap<String, String>| -> Vec<String> {
            problems.iter().map(|(about, reason)| format!("{about}: {reason}")).collect()
        };
        let notes = lines(document.notes);
        if answer.status != 200 {
            return RoleState::NotReady([lines(document.reasons), notes].concat());
        }
        // A worker is ready as soon as it serves one queue. The others usually follow immediately, but opening a new
        // database takes longer.
        let is_opening = notes.iter().any(|note| note.ends_with(NOT_QUERIED));
        if is_opening || (!notes.is_empty() && self.age() < NOTES_LIMIT) {
            return RoleState::NotReady(notes);
        }
        self.is_ready = true;
        RoleState::Ready(notes)
    }

    /// Returns how many reloads the process has applied and how many it has refused. `None` if it does not respond.
    pub(super) async fn reloads(&self) -> Option<(u64, u64)> {
        let answer = self.get("/metrics").await?;
        let text = String::from_utf8(answer.body).ok()?;
        let name = names::CONFIG_RELOADS.name;
        let count = |result: &str| {
            let start = format!("{name}{{{}=\"{result}\"}} ", names::RESULT);
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Some((count("ok"), count("failed")))
    }

    /// Returns the reasons why queues of a worker do not serve their new endpoints yet.
    pub(super) async fn pending(&self) -> Vec<String> {
        let document = match self.get("/status").await {
            Some(answer) => serde_json::from_slice(&answer.body).unwrap_or_default(),
            None => StatusDocument::default(),
        };
        let lines = document.pending.iter().map(|(queue, why)| format!("queue {queue}: {why}"));
        lines.collect()
    }

    async fn get(&self, path: &str) -> Option<PlainAnswer> {
        let host = format!("127.0.0.1:{}", self.admin_port);
        timeout(ANSWER_LIMIT, plain_http::get(&host, path)).await.ok()?.ok()
    }
}
