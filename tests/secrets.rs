//! Promise: with any log filter, no secret appears in an argument, a log, a page, a metric, an output or an error.

use std::fs;
use std::process::Command;

use http::header::AUTHORIZATION;

use super::support::client::{get_text, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use super::support::{fjord_binary, ports};

/// The passwords of NATS and of the database, a caller's API key and a caller's token.
const CANARIES: [&str; 4] =
    [SHIPPED_PASSWORD, "canary-of-the-login", "canary-of-a-key", "canary.of-a.token"];

const GUARDED: &str = r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo",
    "timeout": "2s", "auth": { "methods": ["api-key"] } } }"#;
/// A configuration that contains the hash of another key.
const KEYS: &str = "[auth.api_keys.billing]\n\
    sha256 = ['762c08fc17a1cc5f00d248f8b50f2f2f4d17ff2934ac31e64deacb3f5bb3f2ec']\n";

/// Returns all publicly readable output of a process.
async fn seen(node: &FjordProcess) -> Vec<(String, String)> {
    let mut seen = vec![("its log".to_owned(), node.process.log())];
    let process = format!("/proc/{}/cmdline", node.process.pid());
    seen.push((process.clone(), fs::read_to_string(process).unwrap()));
    for page in ["status", "metrics", "healthz", "readyz", "nowhere"] {
        let url = format!("http://{}/{page}", node.admin());
        // `get_text` returns `None` for an unsuccessful response.
        seen.push((page.to_owned(), get_text(&url).await.unwrap_or_default()));
    }
    for command in [&["config"][..], &["check"], &["routes"]] {
        let mut fjord = Command::new(fjord_binary());
        fjord.args(command).arg("--config").arg(node.directory());
        let output = fjord.args(["--role", node.role()]).output().expect("fjord runs");
        let output = [output.stdout, output.stderr].concat();
        seen.push((format!("fjord {}", command.join(" ")), String::from_utf8(output).unwrap()));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_contains_a_secret() {
    let database = format!(
        "[procedures.databases.away]\nbackend = 'mssql'\n[procedures.databases.away.mssql]\n\
         host = '127.0.0.1'\nport = {}\ndatabase = 'register'\nuser = 'fjord'\n\
         password = 'canary-of-the-login'\n",
        ports::pick(),
    );
    let fleet = Fleet::start(FleetOptions {
        nats: NatsOptions { is_shipped: true, ..NatsOptions::default() },
        log_filter: "trace",
        catalogue: Some(("guarded.json", GUARDED)),
        gateway_toml: KEYS.to_owned(),
        worker_toml: database,
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    for (name, value) in [
        ("x-api-key", "canary-of-a-key"),
        (AUTHORIZATION.as_str(), "ApiKey canary-of-a-key"),
        (AUTHORIZATION.as_str(), "Bearer canary.of-a.token"),
        ("cookie", "session=canary-of-a-key"),
    ] {
        let request = client.request(http::Method::GET, "/v1/guarded").header(name, value);
        let answer = send(request).await;
        assert_eq!(answer.status, 401);
        assert!(CANARIES.iter().all(|canary| !answer.text().contains(canary)), "{}", answer.text());
    }
    eventually_some("the refusals are logged", SOON, async || {
        let log = fleet.gateways[0].process.log();
        (log.matches("\"endpoint\":\"guarded\"").count() >= 4).then_some(())
    })
    .await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        for (place, text) in seen(node).await {
            for canary in CANARIES {
                let line = text.lines().find(|line| line.contains(canary));
                assert_eq!(line, None, "{canary} is in {place}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_logged() {
    let fleet = Fleet::start_without_waiting(FleetOptions {
        nats: NatsOptions { is_shipped: true, ..NatsOptions::default() },
        nats_password: Some("canary-of-a-key"),
        log_filter: "trace",
        ..FleetOptions::default()
    })
    .await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        let log = eventually_some("the authorization error is logged", SOON, async || {
            let log = node.process.log();
            log.to_lowercase().contains("authorization").then_some(log)
        })
        .await;
        assert!(!log.contains("canary-of-a-key"));
    }
}
