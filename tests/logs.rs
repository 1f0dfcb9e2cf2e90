//! Promise: every log line of a request contains the request id and the trace id, and no line contains a value that a
//! client sent.

use std::fs;
use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::client::{ClientOptions, HttpVersion, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_binary;
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::mssql_server::fake_server;
use super::support::pseudo_terminal::PseudoTerminal;
use super::support::tds::PASSWORD;

const CANARY: &str = "Canary7351";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn options() -> FleetOptions {
    let log_filter = "trace";
    FleetOptions { log_filter, ..FleetOptions::default() }
}

/// Returns the lines of a process's log that contain the request id.
fn lines_of(node: &FjordProcess, request_id: &str) -> Vec<Value> {
    let log = node.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["request_id"] == request_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_contains_a_value_from_a_client_at_any_level() {
    let fleet = Fleet::start(options()).await;
    for http in [HttpVersion::One, HttpVersion::Two] {
        let client = fleet.client_with(ClientOptions { http, ..ClientOptions::default() });
        let client = client.with_header("x-note", &format!("{CANARY}-header"));
        let echo = client.get(&format!("/v1/echo/{CANARY}?text={CANARY}-query")).await;
        assert!(echo.is(200).text().contains(CANARY), "the value is echoed");
        let body = json!({ "body": format!("{CANARY} body"), "number": 73_517_351 });
        let path = format!("/v1/refuse/{CANARY}-path?text={CANARY}+query");
        client.send(Method::POST, &path, &body).await.is_problem(500, "internal");
        let note = json!({ "note": CANARY, "more": { "deep": [CANARY] }, "price": 7_351.5 });
        client.send(Method::PUT, "/v1/keep/73517351", &note).await.is(200);
        client.send(Method::PUT, &format!("/v1/keep/{CANARY}"), &note).await.is(400);
        let broken = client.request(Method::PUT, "/v1/keep/1").body(format!("{{\"{CANARY}"));
        send(broken.header("content-type", "application/json")).await.is(400);
        client.get(&format!("/v1/{CANARY}?{CANARY}={CANARY}")).await.is(404);
    }
    eventually_some("the failed calls are logged", SOON, async || {
        let log = fleet.workers[0].process.log();
        (log.matches("the procedure failed").count() >= 2).then_some(())
    })
    .await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        let log = node.process.log();
        assert!(log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""));
        let leaked: Vec<_> =
            log.lines().filter(|line| line.contains(CANARY) || line.contains("73517351")).collect();
        assert!(leaked.is_empty(), "{} lines, the first: {}", leaked.len(), leaked[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_messages_are_logged_once_they_are_enabled() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let (client, path) = (fleet.client(), format!("/v1/refuse/{CANARY}"));
    let worker = &mut fleet.workers[0];
    client.send(Method::POST, &path, &json!({})).await.is(500);
    eventually_some("the failure is logged", SOON, async || {
        worker.process.log().contains("the procedure failed").then_some(())
    })
    .await;
    let log = worker.process.log();
    assert!(log.contains("the procedure raised error 60000") && !log.contains(CANARY), "{log}");
    let file = worker.directory().join("worker.toml");
    let text = fs::read_to_string(&file).expect("the configuration can be read");
    fs::write(&file, text.replace("[log]\n", "[log]\ndatabase_messages = true\n"))
        .expect("the file can be written");
    worker.process.signal(Signal::HUP);
    eventually_some("the message is logged", SOON, async || {
        client.send(Method::POST, &path, &json!({})).await.is(500);
        worker.process.log().contains(&format!("refused: {CANARY}")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_procedure_are_logged_with_the_request_id_and_their_text_once_enabled() {
    let server = fake_server().await.fake.expect("the fake server");
    let worker_toml = format!(
        "[worker.queues]\nprints = {{ database = 'sql' }}\noverrules = {{ database = 'sql' }}\n\
         [procedures.databases.sql]\nbackend = 'mssql'\n\
         [procedures.databases.sql.mssql]\nhost = '127.0.0.1'\nport = {}\n\
         database = 'd'\nuser = 'u'\npassword = '{PASSWORD}'\ntls.ca = '{}'\n",
        server.address.port(),
        server.ca.display(),
    );
    let catalogue = r#"{
        "prints": { "route": "GET /v1/prints", "procedure": "fjord_test.prints",
                    "result": "value", "auth": "public" },
        "overrules": { "route": "GET /v1/overrules", "procedure": "fjord_test.doubles_then_throws",
                       "result": "none", "auth": "public" } }"#;
    let catalogue = Some(("prints.json", catalogue));
    let log_filter = "debug";
    let options = FleetOptions { log_filter, catalogue, worker_toml, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let client = fleet.client().with_header("x-request-id", "who-prints");
    let worker = &mut fleet.workers[0];
    client.get("/v1/prints").await.is(200);
    let messages = |worker: &FjordProcess| -> Vec<Value> {
        let lines = lines_of(worker, "who-prints").into_iter();
        lines.filter(|line| line["message"] == "the procedure sent a message").collect()
    };
    let lines = eventually_some("both messages are logged", SOON, async || {
        Some(messages(worker)).filter(|lines| lines.len() >= 2)
    })
    .await;
    for line in lines {
        let origin = line["origin"].as_str().expect("an origin");
        assert!(origin.starts_with("message 0, severity 0"), "{line}");
        assert_eq!((&line["level"], &line["text"]), (&json!("DEBUG"), &Value::Null), "{line}");
    }
    // If a statement fails before the procedure raises its own error, the procedure's error determines the response.
    let problem = client.get("/v1/overrules").await;
    assert_eq!(problem.is_problem(422, "refused")["detail"], "already there");
    let line = eventually_some("the failure is logged", SOON, async || {
        let mut lines = lines_of(worker, "who-prints").into_iter();
        lines.find(|line| line["message"] == "the procedure failed")
    })
    .await;
    let cause = line["cause"].as_str().expect("a cause");
    assert!(cause.contains("error 50422") && cause.contains("other errors: 2627"), "{line}");
    assert_eq!(line["level"], "DEBUG");

    let file = worker.directory().join("worker.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, text.replace("[log]\n", "[log]\ndatabase_messages = true\n")).expect("a file");
    worker.process.signal(Signal::HUP);
    eventually_some("the text is logged", SOON, async || {
        client.get("/v1/prints").await.is(200);
        messages(worker).iter().any(|line| line["text"] == "after").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_request_has_its_id_and_its_trace() {
    let fleet = Fleet::start(options()).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let client = fleet.client().with_header("traceparent", &parent);
    let client = client.with_header("x-request-id", "whose");
    client.send(Method::POST, "/v1/refuse/1", &json!({})).await.is(500);
    for (node, message) in
        [(&fleet.gateways[0], "request"), (&fleet.workers[0], "the procedure failed")]
    {
        let lines = eventually_some(format!("the line {message:?}"), SOON, async || {
            let lines = lines_of(node, "whose");
            lines.iter().any(|line| line["message"] == message).then_some(lines)
        })
        .await;
        for line in lines {
            assert_eq!(line["trace_id"], TRACE, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_plain_lines() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let mut command = Command::new(fjord_binary());
    command.args(["--role", "worker", "--set", "log.format=auto", "--config"]);
    let terminal = PseudoTerminal::start({
        command.arg(fleet.workers[0].directory());
        command
    });
    let shown = terminal.output_when("it listens", |text| text.contains("listening")).await;
    let line = shown.lines().find(|line| line.contains("listening")).expect("the line is logged");
    assert!(line.contains(" INFO ") && line.contains("part=\"admin\""), "{line:?}");
    assert!(!shown.contains('{') && !shown.contains('\x1b'), "{shown:?}");
}
