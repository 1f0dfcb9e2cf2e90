//! Promise: pages from other origins can call exactly those endpoints that the catalogue permits.
//! The gateway answers preflight requests without a worker. Responses to these pages have the same
//! fixed headers as other responses.

use http::Method;

use super::support::client::{Client, HttpResponse, send};
use super::support::fleet::{Fleet, FleetOptions};

const PAGE: &str = "https://app.example";

const CORS: &str = "[catalogue.cors_default]\norigins = ['https://app.example']\nmax_age = '5m'\n";

async fn send_request(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> HttpResponse {
    let request = client.request(method, path);
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

fn has_fixed_headers(answer: &HttpResponse) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    assert!(!answer.header("x-request-id").is_empty());
    for banner in ["server", "via", "x-powered-by"] {
        assert_eq!(answer.header(banner), "", "no banner");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_without_a_worker_and_without_credentials() {
    let options =
        FleetOptions { workers: 0, gateway_toml: CORS.to_owned(), ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client = fleet.client();
    let headers = [("origin", PAGE), ("access-control-request-method", "PUT")];
    let answer = send_request(&client, Method::OPTIONS, "/v1/keep/1", &headers).await;
    answer.is(204);
    has_fixed_headers(&answer);
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
    assert_eq!(answer.header("access-control-allow-methods"), "PUT");
    assert_eq!(answer.header("access-control-max-age"), "300");
    assert!(answer.header("access-control-allow-headers").contains("content-type"));
    assert!(answer.header("vary").starts_with("Origin"));

    let other_origin =
        [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    let answer = send_request(&client, Method::OPTIONS, "/v1/keep/1", &other_origin).await;
    assert_eq!(answer.is(204).header("access-control-allow-origin"), "");
    has_fixed_headers(&answer);

    // The page can also read error responses, such as this one for a queue without workers.
    let answer = send_request(&client, Method::GET, "/v1/echo/a", &[("origin", PAGE)]).await;
    answer.is_problem(503, "no-workers");
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
    assert!(answer.header("access-control-expose-headers").contains("retry-after"));
    has_fixed_headers(&answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cors_policy_there_are_no_cors_headers() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let headers = [("origin", PAGE), ("access-control-request-method", "GET")];
    for method in [Method::OPTIONS, Method::GET] {
        let answer = send_request(&client, method, "/v1/echo/a", &headers).await;
        assert!(answer.status.is_success());
        has_fixed_headers(&answer);
        let has_cors_headers =
            answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
        assert!(!has_cors_headers, "{:?}", answer.headers);
        assert!(!answer.header("vary").contains("Origin"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_read_the_documentation_and_errors_before_routing() {
    let gateway_keys = "documentation = 'public'\n";
    let gateway_toml = format!("uri_bytes_max = 1000\n{CORS}");
    let options =
        FleetOptions { workers: 0, gateway_keys, gateway_toml, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client = fleet.client();
    let long = format!("/v1/echo/a?text={}", "x".repeat(1500));
    for (method, path, status) in [
        (Method::GET, "/openapi.json", 200),
        (Method::GET, "/docs", 200),
        (Method::POST, "/openapi.json", 405),
        (Method::GET, "/v1/nothing", 404),
        (Method::DELETE, "/v1/echo/a", 405),
        (Method::GET, "/v1/echo/a%2Fb", 400),
        (Method::GET, long.as_str(), 414),
    ] {
        let answer = send_request(&client, method, path, &[("origin", PAGE)]).await;
        assert_eq!(answer.is(status).header("access-control-allow-origin"), PAGE, "{path}");
        // The documentation also has `Vary: Accept-Encoding`.
        let mut vary = answer.headers.get_all("vary").iter();
        assert!(vary.any(|value| value == "Origin"), "{path}");
        let other = [("origin", "https://evil.example")];
        let answer = send_request(&client, Method::GET, path, &other).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    let headers = [("origin", PAGE), ("access-control-request-method", "GET")];
    let page = client.get("/docs").await;
    let file = page
        .text()
        .split('"')
        .find(|text| text.rsplit_once('.').is_some_and(|(_, end)| end == "js"))
        .map(|it| format!("/{it}"));
    let file = file.expect("the page has a script");
    let answer = send_request(&client, Method::POST, &file, &[("origin", PAGE)]).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    for path in ["/openapi.json", "/docs", file.as_str()] {
        let answer = send_request(&client, Method::OPTIONS, path, &headers).await;
        assert_eq!(answer.is(204).header("allow"), "GET, HEAD, OPTIONS");
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD");
        assert!(answer.header("access-control-allow-headers").contains("authorization"));
        has_fixed_headers(&answer);
    }
}
