//! The measured processes, and the processes of the load generator.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually::eventually_some;
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsServer;
use crate::support::process::Process;
use crate::support::process_guard;

use super::Plan;
use super::https_client::BenchHttp;
use super::load_generator::LoadSample;
use super::procedure_client::ProcedureRequest;

/// The time limit for a process to become ready, with a margin for a busy machine.
pub(crate) const READY_LIMIT: Duration = Duration::from_mins(2);
/// Gateway settings for many connections that are idle for a long time.
pub(crate) const GATEWAY: &str = "header_timeout = '30m'\nconnections_max = 20000\n";

/// A target of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BenchTarget {
    /// HTTPS through a gateway, NATS and a worker of fjord.
    Fjord(BenchHttp),
    /// HTTPS through another build of fjord.
    Base(BenchHttp),
    /// NATS alone.
    Nats,
    /// HTTPS alone.
    Https(BenchHttp),
    /// A gateway and a worker in Go.
    Go(BenchHttp),
}

impl BenchTarget {
    /// Returns the target's name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fjord(BenchHttp::H1) => "fjord h1",
            Self::Fjord(BenchHttp::H2) => "fjord h2",
            Self::Base(BenchHttp::H1) => "base h1",
            Self::Base(BenchHttp::H2) => "base h2",
            Self::Nats => "nats",
            Self::Https(BenchHttp::H1) => "https h1",
            Self::Https(BenchHttp::H2) => "https h2",
            Self::Go(BenchHttp::H1) => "go h1",
            Self::Go(BenchHttp::H2) => "go h2",
        }
    }
}

/// The running processes of all targets.
pub(crate) struct BenchProcesses {
    fleet: Fleet,
    base: Option<Fleet>,
    https: (Process, SocketAddr),
    responder: Process,
    go: Option<GoPeer>,
    home: TempDir,
}

/// A gateway and a worker in Go.
struct GoPeer {
    gateway: Process,
    address: SocketAddr,
    worker: Process,
    version: String,
}

impl GoPeer {
    async fn start(peer: &Path, fleet: &Fleet, home: &Path) -> Self {
        let urls = fleet.nats.urls();
        let url = urls.first().expect("a server");
        let part = |name: &str| {
            let mut command = Command::new(peer);
            command.arg(name).arg(url).arg(&fleet.certs.ca);
            command
        };
        let worker = Process::start("go worker", part("worker"), &home.join("go-worker"));
        let version = wait_for_line(&worker, "version ").await;
        wait_for_line(&worker, "listening").await;
        let (mut command, files) = (part("gateway"), &fleet.certs.server);
        command.arg(&files.certificate).arg(&files.key);
        let gateway = Process::start("go gateway", command, &home.join("go-gateway"));
        let address = wait_for_line(&gateway, "listening ").await.parse().expect("an address");
        Self { gateway, address, worker, version }
    }
}

impl BenchProcesses {
    /// Starts all targets.
    pub(crate) async fn start(plan: &Plan) -> Self {
        let options = FleetOptions {
            concurrency: plan.slots,
            queues: "echo",
            gateway_toml: GATEWAY.to_owned(),
            executable: plan.executable.clone(),
            ..FleetOptions::default()
        };
        let base = match &plan.base {
            Some(_) => {
                let options = FleetOptions { executable: plan.base.clone(), ..options.clone() };
                Some(Fleet::start(options).await)
            }
            None => None,
        };
        let fleet = Fleet::start(options).await;
        let home = tempfile::tempdir().expect("a temporary directory");
        let files = &fleet.certs.server;
        let mut command = this("https");
        command.arg("--certificate").arg(&files.certificate).arg("--key").arg(&files.key);
        let https = Process::start("https", command, &home.path().join("https"));
        let address = wait_for_line(&https, "listening ").await.parse().expect("an address");
        let mut command = this("responder");
        command.arg("--url").arg(fleet.nats.urls().first().expect("a server"));
        command.arg("--ca").arg(&fleet.certs.ca);
        let responder = Process::start("responder", command, &home.path().join("responder"));
        wait_for_line(&responder, "listening").await;
        let go = match &plan.go {
            Some(peer) => Some(GoPeer::start(peer, &fleet, home.path()).await),
            None => None,
        };
        Self { fleet, base, https: (https, address), responder, go, home }
    }

    /// Returns the versions of Go and of its NATS client library, if Go is measured.
    pub(crate) fn go_version(&self) -> Option<String> {
        self.go.as_ref().map(|go| go.version.clone())
    }

    /// Returns the targets, in the order of measurement.
    pub(crate) fn targets(&self) -> impl Iterator<Item = BenchTarget> + use<> {
        let (base, go) = (self.base.is_some(), self.go.is_some());
        let with_version = move |http| {
            let others = [BenchTarget::Nats, BenchTarget::Https(http)];
            let base = base.then_some(BenchTarget::Base(http));
            let go = go.then_some(BenchTarget::Go(http));
            [BenchTarget::Fjord(http)].into_iter().chain(base).chain(go).chain(others)
        };
        with_version(BenchHttp::H1)
            .chain(with_version(BenchHttp::H2).filter(|target| *target != BenchTarget::Nats))
    }

    /// Returns the ids of a target's processes. These are the gateway, the worker and the NATS
    /// server, or the responder and the NATS server, or only the HTTPS server.
    pub(crate) fn pids(&self, target: BenchTarget) -> Vec<u32> {
        let fleet = self.fleet_of(target);
        let nats = fleet.nats.servers.first().map(NatsServer::pid);
        let first = match target {
            BenchTarget::Fjord(_) | BenchTarget::Base(_) => {
                fleet.gateways.iter().chain(&fleet.workers).map(|n| n.process.pid()).collect()
            }
            BenchTarget::Nats => vec![self.responder.pid()],
            BenchTarget::Https(_) => return vec![self.https.0.pid()],
            BenchTarget::Go(_) => {
                self.go.iter().flat_map(|go| [go.gateway.pid(), go.worker.pid()]).collect()
            }
        };
        first.into_iter().chain(nats).collect()
    }

    /// Returns the fleet whose NATS server a target uses.
    fn fleet_of(&self, target: BenchTarget) -> &Fleet {
        match (target, &self.base) {
            (BenchTarget::Base(_), Some(base)) => base,
            _ => &self.fleet,
        }
    }

    fn address(&self, target: BenchTarget) -> Option<SocketAddr> {
        match target {
            BenchTarget::Fjord(_) | BenchTarget::Base(_) => {
                self.fleet_of(target).gateways.first().map(FjordProcess::https)
            }
            BenchTarget::Nats => None,
            BenchTarget::Https(_) => Some(self.https.1),
            BenchTarget::Go(_) => self.go.as_ref().map(|go| go.address),
        }
    }

    /// Measures a target with a load generator in its own process.
    pub(crate) async fn ask(
        &self,
        target: BenchTarget,
        concurrency: usize,
        seconds: f64,
        rate: Option<f64>,
    ) -> LoadSample {
        let is_http2 = matches!(
            target,
            BenchTarget::Fjord(BenchHttp::H2)
                | BenchTarget::Base(BenchHttp::H2)
                | BenchTarget::Https(BenchHttp::H2)
                | BenchTarget::Go(BenchHttp::H2)
        );
        let https = self.address(target);
        ask(&LoadOptions {
            ca: &self.fleet_of(target).certs.ca,
            https: https.into_iter().collect(),
            nats: self.fleet.nats.urls().into_iter().next().filter(|_| https.is_none()),
            request: None,
            http: if is_http2 { BenchHttp::H2 } else { BenchHttp::H1 },
            concurrency,
            seconds,
            rate,
            pids: self.pids(target),
        })
        .await
    }

    /// Opens idle connections to a target. They stay open until the returned process is dropped.
    pub(crate) async fn hold_idle(&self, target: BenchTarget, number: usize) -> Process {
        let address = self.address(target).expect("HTTPS");
        let log = self.home.path().join(format!("idle-{}-{number}", target.name()));
        hold_idle(address, &self.fleet.certs.ca, number, &log).await
    }
}

/// The options of a measurement: the target, the load, and the processes whose usage is measured.
pub(crate) struct LoadOptions<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) nats: Option<String>,
    pub(crate) request: Option<ProcedureRequest>,
    pub(crate) http: BenchHttp,
    pub(crate) concurrency: usize,
    pub(crate) seconds: f64,
    pub(crate) rate: Option<f64>,
    pub(crate) pids: Vec<u32>,
}

/// Runs a load generator in its own process.
pub(crate) async fn ask(options: &LoadOptions<'_>) -> LoadSample {
    let mut command = this("caller");
    command.arg("--ca").arg(options.ca);
    command.args(["--concurrency", &options.concurrency.to_string()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    for address in &options.https {
        command.args(["--https", &address.to_string()]);
    }
    if let Some(url) = &options.nats {
        command.args(["--nats", url]);
    }
    if let Some(request) = &options.request {
        let subject = request.subject.as_deref().expect("a subject");
        command.args(["--subject", subject, "--endpoint", &request.endpoint]);
        command.args(["--payload", &request.payload]);
    }
    if options.http == BenchHttp::H2 {
        command.args(["--http", "h2"]);
    }
    if let Some(rate) = options.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    for pid in &options.pids {
        command.args(["--pid", &pid.to_string()]);
    }
    let mut command = tokio::process::Command::from(command);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let caller = command.spawn().expect("the load generator starts");
    let pid = caller.id().expect("the process was not waited for");
    process_guard::watch(pid);
    let output = caller.wait_with_output().await.expect("the command runs");
    process_guard::forget(pid);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}

/// Opens idle connections. They stay open until the returned process is dropped.
pub(crate) async fn hold_idle(
    address: SocketAddr,
    ca: &Path,
    number: usize,
    log: &Path,
) -> Process {
    let mut command = this("idle");
    command.arg("--https").arg(address.to_string()).arg("--ca").arg(ca);
    command.args(["--number", &number.to_string()]);
    let process = Process::start("idle", command, log);
    wait_for_line(&process, "holding").await;
    process
}

/// Returns a command that runs this executable with another subcommand.
pub(crate) fn this(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this executable has a path"));
    command.arg(part);
    command
}

/// Waits for a log line that starts with `word`. Returns the rest of that line.
pub(crate) async fn wait_for_line(process: &Process, word: &str) -> String {
    eventually_some(format!("{} prints {word}", process.name()), READY_LIMIT, async || {
        process.log().lines().find_map(|line| Some(line.strip_prefix(word)?.to_owned()))
    })
    .await
}
