//! Promise: a client uses `Accept` to choose among the representations that an endpoint produces. Each of them is
//! streamed like JSON, and an answer that is cut off never looks complete.

use http::Method;
use serde_json::{Value, json};

use super::support::client::{Client, HttpResponse, send};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::raw_nats::RawNatsClient;

const ENDPOINTS: &str = r#"{
    "export": { "route": "GET /v1/export", "procedure": "ledger.flow", "auth": "public", "timeout": "20s",
        "parameters": { "rows": { "in": "query", "type": "int32", "default": 10 },
                        "pause_at": { "in": "query", "type": "int32", "default": 0 },
                        "ms": { "in": "query", "type": "int32", "default": 0 },
                        "fail_at": { "in": "query", "type": "int32", "default": 0 } },
        "produces": ["application/json", "text/csv", "application/x-ndjson"] },
    "values": { "route": "GET /v1/values", "procedure": "ledger.values", "auth": "public", "timeout": "5s",
        "produces": ["text/csv", "application/x-ndjson"], "cache": { "etag": true } },
    "picture": { "route": "GET /v1/pictures/{id}", "procedure": "ledger.picture", "auth": "public", "timeout": "5s",
        "parameters": { "id": { "in": "path", "type": "int32" } },
        "result": "value", "produces": "image/png", "headers": { "Content-Disposition": "disposition" } }
}"#;

const PROCEDURES: &[(&str, &str)] = &[
    (
        "ledger.values.sql",
        "SELECT 1 AS id, 'a,\"b\"' AS text, NULL AS none, x'616263' AS bytes\n\
         UNION ALL SELECT 2, '=cmd|x', '', NULL;\n",
    ),
    (
        "ledger.picture.sql",
        "SELECT 'inline; filename=\"p.png\"' AS \"@disposition\";\n\
         SELECT CASE @id WHEN 1 THEN x'89504e470d0a1a0aff' ELSE NULL END AS bytes WHERE @id < 3;\n",
    ),
];

const CSV: &str = "text/csv; charset=utf-8; header=present";
const NDJSON: &str = "application/x-ndjson";

async fn fleet() -> Fleet {
    let catalogue = Some(("representations.json", ENDPOINTS));
    Fleet::start(FleetOptions { catalogue, procedures: PROCEDURES, ..FleetOptions::default() })
        .await
}

async fn get(client: &Client, path: &str, accept: &str) -> HttpResponse {
    send(client.request(Method::GET, path).header("accept", accept)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_chooses_a_representation() {
    let fleet = fleet().await;
    let client = fleet.client();
    for (accept, content_type) in [
        ("*/*", "application/json"),
        ("text/csv, application/json;q=0.5", CSV),
        ("application/x-ndjson", NDJSON),
    ] {
        let answer = get(&client, "/v1/export?rows=2", accept).await;
        assert_eq!(answer.is(200).header("content-type"), content_type);
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert!(vary.iter().any(|name| *name == "Accept"), "{vary:?}");
        let head = client.request(Method::HEAD, "/v1/export?rows=2").header("accept", accept);
        let head = send(head).await;
        for name in ["content-type", "content-length"] {
            assert_eq!(head.is(200).header(name), answer.header(name), "{accept}");
        }
    }
    let refused = get(&client, "/v1/export", "text/html").await;
    refused.is_problem(406, "not-acceptable");
    assert_eq!(refused.header("vary"), "Accept");
    get(&client, "/v1/values", "application/json").await.is_problem(406, "not-acceptable");

    let csv = get(&client, "/v1/values", "*/*").await;
    let expected = "id,text,none,bytes\r\n1,\"a,\"\"b\"\"\",,YWJj\r\n2,=cmd|x,\"\",\r\n";
    assert_eq!(csv.is(200).text(), expected);
    let lines = get(&client, "/v1/values", NDJSON).await;
    let expected = "{\"id\":1,\"text\":\"a,\\\"b\\\"\",\"none\":null,\"bytes\":\"YWJj\"}\n\
                    {\"id\":2,\"text\":\"=cmd|x\",\"none\":\"\",\"bytes\":null}\n";
    assert_eq!(lines.is(200).text(), expected);
    assert_ne!(csv.header("etag"), lines.header("etag"), "two representations");
    let empty = get(&client, "/v1/export?rows=0", "text/csv").await;
    assert!(empty.is(200).text().ends_with("\r\n"), "the names of the columns: {}", empty.text());
    let empty = get(&client, "/v1/export?rows=0", NDJSON).await;
    assert_eq!((empty.is(200).text().as_str(), empty.header("content-type")), ("", NDJSON));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_streamed_in_every_representation() {
    let fleet = fleet().await;
    let client = fleet.client();
    for (accept, content_type) in [("text/csv", CSV), (NDJSON, NDJSON)] {
        for coding in ["identity", "gzip"] {
            let request = client.request(Method::GET, "/v1/export?rows=3000");
            let request = request.header("accept", accept).header("accept-encoding", coding);
            let answer = send(request).await;
            assert_eq!(answer.is(200).header("content-type"), content_type);
            assert_eq!(answer.header("content-length"), "", "the answer is streamed");
            if coding == "gzip" {
                assert_eq!(answer.header("content-encoding"), "gzip", "{accept}");
                continue;
            }
            let text = answer.text();
            let lines: Vec<&str> = text.lines().collect();
            if accept == NDJSON {
                assert_eq!(lines.len(), 3000);
                let rows = lines.iter().map(|line| serde_json::from_str(line).expect("an object"));
                assert!(
                    rows.enumerate().all(|(index, row): (usize, Value)| row["number"] == index + 1)
                );
            } else {
                assert_eq!(lines.len(), 3001);
                let numbers = lines.iter().skip(1).map(|line| line.split(',').next());
                assert!(
                    numbers
                        .enumerate()
                        .all(|(index, number)| number == Some(&*(index + 1).to_string()))
                );
            }
        }
        let head = client.request(Method::HEAD, "/v1/export?rows=3000").header("accept", accept);
        assert_eq!(send(head).await.is(200).header("content-type"), content_type);
        let failing = client.request(Method::GET, "/v1/export?rows=3000&fail_at=2900");
        let response = failing.header("accept", accept).send().await.expect("response headers");
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err(), "{accept}: the answer must be cut off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_value_is_sent_as_it_is() {
    let fleet = fleet().await;
    let client = fleet.client();
    for accept in ["*/*", "image/png", "image/*, text/html"] {
        let picture = get(&client, "/v1/pictures/1", accept).await;
        assert_eq!(picture.is(200).body, b"\x89PNG\r\n\x1a\n\xff");
        assert_eq!(picture.header("content-type"), "image/png");
        assert_eq!(picture.header("content-disposition"), "inline; filename=\"p.png\"");
        assert_eq!(picture.header("x-content-type-options"), "nosniff");
        assert_eq!(picture.header("vary"), "", "the endpoint has one representation");
    }
    get(&client, "/v1/pictures/2", "*/*").await.is_problem(404, "no-row");
    get(&client, "/v1/pictures/3", "*/*").await.is_problem(404, "no-row");
    get(&client, "/v1/pictures/1", "application/json").await.is_problem(406, "not-acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_another_representation_is_not_forwarded() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let catalogue = Some(("representations.json", ENDPOINTS));
    let fleet =
        Fleet::start(FleetOptions { catalogue, nats, workers: 0, ..FleetOptions::default() }).await;
    let server = fleet.nats.servers[0].address();
    let mut worker = RawNatsClient::join(server, "fjord.q.export", "export").await;
    let client = fleet.client();
    for (content_type, status) in [("text/csv", 200), ("application/json", 502), ("", 502)] {
        let answering = async {
            let request = worker.next().await;
            let headers =
                [("Fjord-Reply", "final"), ("Fjord-Status", "200"), ("Content-Type", content_type)];
            worker.publish(&request.reply, &headers, b"n\r\n").await;
        };
        let (answer, ()) = tokio::join!(get(&client, "/v1/export", "text/csv"), answering);
        answer.is(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_lists_the_representations() {
    let fleet = fleet().await;
    let document = fleet.client().get("/openapi.json").await.json();
    let content = |path: &str| {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        content.as_object().expect("content").keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(content("/v1/export"), ["application/json", "application/x-ndjson", "text/csv"]);
    assert_eq!(content("/v1/pictures/{id}"), ["image/png"]);
    let values = &document["paths"]["/v1/values"]["get"]["responses"];
    assert!(values["304"].is_object() && values["406"].is_object());
    assert_eq!(values["200"]["headers"]["ETag"]["schema"], json!({ "type": "string" }));
}
