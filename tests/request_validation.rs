//! Promise: an invalid request gets one response that lists every violation. The request is not sent to a worker, and
//! does not affect the next request on its connection.

use http::Method;
use serde_json::{Value, json};

use super::support::client::{Client, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

/// Returns every violation as `place:name-or-pointer`.
fn violations(problem: &Value) -> Vec<String> {
    let each = |error: &Value| {
        let name = error["parameter"].as_str().or(error["pointer"].as_str()).unwrap_or_default();
        format!("{}:{name}", error["in"].as_str().unwrap_or_default())
    };
    problem["errors"].as_array().map(|all| all.iter().map(each).collect()).unwrap_or_default()
}

async fn put(client: &Client, body: impl Into<reqwest::Body>) -> Vec<String> {
    let request = client.request(Method::PUT, "/v1/keep/1");
    let request = request.header("content-type", "application/json").body(body);
    violations(&send(request).await.is_problem(400, "invalid-request"))
}

const HURRIED: &str = r#"{ "hurried": { "route": "GET /v1/hurried", "queue": "echo", "handler": "echo",
    "timeout": "2s", "auth": "public", "rate_limit": { "requests": 2, "window": "1m" } } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_rate_gets_a_retry_after() {
    let catalogue = Some(("hurried.json", HURRIED));
    let fleet = Fleet::start(FleetOptions { catalogue, ..FleetOptions::default() }).await;
    let client = fleet.client();
    for left in ["1", "0"] {
        let answer = client.get("/v1/hurried").await;
        let rate = answer.is(200).header("ratelimit");
        assert!(rate.contains(&format!("r={left}")), "{rate}");
        assert!(answer.header("ratelimit-policy").contains("q=2;w=60"));
    }
    let answer = client.get("/v1/hurried").await;
    answer.is_problem(429, "rate-limited");
    let again: u32 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&again), "{again}");
    client.get("/v1/echo/a").await.is(200);
    let limited = r#"fjord_rate_limited_total{endpoint="hurried"}"#;
    assert!(fleet.gateways[0].metric(limited).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_violations_are_reported_at_once() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let body = json!({ "count": 0, "price": "1.5", "other": 1 });
    let answer = client.send(Method::PUT, "/v1/keep/many?page=2", &body).await;
    let found = violations(&answer.is_problem(400, "invalid-request"));
    for expected in
        ["path:id", "query:page", "body:/count", "body:/price", "body:/other", "body:/note"]
    {
        assert!(found.iter().any(|one| one == expected), "{expected} is missing in {found:?}");
    }
    assert!(!answer.text().contains("many"), "the value is repeated in the response");
    assert!(fleet.workers[0].metric("fjord_worker_calls_total").await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_or_malformed_json_is_rejected() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let deep = format!(r#"{{"note":"a","more":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let cases: [(&[u8], &str); 9] = [
        (b"{", "body:"),
        (b"", "body:/note"),
        (br#"{"note":"a","note":"b"}"#, "body:/note"),
        (br#"{"note":"a","more":{"x":1,"x":2}}"#, "body:/more/x"),
        (br#"{"note":"a","count":9223372036854775808}"#, "body:/count"),
        (br#"{"note":"a","price":1e999999}"#, "body:/price"),
        (b"{\"note\":\"\xff\"}", "body:"),
        (br#"{"note":"\u0000"}"#, "body:/note"),
        (deep.as_bytes(), "body:/more"),
    ];
    for (body, expected) in cases {
        let found = put(&client, body.to_vec()).await;
        let text = String::from_utf8_lossy(body).chars().take(60).collect::<String>();
        assert!(found.iter().any(|one| one.starts_with(expected)), "{text}: {found:?}");
    }
    let good = json!({ "note": "ok", "count": i64::MAX, "price": 12.50, "more": { "a": [1] } });
    let answer = client.send(Method::PUT, "/v1/keep/9007199254740993", &good).await;
    let text = answer.is(200).text();
    for exact in ["9007199254740993", "9223372036854775807"] {
        assert!(text.contains(exact), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_media_types_and_methods_follow_http() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    for path in
        ["/v1/echo/a%2Fb", "/v1/echo/%zz", "/v1/echo/%00", "/v1/echo/%ff", "/v1/echo/a?x=%zz"]
    {
        client.get(path).await.is_problem(400, "invalid-request");
    }
    let request = client.request(Method::PUT, "/v1/keep/1").header("content-type", "text/xml");
    send(request.body("<a/>")).await.is_problem(415, "unsupported-media-type");
    let request = client.request(Method::GET, "/v1/echo/a").header("accept", "text/html");
    send(request).await.is_problem(406, "not-acceptable");
    let answer = send(client.request(Method::DELETE, "/v1/echo/a")).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    let answer = send(client.request(Method::OPTIONS, "/v1/echo/a")).await;
    assert_eq!(answer.is(204).header("allow"), "GET, HEAD, OPTIONS");
    let answer = send(client.request(Method::HEAD, "/v1/echo/a")).await;
    assert!(answer.is(200).body.is_empty());
    assert_eq!(
        answer.header("content-length"),
        client.get("/v1/echo/a").await.header("content-length")
    );
    client.get("/v2/nothing").await.is_problem(404, "no-route");
    for path in ["/docs", "/openapi.json"] {
        let answer = send(client.request(Method::DELETE, path)).await;
        answer.is_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
        let answer = send(client.request(Method::OPTIONS, path)).await;
        assert_eq!(answer.is(204).header("allow"), "GET, HEAD, OPTIONS");
    }
    assert!(client.get("/openapi.json").await.is(200).json()["paths"]["/v1/echo/{id}"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_limit_in_flight_are_rejected_at_once() {
    let gateway_toml = "requests_in_flight_max = 1\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let (first, ()) = tokio::join!(client.get("/v1/slow?ms=1500"), async {
        let running = async || {
            let in_flight = fleet.gateways[0].metric("fjord_gateway_requests_in_flight").await;
            (in_flight > 0.5).then_some(())
        };
        eventually_some("a request in flight", SOON, running).await;
        client.get("/v1/echo/a").await.is_problem(503, "overloaded");
    });
    first.is(200);
    client.get("/v1/echo/a").await.is(200);
}
