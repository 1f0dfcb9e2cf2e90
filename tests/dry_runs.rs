//! Promise: a dry run returns the call's answer and changes nothing in the database. If that cannot be guaranteed,
//! either nothing is executed, or the answer states that the outcome is unknown.

use std::fs;
use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::client::{Client, HttpResponse, send};
use super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::trace_collector::TraceCollector;

mod foreign;

const CATALOGUE: &str = r#"{
    "try": { "route": "POST /v1/try", "queue": "try", "procedure": "ledger.write", "result": "row",
        "parameters": { "ms": { "in": "body", "type": "int32", "default": 0 }, "request_id": { "in": "context" } },
        "transaction": true, "dry_run": true, "timeout": "20s", "auth": "public" },
    "try-again": { "route": "PUT /v1/try", "queue": "try", "procedure": "ledger.write", "result": "none",
        "parameters": { "ms": { "in": "query", "type": "int32", "default": 0 }, "request_id": { "in": "context" } },
        "transaction": true, "dry_run": true, "timeout": "20s", "auth": "public" },
    "try-refused": { "route": "DELETE /v1/try/{id}", "queue": "try", "procedure": "ledger.refuse", "result": "row",
        "parameters": { "id": { "in": "path", "type": "string" }, "text": { "in": "query", "type": "string", "default": "" },
            "note": { "in": "query", "type": "string" }, "body": { "in": "query", "type": "string" },
            "number": { "in": "query", "type": "int32" } },
        "status": { "error": { "60000": 422 } }, "transaction": true, "dry_run": true, "auth": "public" },
    "try-large": { "route": "POST /v1/try-large", "queue": "try", "procedure": "ledger.large", "result": "rows",
        "parameters": { "rows": { "in": "query", "type": "int32" } },
        "transaction": true, "dry_run": true, "timeout": "20s", "auth": "public" },
    "try-keyed": { "route": "PATCH /v1/try", "queue": "try", "procedure": "ledger.keyed", "result": "row",
        "parameters": { "idempotency_key": { "in": "context", "as": "key", "required": true } },
        "transaction": true, "dry_run": true, "auth": "public" },
    "foreign-try": { "route": "POST /v1/foreign-try/{id}", "queue": "foreign", "procedure": "ledger.foreign", "result": "json",
        "parameters": { "id": { "in": "path", "type": "string" } },
        "transaction": true, "dry_run": true, "timeout": "3s", "session": "6s", "auth": "public" }
}"#;

async fn fleet(queues: &'static str) -> Fleet {
    let catalogue = Some(("try.json", CATALOGUE));
    Fleet::start(FleetOptions { queues, catalogue, ..FleetOptions::default() }).await
}

/// Returns a client of the fleet that sends a `Prefer` header with each request.
fn preferring(fleet: &Fleet, preference: &str) -> Client {
    fleet.client().with_header("prefer", preference)
}

async fn try_it(client: &Client) -> HttpResponse {
    client.send(Method::POST, "/v1/try", &json!({})).await
}

fn applied(answer: &HttpResponse) -> &str {
    answer.header("preference-applied")
}

/// Returns the access lines of an endpoint.
fn access_lines(fleet: &Fleet, endpoint: &str) -> Vec<Value> {
    let log = fleet.gateways[0].process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["message"] == "request" && line["endpoint"] == endpoint)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_returns_the_answer_of_the_call_and_changes_nothing() {
    let fleet = fleet("try").await;
    let (client, dry) = (fleet.client(), preferring(&fleet, "respond-async, tx=rollback"));
    for _ in 0..3 {
        let answer = try_it(&dry).await;
        let row = answer.is(200).json();
        assert_eq!((&row["line"], applied(&answer)), (&json!(1), "tx=rollback"));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(fleet.ledger().is_empty());
    }
    let again = send(dry.request(Method::PUT, "/v1/try")).await;
    assert_eq!((again.is(204).body.len(), applied(&again)), (0, "tx=rollback"));
    let refused =
        send(dry.request(Method::DELETE, "/v1/try/7?text=x&note=n&body=b&number=1")).await;
    assert_eq!(refused.is_problem(422, "refused")["effect"], "executed");
    assert_eq!(applied(&refused), "tx=rollback");
    assert!(fleet.ledger().is_empty());

    let committed = try_it(&preferring(&fleet, "tx=commit")).await;
    assert_eq!((&committed.is(200).json()["line"], applied(&committed)), (&json!(1), "tx=commit"));
    let plain = try_it(&client).await;
    assert_eq!((&plain.is(200).json()["line"], applied(&plain)), (&json!(2), ""));
    assert_eq!(fleet.ledger().len(), 2);

    let figure = r#"fjord_gateway_dry_runs_total{endpoint="try",result="rolled_back"}"#;
    assert!((fleet.gateways[0].metric(figure).await - 3.0).abs() < 0.1);
    eventually(SOON, TICK, || access_lines(&fleet, "try").len() == 5).await;
    let dry_runs: Vec<Value> =
        access_lines(&fleet, "try").iter().map(|l| l["dry_run"].clone()).collect();
    assert_eq!(dry_runs, [json!(true), json!(true), json!(true), Value::Null, Value::Null]);
}

/// No byte of the answer is sent before the worker has confirmed the rollback, so even a large answer is not streamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_of_a_dry_run_is_not_streamed() {
    let fleet = fleet("try").await;
    let path = "/v1/try-large?rows=20000";
    let streamed = send(fleet.client().request(Method::POST, path)).await;
    assert_eq!(streamed.is(200).header("content-length"), "");
    let answer = send(preferring(&fleet, "tx=rollback").request(Method::POST, path)).await;
    assert_eq!(applied(&answer), "tx=rollback");
    assert_eq!(answer.is(200).header("content-length"), answer.body.len().to_string());
    assert!(answer.body == streamed.body && answer.body.len() > 512 << 10, "{}", answer.body.len());
    let commit = send(preferring(&fleet, "tx=commit").request(Method::POST, path)).await;
    // The answer begins before the COMMIT, so it has no header that confirms the COMMIT.
    assert_eq!((applied(&commit), commit.header("content-length")), ("", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_preference_is_refused_and_executes_nothing() {
    let fleet = fleet("ledger-*").await;
    for (preference, method, path) in [
        ("tx=rollback", Method::POST, "/v1/once"),
        ("handling=strict, tx=rollback", Method::POST, "/v1/once"),
        ("handling=lenient, tx=rollback", Method::PUT, "/v1/again"),
        ("tx=rolback", Method::POST, "/v1/try"),
        ("tx=commit, tx=rollback", Method::POST, "/v1/try"),
        ("tx=\"rollback", Method::POST, "/v1/try"),
        ("tx%3Drollback", Method::POST, "/v1/try"),
        ("dry-run", Method::POST, "/v1/once"),
        ("return=minimal; tx=rollback", Method::POST, "/v1/try"),
        ("handling=strict, respond-async", Method::POST, "/v1/try"),
    ] {
        let client = preferring(&fleet, preference);
        let answer = client.send(method, path, &json!({})).await;
        let problem = answer.is_problem(400, "invalid-request");
        assert_eq!((&problem["effect"], applied(&answer)), (&json!("not-executed"), ""));
        assert_eq!(problem["errors"][0]["parameter"], "Prefer", "{preference}: {problem}");
    }
    assert!(fleet.ledger().is_empty());
    // Unambiguous preferences other than a dry run are ignored (RFC 7240 §2).
    let answer = preferring(&fleet, "tx=commit, respond-async");
    let answer = answer.send(Method::POST, "/v1/once", &json!({})).await;
    assert_eq!((answer.is(200).json()["line"].clone(), applied(&answer)), (json!(1), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_does_not_use_up_an_idempotency_key() {
    let fleet = fleet("try").await;
    let key = |client: Client| async move {
        let client = client.with_header("idempotency-key", "k-1");
        send(client.request(Method::PATCH, "/v1/try")).await.is(200).json()["inserted"].clone()
    };
    let dry = || preferring(&fleet, "tx=rollback");
    assert_eq!([key(dry()).await, key(dry()).await], [json!(1), json!(1)]);
    assert_eq!([key(fleet.client()).await, key(fleet.client()).await], [json!(1), json!(0)]);
    assert_eq!(key(dry()).await, json!(0), "the key is already used");
    assert_eq!(fleet.ledger(), ["k-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_marks_a_dry_run() {
    let collector = TraceCollector::start(None).await;
    let gateway_toml = format!(
        "[traces]\nendpoint = 'http://{}'\ninsecure_plain_text = true\nsample_ratio = 1.0\n",
        collector.address
    );
    let catalogue = Some(("try.json", CATALOGUE));
    let options =
        FleetOptions { queues: "try", catalogue, gateway_toml, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    try_it(&preferring(&fleet, "tx=rollback")).await.is(200);
    try_it(&fleet.client()).await.is(200);
    eventually(SOON, TICK, || collector.spans().len() == 4).await;
    let taken = collector.spans();
    let served = taken.iter().filter(|taken| taken.span.name == "POST /v1/try");
    let mut values: Vec<String> = served.map(|taken| taken.attribute("fjord.dry_run")).collect();
    values.sort();
    assert_eq!(values, ["", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fjord_call_can_request_a_dry_run() {
    let fleet = fleet("try").await;
    let call = |arguments: &[&str]| {
        let mut command = Command::new(fjord_binary());
        command.arg("call").arg("--config").arg(fleet.gateways[0].directory()).args(arguments);
        let output = command.output().expect("fjord runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, body, stderr) = call(&["try", "--dry-run"]);
    assert!(code == Some(0) && body.contains(r#""line":1"#), "{body}{stderr}");
    assert!(stderr.starts_with("200 application/json (ok, rolled back, 1 attempt, "), "{stderr}");
    let (code, document, stderr) = call(&["try-again", "--dry-run", "--json"]);
    assert!(code == Some(0) && document.contains(r#""rolled_back":true"#), "{document}{stderr}");
    assert_eq!(call(&["slow", "--dry-run"]).0, Some(2));
    assert!(fleet.ledger().is_empty());
    let (code, _, stderr) = call(&["try"]);
    assert!(
        code == Some(0) && stderr.starts_with("200 application/json (ok, 1 attempt, "),
        "{stderr}"
    );
    assert_eq!(fleet.ledger().len(), 1);
}

/// A dry run has no effect other than its answer, so it is stopped regardless of `on_disconnect`.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_stopped_when_its_client_disconnects() {
    let fleet = fleet("try").await;
    let running = || fleet.workers[0].metric(r#"fjord_worker_running{queue="try"}"#);
    let dry = preferring(&fleet, "tx=rollback");
    for method in [Method::POST, Method::PUT] {
        let path = "/v1/try?ms=15000";
        let request = if method == Method::POST {
            dry.request(method, "/v1/try").json(&json!({ "ms": 15000 }))
        } else {
            dry.request(method, path)
        };
        tokio::select! {
            answer = send(request) => panic!("{answer:?}"),
            () = eventually_some("the call runs", SOON, async || (running().await > 0.5).then_some(())) => {}
        }
        eventually_some("the call ends", SOON, async || (running().await < 0.5).then_some(()))
            .await;
    }
    assert!(fleet.ledger().is_empty());
    let cancelled = r#"fjord_worker_calls_total{queue="try",outcome="cancelled"}"#;
    assert!((fleet.workers[0].metric(cancelled).await - 2.0).abs() < 0.1);
}

/// The catalogues of both the gateway and the worker must permit dry runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_catalogue_has_no_dry_run_executes_nothing() {
    let without =
        CATALOGUE.replace(r#""transaction": true, "dry_run": true"#, r#""transaction": true"#);
    let without = Box::leak(without.into_boxed_str());
    let catalogue = Some(("try.json", &*without));
    let options = FleetOptions { catalogue, queues: "try", ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    fs::write(fleet.catalogue().join("try.json"), CATALOGUE).expect("the file can be written");
    fleet.gateways[0].process.signal(Signal::HUP);
    let figure = r#"fjord_config_reloads_total{result="ok"}"#;
    eventually_some("a reload", SOON, async || {
        (fleet.gateways[0].metric(figure).await > 0.5).then_some(())
    })
    .await;
    let answer = try_it(&preferring(&fleet, "tx=rollback")).await;
    let problem = answer.is_problem(400, "invalid-request");
    assert_eq!(
        problem["detail"],
        "this worker's catalogue does not permit dry runs of the endpoint"
    );
    assert_eq!((&problem["effect"], applied(&answer)), (&json!("not-executed"), "tx=rollback"));
    try_it(&preferring(&fleet, "tx=rollback")).await.is_problem(400, "invalid-request");
    let log = fleet.workers[0].process.log();
    assert_eq!(log.matches("a gateway sends dry runs of an endpoint").count(), 1, "{log}");
    let malformed = fleet.workers[0].metric("fjord_worker_malformed_messages_total").await;
    assert!(malformed.abs() < 0.1, "{malformed}");
    assert!(fleet.ledger().is_empty());
}
