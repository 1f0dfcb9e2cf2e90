//! Promise: a client that has the current version of an answer gets a 304 without its content, and every content coding
//! has its own `ETag`.

use http::Method;

use super::support::client::{Client, HttpResponse, send};
use super::support::fleet::{Fleet, FleetOptions};

/// Endpoints whose answers have an `ETag`.
const ENDPOINTS: &str = r#"{
    "tagged": { "route": "GET /v1/tagged", "procedure": "ledger.flow", "auth": "public", "timeout": "20s",
        "parameters": { "rows": { "in": "query", "type": "int32", "default": 10 },
                        "pause_at": { "in": "query", "type": "int32", "default": 0 },
                        "ms": { "in": "query", "type": "int32", "default": 0 },
                        "fail_at": { "in": "query", "type": "int32", "default": 0 } },
        "cache": { "etag": true } },
    "tagged-row": { "route": "GET /v1/tagged/{id}", "queue": "echo", "handler": "echo", "auth": "public", "timeout": "2s",
        "parameters": { "id": { "in": "path", "type": "string" } },
        "cache": { "etag": true }, "cache_control": "max-age=60", "cors": { "origins": ["https://app.example"] } }
}"#;

async fn fleet() -> Fleet {
    let catalogue = Some(("tagged.json", ENDPOINTS));
    Fleet::start(FleetOptions { catalogue, ..FleetOptions::default() }).await
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> HttpResponse {
    request(client, Method::GET, path, headers).await
}

async fn request(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> HttpResponse {
    let request = client.request(method, path);
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

fn vary(answer: &HttpResponse) -> Vec<&str> {
    let mut names: Vec<_> =
        answer.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_answer_is_not_sent_again() {
    let fleet = fleet().await;
    let client = fleet.client();
    let first = get(&client, "/v1/tagged/1", &[("origin", "https://app.example")]).await;
    let tag = first.is(200).header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 20, "a strong tag: {tag}");
    assert!(first.header("access-control-expose-headers").contains("etag"));
    let again = get(&client, "/v1/tagged/1", &[("if-none-match", &tag)]).await;
    assert!(again.is(304).body.is_empty());
    for name in ["etag", "cache-control"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(vary(&again), vary(&first));
    for name in ["content-type", "content-length", "content-encoding"] {
        assert_eq!(again.header(name), "", "{name} of a 304");
    }
    let list = format!("\"other\", W/{tag}");
    for tags in [list.as_str(), "*"] {
        get(&client, "/v1/tagged/1", &[("if-none-match", tags)]).await.is(304);
        request(&client, Method::HEAD, "/v1/tagged/1", &[("if-none-match", tags)]).await.is(304);
    }
    let head = request(&client, Method::HEAD, "/v1/tagged/1", &[]).await;
    assert_eq!(head.is(200).header("etag"), tag);
    let other = get(&client, "/v1/tagged/2", &[("if-none-match", &tag)]).await;
    assert_ne!(other.is(200).header("etag"), tag, "another content has another tag");
    // The access line and the metric contain the status that was sent.
    let sent = r#"fjord_gateway_requests_total{endpoint="tagged-row",queue="echo",status="304",outcome="ok"}"#;
    assert!(fleet.gateways[0].metric(sent).await > 4.5);
    // An error is never a 304.
    get(&client, "/v1/tagged?rows=x", &[("if-none-match", "*")])
        .await
        .is_problem(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_is_compared_strongly() {
    let fleet = fleet().await;
    let client = fleet.client();
    let tag = get(&client, "/v1/tagged/1", &[]).await.header("etag").to_owned();
    get(&client, "/v1/tagged/1", &[("if-match", &tag)]).await.is(200);
    get(&client, "/v1/tagged/1", &[("if-match", "*")]).await.is(200);
    for tags in [format!("W/{tag}"), "\"other\"".to_owned()] {
        let failed = get(&client, "/v1/tagged/1", &[("if-match", &tags)]).await;
        let problem = failed.is_problem(412, "precondition-failed");
        assert_eq!(problem["effect"], "executed");
    }
    // An endpoint without an ETag ignores preconditions.
    let ignored = [("if-match", "\"a\""), ("if-none-match", "*")];
    get(&client, "/v1/echo/a", &ignored).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_content_coding_has_its_own_tag() {
    let fleet = fleet().await;
    let client = fleet.client();
    let path = "/v1/tagged?rows=100";
    let mut tags = Vec::new();
    for coding in ["identity", "gzip", "br", "zstd"] {
        let answer = get(&client, path, &[("accept-encoding", coding)]).await;
        let expected = if coding == "identity" { "" } else { coding };
        assert_eq!(answer.is(200).header("content-encoding"), expected);
        let tag = answer.header("etag").to_owned();
        assert!(tag.starts_with('"') && !tags.contains(&tag), "{coding}: {tag}");
        let sent = [("accept-encoding", coding), ("if-none-match", &*tag)];
        let again = get(&client, path, &sent).await;
        assert_eq!(again.is(304).header("etag"), tag);
        assert_eq!(vary(&again), vary(&answer), "{coding}");
        tags.push(tag);
    }
    // The client has an encoded body, but does not accept its coding any longer.
    let sent = [("accept-encoding", "br"), ("if-none-match", &*tags[1])];
    assert_eq!(get(&client, path, &sent).await.is(200).header("content-encoding"), "br");
    // The client has the unencoded body, which it still accepts.
    let sent = [("accept-encoding", "br"), ("if-none-match", &*tags[0])];
    assert_eq!(get(&client, path, &sent).await.is(304).header("etag"), tags[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_collected_and_has_a_tag() {
    let fleet = fleet().await;
    let client = fleet.client();
    let path = "/v1/tagged?rows=3000";
    let answer = get(&client, path, &[]).await;
    assert!(answer.is(200).body.len() > 2 << 20, "{}", answer.body.len());
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let sent = [("if-none-match", answer.header("etag"))];
    assert!(get(&client, path, &sent).await.is(304).body.is_empty());
    // The gateway does not collect the content for HEAD, so neither the tag nor the result of the conditions is known.
    for headers in [&[][..], &[("if-none-match", "*")], &[("if-match", "\"a\"")]] {
        let head = request(&client, Method::HEAD, path, headers).await;
        assert_eq!(head.is(200).header("etag"), "", "{headers:?}");
    }
    // A failure is still a problem document.
    let failed = get(&client, "/v1/tagged?rows=3000&fail_at=2999", &[]).await;
    assert!(failed.status.is_client_error() || failed.status.is_server_error());
    assert_eq!(failed.header("etag"), "");
}
