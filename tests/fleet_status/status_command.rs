//! Tests the output and the errors of the command `fjord status`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::{NatsOptions, NatsServer, SHIPPED_PASSWORD};
use crate::support::ports;
use crate::support::pseudo_terminal::PseudoTerminal;

/// Returns the command `fjord status` with the configuration of a process.
pub(crate) fn status(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(fjord_binary());
    command.arg("status").arg("--config").arg(directory).args(arguments);
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    status(directory, arguments).output().expect("fjord runs")
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_fleet_has_no_bottleneck_and_watch_ends_with_its_reader() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let mut command =
        status(fleet.gateways[0].directory(), &["--watch", "--json", "--interval", "1"]);
    let mut watching = command.stdout(Stdio::piped()).spawn().expect("fjord runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("the output is piped")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("another line").expect("the line is UTF-8");
        let view: Value = serde_json::from_str(&line).expect("a JSON document");
        assert_eq!(view["bottleneck"]["kind"], "none");
        assert_eq!(view["processes"].as_array().map(Vec::len), Some(2));
    }
    drop(lines);
    assert!(watching.wait().expect("the process ends").success(), "the reader has closed the pipe");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_fleet_is_an_error() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("fjord.toml");
    let write = |port: u16| {
        let servers =
            format!("servers = ['nats://127.0.0.1:{port}']\ninsecure_plain_text = true\n");
        std::fs::write(&file, format!("[messaging.nats]\n{servers}"))
            .expect("the file can be written");
    };
    let closed = ports::pick();
    write(closed);
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let start = format!("error: no connection to NATS within 5s: 127.0.0.1:{closed}: ");
    assert!(stderr.starts_with(&start) && stderr.contains("refused"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let certs = crate::support::certs::Certs::new(&home.path().join("certs"));
    let options = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let server = NatsServer::start(home.path(), &certs, &options).await;
    let port = server.url().rsplit(':').next().and_then(|port| port.parse().ok());
    write(port.expect("a port"));
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("no reply on fjord.status"), "{stderr}");

    std::fs::write(&file, "[messaging.nats]\nmonitoring = ['nats-1:8222']\n")
        .expect("the file can be written");
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("messaging.nats.monitoring"), "{}", text(&output.stderr));
    assert_eq!(run(home.path(), &["--interval", "0"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_account_shows_every_server_of_the_cluster() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let fleet =
        Fleet::start(FleetOptions { nats, nats_servers: 3, ..FleetOptions::default() }).await;
    let set = |key: &str, value: &str| format!("messaging.nats.{key}={value}");
    let operator = [set("user", "operator"), set("inbox_prefix", "_INBOX_operator")];
    let run_status = |user: &str| {
        let system = [set("system.user", user), set("system.password", SHIPPED_PASSWORD)];
        let sets = operator.iter().chain(&system).flat_map(|set| ["--set", set.as_str()]);
        let arguments: Vec<&str> = sets.chain(["--json", "--interval", "1"]).collect();
        let output = run(fleet.gateways[0].directory(), &arguments);
        let view: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON document: {}", text(&output.stderr)));
        assert_eq!(view["processes"].as_array().map(Vec::len), Some(2), "{view}");
        view["nats"].as_array().expect("servers").clone()
    };
    let servers = run_status("system");
    let names: Vec<_> = servers.iter().map(|server| server["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{servers:?}");
    let clients: u64 = servers.iter().map(|server| server["connections"].as_u64().unwrap()).sum();
    assert_eq!(clients, 4, "a gateway, a worker, and the command on two accounts: {servers:?}");
    assert!(servers.iter().all(|server| server["failure"].is_null()), "{servers:?}");
    // Users of other accounts get no response from the system account.
    let servers = run_status("caller");
    assert_eq!(servers.len(), 1);
    let failure = servers[0]["failure"].as_str().expect("a reason");
    assert!(failure.contains("system account"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_cluster_that_does_not_reply_is_reported() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let mut fleet =
        Fleet::start(FleetOptions { nats, nats_servers: 3, ..FleetOptions::default() }).await;
    let idle = fleet.nats.idle_server().await;
    let other = &fleet.nats.urls()[(idle + 1) % 3];
    let set = |key: &str, value: &str| format!("--set=messaging.nats.{key}={value}");
    let arguments = [
        set("user", "operator"),
        set("inbox_prefix", "_INBOX_operator"),
        set("system.user", "system"),
        set("system.password", SHIPPED_PASSWORD),
        set("servers", &format!("[{other:?}]")),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = [&arguments[..], &["--json", "--interval", "1"]].concat();
    let directory = fleet.gateways[0].directory().to_owned();
    let gaps = || {
        let output = run(&directory, &arguments);
        let view: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON document: {}", text(&output.stderr)));
        view["connection_gaps"].as_array().expect("a list").clone()
    };
    assert_eq!(gaps(), [""; 0]);
    fleet.nats.servers[idle].process().pause();
    let found = gaps();
    let name = format!("nats-{}", fleet.nats.servers[idle].address().port());
    let reason = format!("{name}: has not replied, although other servers are connected to it");
    assert_eq!(found, [Value::from(reason)]);
    // The other servers know the server for minutes after it was killed, but have no connection to it.
    fleet.nats.servers[idle].kill();
    eventually(SOON, TICK, || gaps().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_redrawn_at_each_update() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let arguments = ["--watch", "--interval", "1"];
    let terminal = PseudoTerminal::start(status(fleet.gateways[0].directory(), &arguments));
    // This sequence moves the cursor home and clears the screen below it.
    let redraw = "\x1b[H\x1b[J";
    let shown =
        terminal.output_when("three updates", |text| text.matches(redraw).count() >= 3).await;
    let pages: Vec<&str> = shown.split(redraw).collect();
    assert_eq!(pages[0], "", "nothing is printed before the first page");
    for page in &pages[1..3] {
        assert!(page.starts_with("There is no bottleneck"), "{page:?}");
        assert!(page.contains("gateway") && page.contains("worker"), "{page:?}");
    }
}
