//! A directory that `fjord init` has created, and a run of `fjord dev` in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::install_provider;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_binary;
use crate::support::nats::find_executable;
use crate::support::process::Process;

/// The time limit for all processes to start.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// The time limit for all processes to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Settings that make every listener use any free port, so that tests can run at the same time.
const FREE_PORTS: [&str; 3] = [
    "gateway.listen=127.0.0.1:0",
    "admin.listen=127.0.0.1:0",
    "messaging.nats.servers=[\"tls://localhost:0\"]",
];

/// Runs the executable until it exits.
pub(crate) fn fjord(arguments: &[&str]) -> Output {
    Command::new(fjord_binary()).args(arguments).output().expect("fjord runs")
}

/// Returns stdout and stderr.
pub(crate) fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Creates a configuration directory with `fjord init`.
pub(crate) fn init(home: &Path) -> PathBuf {
    let directory = home.join("api");
    let output = fjord(&["init", directory.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    directory
}

/// Returns the command `fjord dev` for a directory, with free ports and the NATS server of the tests.
pub(crate) fn dev(directory: &Path) -> Command {
    let mut command = Command::new(fjord_binary());
    command.arg("dev").arg(directory);
    command.args(FREE_PORTS.iter().flat_map(|set| ["--set", set]));
    command.env("FJORD_NATS_SERVER", find_executable());
    command
}

/// Returns whether a process exists and has not exited. A process whose parent was killed remains as a zombie if
/// process 1 does not wait for it.
pub(crate) fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Returns whether everything is ready. On a slow machine, a role may become ready after `fjord dev` has reported that it is not.
fn is_ready(log: &str) -> bool {
    let has_followed = |role: &str| {
        !log.contains(&format!("the {role} is not ready"))
            || log.contains(&format!("the {role} is ready after"))
    };
    log.contains("Ready after")
        || log.contains("Not ready after") && has_followed("worker") && has_followed("gateway")
}

/// A running `fjord dev`.
#[derive(Debug)]
pub(crate) struct DevRun {
    pub(crate) process: Process,
    /// The run directory.
    pub(crate) run: PathBuf,
    client: reqwest::Client,
}

impl DevRun {
    /// Starts `fjord dev` for a directory and waits until everything is ready.
    pub(crate) async fn start(home: &Path, directory: &Path) -> Self {
        Self::start_command(home, dev(directory)).await
    }

    /// Starts a command and waits until everything is ready.
    pub(crate) async fn start_command(home: &Path, mut command: Command) -> Self {
        let run = home.join("run");
        command.arg("--run-directory").arg(&run);
        let mut process = Process::start("fjord dev", command, &home.join("dev.log"));
        eventually_some("fjord dev is ready", READY_LIMIT, async || {
            if let Some(status) = process.ended() {
                panic!("fjord dev ended with {status}:\n{}", process.log());
            }
            is_ready(&process.log()).then_some(())
        })
        .await;
        install_provider();
        let ca = fs::read(run.join("ca.pem")).expect("the CA certificate can be read");
        let ca = reqwest::Certificate::from_pem(&ca).expect("PEM");
        let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(SOON);
        Self { process, run, client: client.build().expect("a client") }
    }

    /// Returns the URL of the gateway, as it was printed.
    pub(crate) fn url(&self) -> String {
        let log = self.process.log();
        let line = log.lines().find_map(|line| line.trim().strip_prefix("API "));
        let url = line.and_then(|line| line.split_whitespace().next());
        url.expect("the URL was printed").to_owned()
    }

    /// Sends a GET request. Returns the status and the body. The status is 0 if there is no response.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.send(self.client.get(format!("{}{path}", self.url()))).await
    }

    /// Sends a POST request without a body, with the token of the run.
    pub(crate) async fn post(&self, path: &str) -> (u16, String) {
        let token = fs::read_to_string(self.run.join("token")).expect("there is a token");
        self.send(self.client.post(format!("{}{path}", self.url())).bearer_auth(token)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        match request.send().await {
            Ok(response) => (response.status().as_u16(), response.text().await.unwrap_or_default()),
            Err(error) => (0, format!("{error:?}")),
        }
    }

    /// Waits until a GET request has this answer.
    pub(crate) async fn answers(&self, path: &str, status: u16, body: &str) {
        eventually_some(format!("{path}: {status} {body}"), SOON, async || {
            (self.get(path).await == (status, body.to_owned())).then_some(())
        })
        .await;
    }

    /// Waits until a text was printed.
    pub(crate) async fn prints(&self, text: &str) {
        eventually_some(format!("fjord dev prints {text:?}"), SOON, async || {
            self.process.log().contains(text).then_some(())
        })
        .await;
    }

    /// Returns the lines that were printed and contain a text.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let log = self.process.log();
        log.lines().filter(|line| line.contains(text)).map(ToOwned::to_owned).collect()
    }

    /// Returns the process ids and names of the child processes.
    pub(crate) fn children(&self) -> BTreeSet<(u32, String)> {
        let ids = fs::read_dir("/proc")
            .expect("/proc can be read")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_child = |id: &u32| {
            // The format is `pid (name) state parent …`, and the name can contain parentheses.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            parent == Some(&self.process.pid().to_string())
        };
        let name = |id: u32| {
            let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            (id, line.replace('\0', " "))
        };
        ids.filter(is_child).map(name).collect()
    }

    /// Returns the process id of the child whose command line contains a text.
    pub(crate) fn child(&self, text: &str) -> u32 {
        let children = self.children();
        let found = children.iter().find(|(_, line)| line.contains(text));
        found.unwrap_or_else(|| panic!("no {text} in {children:?}")).0
    }

    /// Presses Ctrl-C, and asserts that nothing is left behind.
    pub(crate) async fn stop(mut self) {
        let children = self.children();
        // The children are three servers, and the shell that guards them.
        assert_eq!(children.len(), 4, "{children:?}");
        self.process.signal(Signal::INT);
        let status = self.process.wait(STOP_LIMIT).await;
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
        self.is_clean(&children);
    }

    /// Asserts that the processes have exited and the run directory was removed.
    pub(crate) fn is_clean(&self, children: &BTreeSet<(u32, String)>) {
        for (id, line) in children {
            assert!(!runs(*id), "{line} still runs");
        }
        assert!(!self.run.exists(), "{} still exists", self.run.display());
    }

    /// Waits until the command exits without a signal, and returns its exit status.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        self.process.wait(STOP_LIMIT).await.code()
    }
}
