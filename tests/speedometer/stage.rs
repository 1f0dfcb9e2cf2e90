//! The processes that are measured, and the ones that ask them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually::eventually_some;
use crate::support::fjord::{Fleet, FleetOptions, Node};
use crate::support::guard;
use crate::support::nats::NatsServer;
use crate::support::process::Process;

use super::caller::Sample;
use super::https::Http;

/// How long a process may take to be ready, on a busy machine.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// Idle connections are neither one too many nor idle for too long.
pub(crate) const GATEWAY: &str = "header_timeout = '30m'\nconnections_max = 20000\n";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// HTTPS through gateway, NATS and worker.
    Fjord(Http),
    /// NATS alone.
    Nats,
    /// HTTPS alone.
    Https(Http),
    /// A gateway and a worker in Go.
    Go(Http),
}

impl Target {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fjord(Http::H1) => "fjord h1",
            Self::Fjord(Http::H2) => "fjord h2",
            Self::Nats => "nats",
            Self::Https(Http::H1) => "https h1",
            Self::Https(Http::H2) => "https h2",
            Self::Go(Http::H1) => "go h1",
            Self::Go(Http::H2) => "go h2",
        }
    }
}

/// All targets, running.
pub(crate) struct Stage {
    fleet: Fleet,
    https: (Process, SocketAddr),
    responder: Process,
    go: Option<Go>,
    home: TempDir,
}

/// The same job in Go.
struct Go {
    gateway: Process,
    address: SocketAddr,
    worker: Process,
    version: String,
}

impl Go {
    async fn start(peer: &Path, fleet: &Fleet, home: &Path) -> Self {
        let urls = fleet.nats.urls();
        let url = urls.first().expect("a server");
        let part = |name: &str| {
            let mut command = Command::new(peer);
            command.arg(name).arg(url).arg(&fleet.certs.ca);
            command
        };
        let worker = Process::start("go worker", part("worker"), &home.join("go-worker"));
        let version = said(&worker, "version ").await;
        said(&worker, "listening").await;
        let (mut command, files) = (part("gateway"), &fleet.certs.server);
        command.arg(&files.certificate).arg(&files.key);
        let gateway = Process::start("go gateway", command, &home.join("go-gateway"));
        let address = said(&gateway, "listening ").await.parse().expect("an address");
        Self { gateway, address, worker, version }
    }
}

impl Stage {
    /// Starts them.
    pub(crate) async fn set(go: Option<&Path>) -> Self {
        let fleet = Fleet::start(FleetOptions {
            concurrency: 1024,
            queues: "echo",
            gateway_toml: GATEWAY.to_owned(),
            ..FleetOptions::default()
        })
        .await;
        let home = tempfile::tempdir().expect("a directory of its own");
        let files = &fleet.certs.server;
        let mut command = this("https");
        command.arg("--certificate").arg(&files.certificate).arg("--key").arg(&files.key);
        let https = Process::start("https", command, &home.path().join("https"));
        let address = said(&https, "listening ").await.parse().expect("an address");
        let mut command = this("responder");
        command.arg("--url").arg(fleet.nats.urls().first().expect("a server"));
        command.arg("--ca").arg(&fleet.certs.ca);
        let responder = Process::start("responder", command, &home.path().join("responder"));
        said(&responder, "listening").await;
        let go = match go {
            Some(peer) => Some(Go::start(peer, &fleet, home.path()).await),
            None => None,
        };
        Self { fleet, https: (https, address), responder, go, home }
    }

    /// Which Go and which client library, where they are measured.
    pub(crate) fn go_version(&self) -> Option<String> {
        self.go.as_ref().map(|go| go.version.clone())
    }

    /// What is asked, in turns.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Target> + use<> {
        let go = self.go.is_some();
        let each = move |http| {
            let others = [Target::Nats, Target::Https(http)];
            let go = go.then_some(Target::Go(http));
            [Target::Fjord(http)].into_iter().chain(others).chain(go)
        };
        each(Http::H1).chain(each(Http::H2).filter(|target| *target != Target::Nats))
    }

    /// The numbers of a target's processes: gateway, worker and NATS server; responder and NATS server; server.
    pub(crate) fn pids(&self, target: Target) -> Vec<u32> {
        let nats = self.fleet.nats.servers.first().map(NatsServer::pid);
        let first = match target {
            Target::Fjord(_) => self
                .fleet
                .gateways
                .iter()
                .chain(&self.fleet.workers)
                .map(|n| n.process.pid())
                .collect(),
            Target::Nats => vec![self.responder.pid()],
            Target::Https(_) => return vec![self.https.0.pid()],
            Target::Go(_) => {
                self.go.iter().flat_map(|go| [go.gateway.pid(), go.worker.pid()]).collect()
            }
        };
        first.into_iter().chain(nats).collect()
    }

    fn address(&self, target: Target) -> Option<SocketAddr> {
        match target {
            Target::Fjord(_) => self.fleet.gateways.first().map(Node::https),
            Target::Nats => None,
            Target::Https(_) => Some(self.https.1),
            Target::Go(_) => self.go.as_ref().map(|go| go.address),
        }
    }

    /// Asks a target, from a process of its own.
    pub(crate) async fn ask(
        &self,
        target: Target,
        concurrency: usize,
        seconds: f64,
        rate: Option<f64>,
    ) -> Sample {
        let is_http2 = matches!(
            target,
            Target::Fjord(Http::H2) | Target::Https(Http::H2) | Target::Go(Http::H2)
        );
        let https = self.address(target);
        ask(&Question {
            ca: &self.fleet.certs.ca,
            https: https.into_iter().collect(),
            nats: self.fleet.nats.urls().into_iter().next().filter(|_| https.is_none()),
            http: if is_http2 { Http::H2 } else { Http::H1 },
            concurrency,
            seconds,
            rate,
            pids: self.pids(target),
        })
        .await
    }

    /// Connections to a target that stay until the process is dropped.
    pub(crate) async fn hold(&self, target: Target, number: usize) -> Process {
        let address = self.address(target).expect("HTTPS");
        let log = self.home.path().join(format!("idle-{}-{number}", target.name()));
        hold(address, &self.fleet.certs.ca, number, &log).await
    }
}

/// What is asked, of whom, and whose processor time counts.
pub(crate) struct Question<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) nats: Option<String>,
    pub(crate) http: Http,
    pub(crate) concurrency: usize,
    pub(crate) seconds: f64,
    pub(crate) rate: Option<f64>,
    pub(crate) pids: Vec<u32>,
}

/// Asks, from a process of its own.
pub(crate) async fn ask(question: &Question<'_>) -> Sample {
    let mut command = this("caller");
    command.arg("--ca").arg(question.ca);
    command.args(["--concurrency", &question.concurrency.to_string()]);
    command.args(["--seconds", &question.seconds.to_string()]);
    for address in &question.https {
        command.args(["--https", &address.to_string()]);
    }
    if let Some(url) = &question.nats {
        command.args(["--nats", url]);
    }
    if question.http == Http::H2 {
        command.args(["--http", "h2"]);
    }
    if let Some(rate) = question.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    for pid in &question.pids {
        command.args(["--pid", &pid.to_string()]);
    }
    let mut command = tokio::process::Command::from(command);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let caller = command.spawn().expect("it starts");
    let pid = caller.id().expect("it has not been waited for");
    guard::watch(pid);
    let output = caller.wait_with_output().await.expect("it runs");
    guard::forget(pid);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}

/// So many connections that stay until the process is dropped.
pub(crate) async fn hold(address: SocketAddr, ca: &Path, number: usize, log: &Path) -> Process {
    let mut command = this("idle");
    command.arg("--https").arg(address.to_string()).arg("--ca").arg(ca);
    command.args(["--number", &number.to_string()]);
    let process = Process::start("idle", command, log);
    said(&process, "holding").await;
    process
}

/// This executable in another part.
fn this(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this executable has a path"));
    command.arg(part);
    command
}

/// What a process said after this word.
async fn said(process: &Process, word: &str) -> String {
    eventually_some(format!("{} says {word}", process.name()), READY_LIMIT, async || {
        process.log().lines().find_map(|line| Some(line.strip_prefix(word)?.to_owned()))
    })
    .await
}
