//! Promise: a procedure can set the response headers that its endpoint declares, and no value can add another header.

use http::Method;
use serde_json::json;

use super::support::client::{Client, HttpResponse, send};
use super::support::eventually::{SOON, TICK, eventually};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::raw_nats::RawNatsClient;

const ENDPOINTS: &str = r#"{
    "page": { "route": "GET /v1/page", "procedure": "ledger.page", "auth": "public", "timeout": "5s",
        "parameters": { "value": { "in": "query", "type": "string" } },
        "headers": { "Link": "link", "X-Total-Count": "@total", "Content-Disposition": "disposition" },
        "cors": { "origins": ["https://app.example"] } },
    "create": { "route": "POST /v1/page", "procedure": "ledger.create", "auth": "public", "timeout": "5s",
        "parameters": { "location": { "in": "body", "type": "string" } },
        "result": "row", "headers": { "Location": "place" }, "status": { "return": { "0": 201 } } },
    "versioned": { "route": "GET /v1/versioned/{id}", "procedure": "ledger.versioned", "auth": "public", "timeout": "5s",
        "parameters": { "id": { "in": "path", "type": "int32" } },
        "result": "row", "headers": { "ETag": "version", "Last-Modified": "at" }, "cache_control": "no-cache" },
    "change": { "route": "PUT /v1/versioned/{id}", "procedure": "ledger.change", "auth": "public", "timeout": "5s",
        "parameters": { "id": { "in": "path", "type": "int32" },
                        "If-Match": { "in": "header", "type": "string", "as": "if_match", "required": true } },
        "result": "none", "headers": { "ETag": "version" } }
}"#;

const PROCEDURES: &[(&str, &str)] = &[
    (
        "ledger.page.sql",
        "SELECT @value AS \"@link\", 1234 AS \"@total\", NULL AS \"@disposition\";\nSELECT 1 AS n;\n",
    ),
    ("ledger.create.sql", "SELECT @location AS \"@place\";\nSELECT 1 AS id;\n"),
    (
        "ledger.versioned.sql",
        "SELECT @id + 0 AS \"@version\", '2024-02-29T12:34:56Z' AS \"@at\";\n\
         SELECT @id AS id, printf('%.*c', 5000, 'x') AS text;\n",
    ),
    (
        "ledger.change.sql",
        "SELECT throw(50412, 'changed in the meantime') AS \"@check\" WHERE @if_match <> '\"' || @id || '\"';\n\
         SELECT @id + 1 AS \"@version\";\n",
    ),
];

async fn fleet() -> Fleet {
    let catalogue = Some(("headers.json", ENDPOINTS));
    Fleet::start(FleetOptions { catalogue, procedures: PROCEDURES, ..FleetOptions::default() })
        .await
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let request = client.request(Method::GET, path);
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn output_parameters_become_response_headers() {
    let fleet = fleet().await;
    let client = fleet.client();
    let link = "%3C%2Fv1%2Fpage%3Fafter%3D9%3E%3B%20rel%3D%22next%22";
    let page = format!("/v1/page?value={link}");
    let answer = get(&client, &page, &[("origin", "https://app.example")]).await;
    assert_eq!(answer.is(200).header("link"), "</v1/page?after=9>; rel=\"next\"");
    assert_eq!(answer.header("x-total-count"), "1234");
    assert!(!answer.headers.contains_key("content-disposition"), "the parameter is NULL");
    assert_eq!(answer.json(), json!([{ "n": 1 }]));
    let exposed = answer.header("access-control-expose-headers");
    assert!(exposed.ends_with(", link, content-disposition, x-total-count"), "{exposed}");
    let head = send(client.request(Method::HEAD, &page)).await;
    assert_eq!(head.is(200).header("x-total-count"), "1234");

    let created = client.send(Method::POST, "/v1/page", &json!({ "location": "/v1/page/7" })).await;
    assert_eq!(created.is(201).header("location"), "/v1/page/7");
    assert_eq!(created.json(), json!({ "id": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_would_break_the_header_is_a_problem() {
    let fleet = fleet().await;
    let client = fleet.client();
    for value in [
        "%3Ca%3E%0D%0ASet-Cookie%3A%20b%3D1",
        "%3Ca%3E%0Ab",
        "%3Cä%3E",
        "no-link",
        "",
        "%3Ca%3E%20",
    ] {
        let answer = get(&client, &format!("/v1/page?value={value}"), &[]).await;
        answer.is_problem(502, "bad-answer");
        assert_eq!(answer.header("proxy-status"), "", "the worker has answered");
        for name in ["set-cookie", "link", "x-total-count"] {
            assert!(!answer.headers.contains_key(name), "{value}: {name}");
        }
    }
    // The call was granted and may have had effects.
    let created = client.send(Method::POST, "/v1/page", &json!({ "location": "/a b" })).await;
    created.is_problem(502, "outcome-unknown");
    let log = || fleet.workers[0].process.log();
    let expected =
        "the OUTPUT parameter @place is not a valid value for the header Location: expected a URI";
    eventually(SOON, TICK, || log().contains(expected)).await;
    assert!(!log().contains("Set-Cookie"), "values are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_procedure_chooses_the_version_and_compares_it() {
    let fleet = fleet().await;
    let client = fleet.client();
    let path = "/v1/versioned/7";
    // The version identifies the uncompressed answer, so that clients can send it back.
    let answer = get(&client, path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.is(200).header("etag"), "\"7\"");
    assert_eq!(answer.header("content-encoding"), "");
    assert_eq!(answer.header("vary"), "Accept-Encoding");
    assert_eq!(answer.header("last-modified"), "Thu, 29 Feb 2024 12:34:56 GMT");
    let forced = get(&client, path, &[("accept-encoding", "gzip, identity;q=0")]).await;
    assert_eq!((forced.header("content-encoding"), forced.header("etag")), ("gzip", "W/\"7\""));
    for (name, value, status) in [
        ("if-none-match", "\"7\"", 304),
        ("if-none-match", "W/\"7\"", 304),
        ("if-none-match", "\"8\"", 200),
        ("if-modified-since", "Thu, 29 Feb 2024 12:34:56 GMT", 304),
        ("if-modified-since", "Thu, 29 Feb 2024 12:34:55 GMT", 200),
        ("if-modified-since", "yesterday", 200),
        ("if-unmodified-since", "Thu, 29 Feb 2024 12:34:55 GMT", 412),
        ("if-unmodified-since", "Thu, 29 Feb 2024 12:34:56 GMT", 200),
        ("if-match", "\"8\"", 412),
    ] {
        get(&client, path, &[(name, value)]).await.is(status);
    }
    // A 304 has the headers that select a representation (RFC 9110 §15.4.5), regardless of the condition that it
    // answers.
    for condition in
        [("if-none-match", "\"7\""), ("if-modified-since", "Thu, 29 Feb 2024 12:34:56 GMT")]
    {
        let unchanged = get(&client, path, &[condition, ("accept-encoding", "gzip")]).await;
        assert_eq!(unchanged.is(304).header("vary"), "Accept-Encoding", "{}", condition.0);
    }
    // If-None-Match takes precedence (RFC 9110 §13.1.3).
    let both = [("if-none-match", "\"8\""), ("if-modified-since", "Thu, 29 Feb 2024 12:34:56 GMT")];
    get(&client, path, &both).await.is(200);

    let change = |tag: &str| send(client.request(Method::PUT, path).header("if-match", tag));
    let changed = change("\"7\"").await;
    assert_eq!(changed.is(204).header("etag"), "\"8\"");
    let refused = change("\"6\"").await.is_problem(412, "precondition-failed");
    assert_eq!(refused["detail"], "changed in the meantime");
    send(client.request(Method::PUT, path)).await.is_problem(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_answer_has_the_headers_but_no_content() {
    let fleet = fleet().await;
    let minimal = fleet.client().with_header("prefer", "return=minimal");
    let created =
        minimal.send(Method::POST, "/v1/page", &json!({ "location": "/v1/page/7" })).await;
    assert!(created.is(201).body.is_empty());
    assert_eq!(created.header("location"), "/v1/page/7");
    assert_eq!(created.header("preference-applied"), "return=minimal");
    assert_eq!((created.header("content-type"), created.header("content-length")), ("", "0"));
    let done = minimal.send(Method::POST, "/v1/once", &json!({})).await;
    assert_eq!(done.is(204).header("preference-applied"), "return=minimal");
    assert!(done.body.is_empty() && done.header("content-type").is_empty());
    assert_eq!(fleet.ledger().len(), 1);
    // The call is not cut short, although its answer has several parts.
    let large = send(minimal.request(Method::POST, "/v1/flow?rows=3000")).await;
    assert_eq!(large.is(204).header("preference-applied"), "return=minimal");
    let problem = minimal.send(Method::POST, "/v1/page", &json!({ "location": 1 })).await;
    problem.is_problem(400, "invalid-request");
    let read = minimal.get("/v1/page?value=%3Ca%3E").await;
    assert_eq!((read.is(200).json(), read.header("preference-applied")), (json!([{ "n": 1 }]), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_checks_what_a_worker_sends() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let catalogue = Some(("headers.json", ENDPOINTS));
    let options = FleetOptions { catalogue, nats, workers: 0, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let server = fleet.nats.servers[0].address();
    let mut worker = RawNatsClient::join(server, "fjord.q.page", "page").await;
    let client = fleet.client();
    for (header, value, status, forwarded) in [
        ("Link", "</v1/page>; rel=\"next\"", 200, "</v1/page>; rel=\"next\""),
        ("Link", "next", 502, ""),
        // The endpoint does not declare this header, and header names are case-sensitive in NATS.
        ("Location", "/v1/page/7", 200, ""),
        ("link", "</v1/page>", 200, ""),
        ("Set-Cookie", "a=b", 200, ""),
    ] {
        let answering = async {
            let request = worker.next().await;
            let headers = [("Fjord-Reply", "final"), ("Fjord-Status", "200"), (header, value)];
            worker.publish(&request.reply, &headers, b"[]").await;
        };
        let (answer, ()) = tokio::join!(client.get("/v1/page"), answering);
        assert_eq!(answer.is(status).header("link"), forwarded, "{header}: {value}");
        let failed = if status == 502 {
            "fjord; error=http_protocol_error; details=\"bad-answer\""
        } else {
            ""
        };
        assert_eq!(answer.header("proxy-status"), failed);
        assert_eq!((answer.header("location"), answer.header("set-cookie")), ("", ""));
    }
}
