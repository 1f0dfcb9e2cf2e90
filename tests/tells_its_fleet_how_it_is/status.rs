//! `fjord status` as a command: what it prints, for how long, and what it says when it cannot.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::fjord::{Fleet, FleetOptions};
use crate::support::fjord_binary;
use crate::support::nats::{NatsOptions, NatsServer, SHIPPED_PASSWORD};
use crate::support::ports;
use crate::support::terminal::Terminal;

/// `fjord status` with the configuration of a node.
pub(super) fn status(directory: &Path, arguments: &[&str]) -> Command {
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
    let options = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let server = NatsServer::start(home.path(), &certs, &options).await;
    let port = server.url().rsplit(':').next().and_then(|port| port.parse().ok());
    write(port.expect("a port"));
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("no reply on fjord.status"), "{said}");

    std::fs::write(&file, "[messaging.nats]\nmonitoring = ['nats-1:8222']\n").expect("a file");
    let output = run(home.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("messaging.nats.monitoring"), "{}", text(&output.stderr));
    assert_eq!(run(home.path(), &["--interval", "0"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_account_tells_of_every_server_of_the_cluster() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let fleet =
        Fleet::start(FleetOptions { nats, nats_servers: 3, ..FleetOptions::default() }).await;
    let set = |key: &str, value: &str| format!("messaging.nats.{key}={value}");
    let operator = [set("user", "operator"), set("inbox_prefix", "_INBOX_operator")];
    let ask = |user: &str| {
        let system = [set("system.user", user), set("system.password", SHIPPED_PASSWORD)];
        let sets = operator.iter().chain(&system).flat_map(|set| ["--set", set.as_str()]);
        let arguments: Vec<&str> = sets.chain(["--json", "--interval", "1"]).collect();
        let output = run(fleet.gateways[0].directory(), &arguments);
        let view: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON document: {}", text(&output.stderr)));
        assert_eq!(view["processes"].as_array().map(Vec::len), Some(2), "{view}");
        view["nats"].as_array().expect("servers").clone()
    };
    let servers = ask("system");
    let names: Vec<_> = servers.iter().map(|server| server["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{servers:?}");
    let clients: u64 = servers.iter().map(|server| server["connections"].as_u64().unwrap()).sum();
    assert_eq!(clients, 4, "a gateway, a worker, and who asks by two accounts: {servers:?}");
    assert!(servers.iter().all(|server| server["failure"].is_null()), "{servers:?}");
    // Anybody else may ask, and is not answered.
    let servers = ask("caller");
    assert_eq!(servers.len(), 1);
    let failure = servers[0]["failure"].as_str().expect("a reason");
    assert!(failure.contains("system account"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_drawn_anew_at_each_look() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let arguments = ["--watch", "--interval", "1"];
    let terminal = Terminal::start(status(fleet.gateways[0].directory(), &arguments));
    // Home, and everything below is gone.
    let redraw = "\x1b[H\x1b[J";
    let shown = terminal.shows("three looks", |text| text.matches(redraw).count() >= 3).await;
    let pages: Vec<&str> = shown.split(redraw).collect();
    assert_eq!(pages[0], "", "nothing comes before the first page");
    for page in &pages[1..3] {
        assert!(page.starts_with("There is no bottleneck"), "{page:?}");
        assert!(page.contains("gateway") && page.contains("worker"), "{page:?}");
    }
}
