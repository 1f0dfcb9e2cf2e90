//! A fjord process of either role.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use fjord::telemetry::names::{self, MetricKind};

use super::client::{get_json, get_text};
use super::eventually::eventually_some;
use super::process::Process;

/// The time limit for a process to become ready, with a margin for a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A fjord process.
#[derive(Debug)]
pub(crate) struct FjordProcess {
    /// The process. Tests send signals to it and read its log.
    pub(crate) process: Process,
    role: &'static str,
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
    executable: PathBuf,
}

impl FjordProcess {
    /// Starts fjord with this role and configuration directory.
    pub(crate) fn start(role: &'static str, directory: &Path) -> Self {
        Self::start_with(role, directory, &[], &super::fjord_binary())
    }

    pub(super) fn start_with(
        role: &'static str,
        directory: &Path,
        environment: &[(&'static str, String)],
        executable: &Path,
    ) -> Self {
        let mut command = Command::new(executable);
        command.arg("--role").arg(role).arg("--config").arg(directory);
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        let process = Process::start(role, command, &directory.join("log"));
        let (directory, environment) = (directory.to_owned(), environment.to_vec());
        Self { process, role, directory, environment, executable: executable.to_owned() }
    }

    /// Returns the role of the process.
    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    /// Returns the address of the HTTPS listener, as last logged.
    pub(crate) fn https(&self) -> SocketAddr {
        self.listens("https").expect("a process that is ready listens")
    }

    /// Returns the address of the admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.listens("admin").expect("a process that is ready listens")
    }

    /// Returns the configuration directory of the process.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the sum of all samples of `/metrics` whose lines start with `start`: the name of a
    /// metric, and possibly labels.
    pub(crate) async fn metric(&self, start: &str) -> f64 {
        let name = start.split(['{', ' ']).next().unwrap_or_default();
        assert!(is_metric(name), "no metric is called {name}");
        let text = get_text(&format!("http://{}/metrics", self.admin())).await;
        let text = text.expect("the process answers with its metrics");
        let lines = text.lines().filter(|line| {
            let is_of_name = line.split(['{', ' ']).next() == Some(name);
            is_of_name && line.starts_with(start)
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits until the process is ready.
    pub(crate) async fn ready(&mut self) {
        let role = self.role;
        eventually_some(format!("{role} ready"), READY_LIMIT, async || {
            if let Some(status) = self.process.ended() {
                panic!("{role} ended with {status}:\n{}", self.process.log_tail());
            }
            let admin = self.listens("admin")?;
            get_json(&format!("http://{admin}/readyz")).await
        })
        .await;
    }

    /// Kills the process and starts it again with the same executable, files and environment. Its
    /// listeners get new ports.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        fs::remove_file(self.directory.join("log")).expect("the log file can be removed");
        let Self { role, directory, environment, executable, .. } = self;
        *self = Self::start_with(role, directory, environment, executable);
    }

    /// Sends SIGTERM and waits until the process has exited.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait(Duration::from_mins(1)).await
    }

    fn listens(&self, part: &str) -> Option<SocketAddr> {
        let log = self.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut listening = lines.filter(|line: &serde_json::Value| {
            line["message"] == "listening" && line["part"] == part
        });
        listening.next_back()?["address"].as_str()?.parse().ok()
    }
}

/// Returns whether a sample in `/metrics` can have this name.
fn is_metric(name: &str) -> bool {
    names::ALL.iter().any(|metric| match name.strip_prefix(metric.name) {
        Some("") => metric.kind != MetricKind::Histogram,
        Some("_sum" | "_count" | "_bucket") => metric.kind == MetricKind::Histogram,
        _ => false,
    })
}
