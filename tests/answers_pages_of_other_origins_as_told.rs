//! Promise: a browser lets pages of other origins call what the catalogue says, and nothing else; it hears so from the
//! gateway alone, and an answer that such a page may read has the same headers as any other.

use http::Method;

use super::support::client::{Answer, Client, send};
use super::support::fjord::{Fleet, FleetOptions};

const PAGE: &str = "https://app.example";

const CORS: &str = "[catalogue.cors_default]\norigins = ['https://app.example']\nmax_age = '5m'\n";

async fn ask(client: &Client, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = client.request(method, path);
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

fn has_fixed_headers(answer: &Answer) {
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
    let asking = [("origin", PAGE), ("access-control-request-method", "PUT")];
    let answer = ask(&client, Method::OPTIONS, "/v1/keep/1", &asking).await;
    answer.is(204);
    has_fixed_headers(&answer);
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
    assert_eq!(answer.header("access-control-allow-methods"), "PUT");
    assert_eq!(answer.header("access-control-max-age"), "300");
    assert!(answer.header("access-control-allow-headers").contains("content-type"));
    assert!(answer.header("vary").starts_with("Origin"));

    let stranger = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    let answer = ask(&client, Method::OPTIONS, "/v1/keep/1", &stranger).await;
    assert_eq!(answer.is(204).header("access-control-allow-origin"), "");
    has_fixed_headers(&answer);

    // A page may read what is wrong, too: nobody serves the queue.
    let answer = ask(&client, Method::GET, "/v1/echo/a", &[("origin", PAGE)]).await;
    answer.is_problem(503, "no-workers");
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
    assert!(answer.header("access-control-expose-headers").contains("retry-after"));
    has_fixed_headers(&answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_in_the_catalogue_no_other_origin_is_told_anything() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let asking = [("origin", PAGE), ("access-control-request-method", "GET")];
    for method in [Method::OPTIONS, Method::GET] {
        let answer = ask(&client, method, "/v1/echo/a", &asking).await;
        assert!(answer.status.is_success());
        has_fixed_headers(&answer);
        let told = answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
        assert!(!told, "{:?}", answer.headers);
        assert!(!answer.header("vary").contains("Origin"));
    }
}
