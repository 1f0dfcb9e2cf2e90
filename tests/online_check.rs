//! Promise: `fjord check --online` reports every mismatch between a configuration, its NATS servers and its databases
//! within seconds, each on one line, and exits with status 2. If there is no mismatch, it lists the checks that it
//! made.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::support::certs::Certs;
use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::latency_proxy::LatencyProxy;
use super::support::mssql_server::fake_server;
use super::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use super::support::ports;
use super::support::tds::{FakeSqlServer, PASSWORD};

/// The time limit of a check. It is far shorter than the sum of all deadlines, because the checks run in parallel.
const SOON: Duration = Duration::from_secs(20);

fn check(role: &str, directory: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.args(["check", "--online", "--role", role, "--config"]).arg(directory).args(more);
    tokio::task::block_in_place(|| command.output().expect("fjord runs"))
}

/// Returns the lines of stderr that begin with `word`, without that word.
fn lines_with_prefix(output: &Output, word: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.map(|line| line.trim_start_matches(": ").to_owned()).collect()
}

#[track_caller]
fn assert_one_line_has(lines: &[String], parts: &[&str]) {
    let fitting = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part)));
    assert_eq!(fitting.count(), 1, "{parts:?} in\n{}", lines.join("\n"));
}

async fn fleet(nats: NatsOptions) -> Fleet {
    Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_databases_that_match_are_listed() {
    let nats = NatsOptions { payload_bytes_max: 4 << 20, ..NatsOptions::default() };
    let fleet = fleet(nats).await;
    for (node, expected) in [
        (&fleet.gateways[0], &["gateway: NATS server 127.0.0.1:"][..]),
        (&fleet.workers[0], &["worker: NATS server 127.0.0.1:", "worker: database default ("]),
    ] {
        let output = check(node.role(), node.directory(), &[]);
        assert_eq!(output.status.code(), Some(0), "{:?}", lines_with_prefix(&output, "error"));
        let listed = String::from_utf8_lossy(&output.stdout);
        let listed: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
        assert_eq!(listed.len(), expected.len() + 1, "{listed:?}");
        for part in expected {
            assert_one_line_has(&listed, &[part]);
        }
    }
    // The check sent no message to a queue, and no worker left its queue group.
    fleet.client().get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_refuses_the_connection_is_an_error() {
    let fleet = fleet(NatsOptions { is_shipped: true, ..NatsOptions::default() }).await;
    let gateway = fleet.gateways[0].directory();
    // The shipped permissions are sufficient, but one endpoint accepts bodies that are larger than the server's max_payload.
    assert_eq!(check("worker", fleet.workers[0].directory(), &[]).status.code(), Some(0));
    let errors = lines_with_prefix(&check("gateway", gateway, &[]), "error");
    assert_one_line_has(&errors, &["endpoint \"keep\"", "2097152 bytes", "1048576 (max_payload)"]);
    assert_eq!(errors.len(), 1, "{errors:?}");

    let of_other = format!("messaging.nats.password={SHIPPED_PASSWORD}x");
    let output = check("gateway", gateway, &["--set", &of_other]);
    assert_eq!(output.status.code(), Some(2));
    assert_one_line_has(
        &lines_with_prefix(&output, "error"),
        &["gateway: NATS server 127.0.0.1:", "authorization"],
    );

    let directory = tempfile::tempdir().expect("a temporary directory");
    let stranger = Certs::new(directory.path());
    let ca = format!("messaging.nats.tls.ca={}", stranger.ca.display());
    let output = check("gateway", gateway, &["--set", &ca]);
    assert_eq!(output.status.code(), Some(2));
    assert_one_line_has(
        &lines_with_prefix(&output, "error"),
        &["NATS server 127.0.0.1:", "certificate"],
    );

    // This gateway connects as the user `worker`.
    let output = check("gateway", gateway, &["--set", "messaging.nats.user=worker"]);
    assert_eq!(output.status.code(), Some(2));
    assert_one_line_has(
        &lines_with_prefix(&output, "error"),
        &["refused", "Publish to", "fjord.w.echo."],
    );
    assert_one_line_has(&lines_with_prefix(&output, "warning"), &["does not allow every queue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_that_are_short_compared_with_the_round_trip_are_warnings() {
    let payload_bytes_max = 4 << 20;
    let fleet =
        fleet(NatsOptions { has_tls: false, payload_bytes_max, ..NatsOptions::default() }).await;
    // Three round trips of 600 ms are longer than each of the timeouts.
    let one_way = Duration::from_millis(300);
    let far = LatencyProxy::start(fleet.nats.servers[0].address(), one_way).await;
    let far = format!("messaging.nats.servers=[\"nats://{}\"]", far.address);
    for (node, keys) in [
        (&fleet.gateways[0], &["gateway.session.accept_timeout is 1s"][..]),
        (&fleet.workers[0], &["worker.offer_timeout is ", "worker.claim_timeout is "]),
    ] {
        let near = lines_with_prefix(&check(node.role(), node.directory(), &[]), "warning");
        assert!(!near.iter().any(|line| line.contains("round trip")), "{near:?}");
        let output = check(node.role(), node.directory(), &["--set", &far]);
        assert_eq!(output.status.code(), Some(0), "{:?}", lines_with_prefix(&output, "error"));
        let warnings = lines_with_prefix(&output, "warning");
        let of_times = warnings.iter().filter(|line| line.contains("round trip"));
        assert_eq!(of_times.count(), keys.len(), "{warnings:?}");
        for key in keys {
            assert_one_line_has(&warnings, &[key, "but a round trip takes 6", "will be used"]);
        }
    }
}

/// Returns a worker's configuration with three databases: one works, one refuses the login, and one is unreachable.
fn worker_toml(there: &FakeSqlServer, refusing: &FakeSqlServer) -> String {
    let mut text = format!(
        "[messaging.nats]\nservers = ['tls://127.0.0.1:{}']\n[worker.queues]\n\
         good = {{}}\nwrong = {{}}\nmissing = {{}}\nread = {{ application_intent = 'read-only' }}\n\
         refused = {{ database = 'refusing' }}\naway = {{ database = 'away' }}\n",
        ports::pick(),
    );
    for (name, port, ca) in [
        ("default", there.address.port(), &there.ca),
        ("refusing", refusing.address.port(), &refusing.ca),
        ("away", ports::pick(), &there.ca),
    ] {
        let database = format!(
            "[procedures.databases.{name}]\nbackend = 'mssql'\n\
             [procedures.databases.{name}.mssql]\nhost = '127.0.0.1'\nport = {port}\ndatabase = 'fjord'\n\
             user = 'fjord'\npassword = '{PASSWORD}'\n\
             [procedures.databases.{name}.mssql.tls]\nca = '{}'\n",
            ca.display(),
        );
        text.push_str(&database);
    }
    text
}

const CATALOGUE: &str = r#"{
    "good": { "route": "GET /v1/good", "procedure": "fjord_test.returns", "auth": "public", "result": "full",
              "parameters": { "status": { "in": "query", "type": "int32" } } },
    "wrong": { "route": "GET /v1/wrong", "procedure": "fjord_test.returns", "auth": "public", "result": "full",
               "parameters": { "status": { "in": "query", "type": "uuid" }, "colour": { "in": "query", "type": "string" } } },
    "missing": { "route": "GET /v1/missing", "procedure": "fjord_test.nowhere", "auth": "public" },
    "read": { "route": "GET /v1/read", "procedure": "fjord_test.absent", "auth": "public" },
    "refused": { "route": "GET /v1/refused", "procedure": "fjord_test.nothing", "auth": "public" },
    "away": { "route": "GET /v1/away", "procedure": "fjord_test.nothing", "auth": "public" },
    "elsewhere": { "route": "GET /v1/elsewhere", "procedure": "fjord_test.of_others", "auth": "public" } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn all_mismatches_of_databases_and_queues_are_reported_at_once() {
    let there = fake_server().await.fake.expect("this is the fake server");
    let refusing = fake_server().await.fake.expect("this is the fake server");
    refusing.state.login_error.store(18456, Ordering::Release);
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(directory.path().join("endpoints")).expect("the directory can be created");
    fs::write(directory.path().join("endpoints/all.json"), CATALOGUE)
        .expect("the file can be written");
    let toml = worker_toml(&there, &refusing);
    fs::write(directory.path().join("worker.toml"), toml).expect("the file can be written");
    let started = Instant::now();
    let output = check("worker", directory.path(), &[]);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(2));
    let errors = lines_with_prefix(&output, "error");
    assert_one_line_has(&errors, &["NATS server 127.0.0.1:", "refused"]);
    assert_one_line_has(
        &errors,
        &["database default (", "queue wrong", "@status", "uuid", "int", "@colour"],
    );
    assert_one_line_has(
        &errors,
        &["database default (", "queue missing", "fjord_test.nowhere", "login fjord"],
    );
    assert_one_line_has(
        &errors,
        &["database default:read-only (", "queue read", "fjord_test.absent"],
    );
    assert_one_line_has(&errors, &["database refusing (", "Login failed"]);
    assert_one_line_has(&errors, &["database away (", "refused"]);
    assert_eq!(errors.len(), 6, "{errors:?}");
    assert_eq!(
        refusing.state.attempts.load(Ordering::Acquire),
        1,
        "more attempts could lock the account"
    );
    assert!(there.state.ran.lock().expect("not poisoned").is_empty(), "no procedure ran");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(PASSWORD));
}
