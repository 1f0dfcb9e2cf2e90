//! `fjord status` names what is short, with the figures that `/metrics` has.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjord::lifecycle::Tasks;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::client::{Client, get_text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord::{Fleet, FleetOptions};
use crate::support::fjord_binary;
use crate::support::nats::NatsServer;
use crate::support::ports;

/// Callers of the queue that becomes full: five for each of its slots.
const CALLERS: usize = 30;
/// Slots of each queue at each worker.
const LIMIT: u32 = 2;

/// `fjord status` with the configuration of a node.
fn status(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(fjord_binary());
    command.arg("status").arg("--config").arg(directory).args(arguments);
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    status(directory, arguments).output().expect("fjord runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Callers that ask for `path` one request after the other, until they are stopped.
struct Callers(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Callers {
    fn start(clients: &[Client], path: &'static str, number: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |client: &Client| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            Tasks::new().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.get(path).await.is(200);
                }
            })
        };
        let callers = clients.iter().cycle().take(number).map(caller).collect();
        Self(stop, callers)
    }

    async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        for caller in self.1 {
            caller.await.expect("every answer is a 200");
        }
    }
}

fn near(found: &Value, expected: f64, tolerance: f64) {
    let found = found.as_f64().expect("a number");
    assert!((found - expected).abs() <= expected * tolerance, "{found} is not near {expected}");
}

/// The lines of `/metrics` of every node that are about a queue's calls and slots.
async fn metrics_about(fleet: &Fleet, queue: &str) -> String {
    let mut lines = String::new();
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        let text = get_text(&format!("http://{}/metrics", node.admin())).await.expect("metrics");
        let about = text.lines().filter(|line| line.contains(&format!("queue=\"{queue}\"")));
        let about = about.filter(|line| !line.contains("_bucket") && !line.contains("offers"));
        for line in about {
            writeln!(lines, "  {} {line}", node.process.name()).expect("a string takes it");
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_that_is_full_is_named_as_the_bottleneck() {
    let options = FleetOptions {
        gateways: 2,
        workers: 3,
        concurrency: LIMIT as usize,
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options).await;
    let first = fleet.client();
    let clients = [first.clone(), first.at(fleet.gateways[1].https())];
    let full = Callers::start(&clients, "/v1/slow?ms=200", CALLERS);
    let easy = Callers::start(&clients, "/v1/echo/1", 1);
    let slots = LIMIT * 3;
    eventually_some("the queue is full", SOON, async || {
        let mut running = 0.0;
        for worker in &fleet.workers {
            running += worker.figure(r#"fjord_worker_running{queue="slow"}"#).await;
        }
        (running > f64::from(slots) - 0.5).then_some(())
    })
    .await;
    let monitoring = format!("messaging.nats.monitoring={}", fleet.nats.servers[0].monitoring());
    let arguments = ["--interval", "3", "--set", monitoring.as_str()];
    let output = run(fleet.gateways[0].directory(), &arguments);
    let page = text(&output.stdout);
    assert!(output.status.success(), "{page}\n{}", text(&output.stderr));
    println!("{page}\n/metrics at that moment:\n{}", metrics_about(&fleet, "slow").await);
    assert!(
        page.starts_with("The bottleneck is queue slow: the 6 slots of its 3 workers"),
        "{page}"
    );

    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = run(fleet.workers[0].directory(), &arguments);
    let view: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(
        (&view["bottleneck"]["kind"], &view["bottleneck"]["name"]),
        (&"queue".into(), &"slow".into())
    );
    let processes = view["processes"].as_array().expect("processes");
    let roles: Vec<_> = processes.iter().map(|each| each["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["gateway", "gateway", "worker", "worker", "worker"]);
    let queues = view["queues"].as_array().expect("queues");
    let slow = queues.iter().find(|queue| queue["name"] == "slow").expect("the queue");
    assert_eq!((&slow["limit"], &slow["workers"]), (&slots.into(), &3.into()), "{slow}");
    assert!(slow["saturated"].as_f64() > Some(0.5), "{slow}");
    assert!(slow["waiting"].as_u64() > Some(5), "{slow}");
    // Six slots and a fifth of a second for each call. A busy machine adds to that.
    near(&slow["calls_per_second"], 28.0, 0.35);
    near(&slow["p50_seconds"], 0.2, 0.4);
    near(&view["window_seconds"], 3.0, 0.4);
    assert_eq!(view["nats"][0]["connections"], 6, "two gateways, three workers, and who asks");
    assert!(view["nats"][0]["in_messages_per_second"].as_f64() > Some(50.0), "{}", view["nats"]);
    full.stop().await;
    easy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_fleet_has_no_bottleneck_and_is_watched_until_nobody_looks() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let mut command =
        status(fleet.gateways[0].directory(), &["--watch", "--json", "--interval", "1"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().expect("fjord runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("its output")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("another line").expect("text");
        let view: Value = serde_json::from_str(&line).expect("a JSON document");
        assert_eq!(view["bottleneck"]["kind"], "none");
        assert_eq!(view["processes"].as_array().map(Vec::len), Some(2));
    }
    drop(lines);
    assert!(watching.wait().expect("it ends").success(), "its reader has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_nobody_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("fjord.toml");
    let write = |port: u16| {
        let servers =
            format!("servers = ['nats://127.0.0.1:{port}']\ninsecure_plain_text = true\n");
        std::fs::write(&file, format!("[messaging.nats]\n{servers}")).expect("a file");
    };
    write(ports::pick());
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("no connection to NATS") && said.contains("127.0.0.1"), "{said}");

    let certs = crate::support::certs::Certs::new(&home.path().join("certs"));
    let options = crate::support::nats::NatsOptions {
        has_tls: false,
        ..crate::support::nats::NatsOptions::default()
    };
    let server = NatsServer::start(home.path(), &certs, &options).await;
    let port = server.url().rsplit(':').next().and_then(|port| port.parse().ok());
    write(port.expect("a port"));
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("nobody answered on fjord.status"), "{said}");

    std::fs::write(&file, "[messaging.nats]\nmonitoring = ['nats-1:8222']\n").expect("a file");
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("messaging.nats.monitoring"), "{}", text(&output.stderr));
    assert_eq!(run(home.path(), &["--interval", "0"]).status.code(), Some(2));
}
