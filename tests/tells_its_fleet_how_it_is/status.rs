//! `fjord status` as a command: what it prints, for how long, and what it says when it cannot.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::fjord::{Fleet, FleetOptions};
use crate::support::fjord_binary;
use crate::support::nats::NatsServer;
use crate::support::ports;

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
