//! `make run`: the demo, with one worker, one gateway, a NATS server, and its own TLS certificates.

#[expect(dead_code, reason = "the test suite uses the rest of it")]
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "written for tests, where a failed expectation is the message"
)]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use fjord::lifecycle::{Signal, Signals};
use http::{Method, StatusCode};
use support::certs::Certs;
use support::client::{Client, ClientOptions};
use support::eventually::{TICK, poll};
use support::nats::{NatsOptions, NatsServer};
use support::process::Process;
use support::tokens::{AUDIENCE, ISSUER, Signer, claims, jwks};
use support::{fjord_binary, ports};

/// The time limit for startup. It is long because the first start creates the database.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// The time limit of `died`, which is longer than anyone uses the demo.
const FOREVER: Duration = Duration::from_hours(24 * 365);
/// The time limit for the roles to end.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// The path of the first request, for a horse that every new database contains.
const HORSE: &str = "/v1/horses/528003000004000";

/// A port that the user can set with an environment variable.
struct Port {
    variable: &'static str,
    default: u16,
}

const HTTPS: Port = Port { variable: "FJORD_DEMO_PORT", default: 8443 };
const NATS: Port = Port { variable: "FJORD_DEMO_NATS_PORT", default: 14222 };
const GATEWAY_ADMIN: Port = Port { variable: "FJORD_DEMO_GATEWAY_ADMIN_PORT", default: 9464 };
const WORKER_ADMIN: Port = Port { variable: "FJORD_DEMO_WORKER_ADMIN_PORT", default: 9465 };

impl Port {
    fn chosen(&self) -> Result<u16, String> {
        let variables: std::collections::HashMap<_, _> = std::env::vars().collect();
        let port = match variables.get(self.variable) {
            None => self.default,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("{}: expected a port, 1 to 65535", self.variable))?,
        };
        if ports::is_free(port) {
            Ok(port)
        } else {
            Err(format!("port {port} of 127.0.0.1 is taken: choose another with {}", self.variable))
        }
    }
}

/// The directory, certificates and ports of the demo.
struct Demo {
    home: PathBuf,
    certs: Certs,
    https: u16,
    gateway_admin: u16,
    worker_admin: u16,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a program that prints to a terminal")]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints to a terminal"
)]
async fn run() -> Result<ExitCode, String> {
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    support::client::install_provider();
    let nats_port = NATS.chosen()?;
    // All ports are checked before anything is written, because a running demo uses the same directory.
    let (https, gateway_admin) = (HTTPS.chosen()?, GATEWAY_ADMIN.chosen()?);
    let worker_admin = WORKER_ADMIN.chosen()?;
    let home = support::target_directory().join("demo");
    fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let certs = Certs::new(&home.join("certs"));
    let demo = Demo { home, certs, https, gateway_admin, worker_admin };
    let options = NatsOptions { port: Some(nats_port), ..NatsOptions::default() };
    let mut nats = NatsServer::start(&demo.home, &demo.certs, &options).await;
    let token = demo.write(&nats.url())?;
    let mut worker = demo.start("worker");
    let mut gateway = demo.start("gateway");
    let failure = tokio::select! {
        error = demo.serve(&token, &mut nats, &mut worker, &mut gateway) => Some(error),
        () = stop(&mut signals) => None,
    };
    if let Some(error) = &failure {
        eprintln!("error: {error}");
    }
    println!("\nstopping …");
    for role in [&mut gateway, &mut worker] {
        if role.is_running() {
            role.terminate();
            role.wait(STOP_LIMIT).await;
        }
    }
    if nats.process().is_running() {
        nats.stop().await;
    }
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

/// Waits until one of the processes has ended on its own, and returns its name.
async fn died(nats: &mut NatsServer, worker: &mut Process, gateway: &mut Process) -> &'static str {
    let found = poll(FOREVER, Duration::from_millis(200), async || {
        let running = [
            ("nats-server", nats.process().is_running()),
            ("the worker", worker.is_running()),
            ("the gateway", gateway.is_running()),
        ];
        running.into_iter().find(|(_, is_running)| !is_running).map(|(name, _)| name)
    });
    found.await.unwrap_or("the demo's time limit")
}

impl Demo {
    /// Writes the configurations of both roles. Returns a token with write access.
    fn write(&self, nats: &str) -> Result<String, String> {
        let signer = Signer::p256("demo").map_err(|error| error.to_string())?;
        let keys = jwks(&[&signer]).map_err(|error| error.to_string())?;
        let register = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo");
        let shared = format!(
            "[catalogue]\ndirectory = '{}'\n[messaging.nats]\nservers = ['{nats}']\n\
             [messaging.nats.tls]\nca = '{}'\n",
            register.join("endpoints").display(),
            self.certs.ca.display(),
        );
        let gateway = format!(
            "[gateway]\nlisten = '127.0.0.1:{}'\n[gateway.tls]\ncertificate = '{}'\nkey = '{}'\n\
             [admin]\nlisten = '127.0.0.1:{}'\n\
             [auth.jwt.demo]\nkeys = 'jwks.json'\nissuer = '{ISSUER}'\naudiences = ['{AUDIENCE}']\n",
            self.https,
            self.certs.server.certificate.display(),
            self.certs.server.key.display(),
            self.gateway_admin,
        );
        let worker = format!(
            "[worker.queues.'*']\nconcurrency = 8\n[worker.queues.report-census]\nconcurrency = 2\n\
             [admin]\nlisten = '127.0.0.1:{}'\n\
             [procedures.databases.default]\nbackend = 'sqlite'\n\
             [procedures.databases.default.sqlite]\nfile = '{}'\nschema = '{}'\nprocedures = '{}'\n",
            self.worker_admin,
            self.home.join("register.db").display(),
            register.join("schema.sql").display(),
            register.join("procedures").display(),
        );
        let files = [
            ("fjord.toml", shared),
            ("gateway.toml", gateway),
            ("worker.toml", worker),
            ("jwks.json", keys),
        ];
        for (name, text) in files {
            let path = self.home.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let mut claims = claims("demo", "register:write", Duration::from_hours(24));
        if let Some(claims) = claims.as_object_mut() {
            claims.insert("office".to_owned(), "central".into());
        }
        signer.sign(&claims).map_err(|error| error.to_string())
    }

    fn start(&self, role: &'static str) -> Process {
        let log = self.home.join(format!("{role}.log"));
        fs::write(&log, "").ok();
        let mut command = Command::new(fjord_binary());
        command.arg("--role").arg(role).arg("--config").arg(&self.home);
        Process::start(role, command, &log)
    }

    /// Runs the demo until a process ends on its own. Returns the error.
    async fn serve(
        &self,
        token: &str,
        nats: &mut NatsServer,
        worker: &mut Process,
        gateway: &mut Process,
    ) -> String {
        if let Err(error) = self.ready(worker, gateway).await {
            return error;
        }
        self.introduce(token);
        let name = died(nats, worker, gateway).await;
        format!("{name} has ended; the logs are in {}", self.home.display())
    }

    async fn ready(&self, worker: &mut Process, gateway: &mut Process) -> Result<(), String> {
        let gateway_address = SocketAddr::from(([127, 0, 0, 1], self.https));
        let client = Client::new(gateway_address, &self.certs, ClientOptions::default());
        let ready = poll(READY_LIMIT, TICK, async || {
            for role in [&mut *worker, &mut *gateway] {
                if let Some(status) = role.ended() {
                    return Some(Err(format!(
                        "{} ended with {status}:\n{}",
                        role.name(),
                        role.log_tail()
                    )));
                }
            }
            // A worker is ready once it serves its first queue, long before a new database is filled. Only a response with
            // data confirms that everything is ready.
            let read = client.try_send(Method::GET, HORSE, None).await.ok()?;
            (read.status == StatusCode::OK).then_some(Ok(()))
        });
        ready.await.unwrap_or_else(|| {
            Err(format!(
                "not ready within {READY_LIMIT:?}:\n{}{}",
                worker.log_tail(),
                gateway.log_tail()
            ))
        })
    }

    #[expect(clippy::print_stdout, reason = "a program that prints to a terminal")]
    fn introduce(&self, token: &str) {
        let url = format!("https://localhost:{}", self.https);
        let curl = format!("curl --cacert {}", self.certs.ca.display());
        let token_file = self.home.join("token");
        fs::write(&token_file, token).ok();
        println!(
            "\nfjord serves the demo register:\n\
             \n  API        {url}    (fjord routes --config {home})\
             \n  gateway    http://127.0.0.1:{gateway}/metrics /healthz /readyz /status\
             \n  worker     http://127.0.0.1:{worker}/metrics /healthz /readyz /status\
             \n  logs       {home}/gateway.log, {home}/worker.log\n\
             \nTry:\n\
             \n  {curl} {url}{HORSE}\
             \n  {curl} '{url}/v1/horses?breed=OLD&limit=3'\
             \n  {curl} -H \"Authorization: Bearer $(cat {token})\" -H 'Idempotency-Key: \"sale-1\"' \\\
             \n       --json '{{\"to_owner\": 2}}' {url}{HORSE}/transfers\n\
             \nCtrl-C stops everything.",
            home = self.home.display(),
            gateway = self.gateway_admin,
            worker = self.worker_admin,
            token = token_file.display(),
        );
    }
}
