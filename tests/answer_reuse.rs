//! Promise: identical requests share a call or a stored answer only where the endpoint allows it, and never across callers
//! unless the endpoint permits it. No client's disconnect affects another client.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;

use super::support::client::{Client, HttpResponse, send};
use super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

const ENDPOINTS: &str = r#"{
    "shared": { "route": "GET /v1/shared", "procedure": "ledger.counted", "result": "row", "timeout": "10s", "auth": "public",
        "parameters": { "key": { "in": "query", "type": "string" }, "ms": { "in": "query", "type": "int32", "default": 0 } },
        "cache": { "coalesce": true } },
    "stored": { "route": "GET /v1/stored", "procedure": "ledger.counted", "result": "row", "timeout": "10s", "auth": "public",
        "parameters": { "key": { "in": "query", "type": "string" }, "ms": { "in": "query", "type": "int32", "default": 0 } },
        "cache": { "ttl": "2s", "etag": true } },
    "mine": { "route": "GET /v1/mine", "procedure": "ledger.counted", "result": "row", "timeout": "10s",
        "auth": { "methods": ["api-key"] },
        "parameters": { "key": { "in": "query", "type": "string" }, "ms": { "in": "query", "type": "int32", "default": 0 } },
        "cache": { "ttl": "60s", "coalesce": true } },
    "ours": { "route": "GET /v1/ours", "procedure": "ledger.counted", "result": "row", "timeout": "10s",
        "auth": { "methods": ["api-key"] },
        "parameters": { "key": { "in": "query", "type": "string" }, "ms": { "in": "query", "type": "int32", "default": 0 } },
        "cache": { "ttl": "60s", "coalesce": true, "shared": true } }
}"#;

/// The procedure writes a line for each execution, and refuses the key `fail`.
const PROCEDURES: &[(&str, &str)] = &[(
    "ledger.counted.sql",
    "SELECT sleep_ms(@ms) AS \"@slept\";\n\
     INSERT INTO ledger (request_id) VALUES (@key);\n\
     SELECT throw(50404, 'no such key') AS \"@check\" WHERE @key = 'fail';\n\
     SELECT last_insert_rowid() AS line, @key AS key;\n",
)];

async fn fleet() -> Fleet {
    fleet_with("").await
}

/// Starts a fleet with additional settings in `[gateway.http]`.
async fn fleet_with(http_keys: &str) -> Fleet {
    let key = |key: &str| super::authentication::fixture::hash(key);
    let gateway_toml = format!(
        "{http_keys}[auth.api_keys.ann]\nsha256 = ['{}']\n[auth.api_keys.bob]\nsha256 = ['{}']\n",
        key("ann-key"),
        key("bob-key")
    );
    let catalogue = Some(("reuse.json", ENDPOINTS));
    let options =
        FleetOptions { catalogue, procedures: PROCEDURES, gateway_toml, ..FleetOptions::default() };
    Fleet::start(options).await
}

async fn get_all(client: &Client, path: &str, count: usize) -> Vec<HttpResponse> {
    join_all((0..count).map(|_| client.get(path))).await
}

fn calls(fleet: &Fleet, key: &str) -> usize {
    fleet.ledger().iter().filter(|line| *line == key).count()
}

fn line(answer: &HttpResponse) -> i64 {
    answer.is(200).json()["line"].as_i64().expect("a line")
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_concurrent_requests_share_one_call() {
    let fleet = fleet().await;
    let client = fleet.client();
    let answers = get_all(&client, "/v1/shared?key=a&ms=1000", 20).await;
    let first = line(&answers[0]);
    assert!(answers.iter().all(|answer| line(answer) == first));
    assert_eq!(calls(&fleet, "a"), 1);
    let reused = r#"fjord_gateway_answers_reused_total{endpoint="shared",result="shared_call"}"#;
    assert!((fleet.gateways[0].metric(reused).await - 19.0).abs() < 0.1);
    let log = fleet.gateways[0].process.log();
    assert_eq!(log.matches(r#""reused":"shared_call""#).count(), 19);
    // Each request has its own id, and a call that ends before the next request begins is not
    // shared.
    let ids: std::collections::HashSet<_> =
        answers.iter().map(|it| it.header("x-request-id")).collect();
    assert_eq!(ids.len(), 20);
    assert_ne!(line(&client.get("/v1/shared?key=a&ms=1000").await), first);
    // Requests with different parameters do not share a call. The order of the parameters is irrelevant.
    let (one, two) =
        tokio::join!(client.get("/v1/shared?key=b&ms=500"), client.get("/v1/shared?ms=500&key=c"));
    assert_ne!(line(&one), line(&two));
    let (one, two) =
        tokio::join!(client.get("/v1/shared?key=d&ms=500"), client.get("/v1/shared?ms=500&key=d"));
    assert_eq!(line(&one), line(&two), "the same parameters");
    let failed = get_all(&client, "/v1/shared?key=fail&ms=500", 3).await;
    for answer in failed {
        answer.is_problem(404, "no-row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_ends_a_shared_call_only_if_no_client_waits() {
    let fleet = fleet().await;
    let client = fleet.client();
    let path = "/v1/shared?key=left&ms=1500";
    let leader = send(client.request(Method::GET, path));
    let leader = Box::pin(tokio::time::timeout(Duration::from_secs(1), leader));
    let follower = async {
        let running = async || fleet.workers[0].metric("fjord_worker_running").await > 0.5;
        let running = async || running().await.then_some(());
        eventually_some("the call of the leader runs", SOON, running).await;
        fleet.client().get(path).await
    };
    let (leader, follower) = tokio::join!(leader, follower);
    assert!(leader.is_err(), "the leader has left");
    line(&follower);
    assert_eq!(calls(&fleet, "left"), 1);
    // A call is cancelled when no client is waiting for it any longer.
    let path = "/v1/shared?key=alone&ms=8000";
    let client = fleet.client();
    let alone = tokio::time::timeout(Duration::from_millis(700), client.get(path));
    assert!(alone.await.is_err());
    let idle = async || (fleet.workers[0].metric("fjord_worker_running").await < 0.5).then_some(());
    eventually_some("the call is cancelled", Duration::from_secs(5), idle).await;
    assert_eq!(calls(&fleet, "alone"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_answer_is_used_until_it_expires() {
    let fleet = fleet().await;
    let client = fleet.client();
    let first = client.get("/v1/stored?key=a").await;
    assert_eq!(first.header("age"), "", "it was not stored");
    let began = Instant::now();
    let second = client.get("/v1/stored?key=a").await;
    assert_eq!((line(&second), second.header("age")), (line(&first), "0"));
    assert_eq!(second.header("etag"), first.header("etag"));
    let head = send(client.request(Method::HEAD, "/v1/stored?key=a")).await;
    assert_eq!((head.is(200).header("age"), head.body.len()), ("0", 0));
    let tag = first.header("etag");
    let again = client.request(Method::GET, "/v1/stored?key=a").header("if-none-match", tag);
    send(again.header("cache-control", "no-cache")).await.is(304);
    assert_eq!(calls(&fleet, "a"), 1);
    assert!(fleet.gateways[0].metric("fjord_gateway_cached_bytes").await > 10.0);
    eventually(SOON, TICK, || began.elapsed() > Duration::from_millis(2100)).await;
    assert_ne!(line(&client.get("/v1/stored?key=a").await), line(&first));
    // A problem is not stored, and HEAD stores nothing.
    for _ in 0..2 {
        client.get("/v1/stored?key=fail").await.is_problem(404, "no-row");
        send(client.request(Method::HEAD, "/v1/stored?key=head")).await.is(200);
    }
    assert_eq!((calls(&fleet, "fail"), calls(&fleet, "head")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_share_answers_only_if_the_endpoint_says_so() {
    let fleet = fleet().await;
    let [ann, bob] = ["ann-key", "bob-key"].map(|key| fleet.client().with_header("x-api-key", key));
    let (one, two) =
        tokio::join!(ann.get("/v1/mine?key=a&ms=500"), bob.get("/v1/mine?key=a&ms=500"));
    assert_ne!(line(&one), line(&two));
    assert_eq!(line(&ann.get("/v1/mine?key=a&ms=500").await), line(&one), "stored for each");
    assert_eq!(line(&bob.get("/v1/mine?key=a&ms=500").await), line(&two));
    let (one, two) =
        tokio::join!(ann.get("/v1/ours?key=b&ms=500"), bob.get("/v1/ours?key=b&ms=500"));
    assert_eq!(line(&one), line(&two));
    assert_eq!(calls(&fleet, "b"), 1);
    // The reuse of answers does not bypass authentication.
    fleet.client().get("/v1/ours?key=b&ms=500").await.is_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_stored_answers_is_bounded() {
    let fleet = fleet_with("cached_bytes_max = 0\n").await;
    for _ in 0..2 {
        assert_eq!(fleet.client().get("/v1/stored?key=a").await.header("age"), "");
    }
    assert_eq!(calls(&fleet, "a"), 2);
}
