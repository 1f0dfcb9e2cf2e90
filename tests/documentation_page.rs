//! Promise: `/docs` is a page on which a person can find, read and try every endpoint, even if there are thousands. It requests
//! nothing from other hosts, and works below a path that a proxy removes.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use super::support::browser::Browser;
use super::support::client::send;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::prefix_proxy::PrefixProxy;
use super::support::target_directory;

/// The number of endpoints in the catalogue of this test.
const ENDPOINTS: usize = 5_000;
/// The maximum number of operations that the page shows at a time.
const SHOWN_MAX: u64 = 50;
const API_KEY: &str = "page-key";

/// JavaScript functions for the steps of a test.
const FUNCTIONS: &str = r#"
    const all = (selector) => [...document.querySelectorAll(selector)];
    const one = (selector) => document.querySelector(selector);
    // React notices a new value only if it is set in this way.
    const type = (field, value) => {
        Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, value);
        field.dispatchEvent(new Event("input", { bubbles: true }));
    };
"#;

fn catalogue() -> &'static str {
    let mut text = String::from(
        r#"{ "guarded": { "route": "GET /v1/guarded", "handler": "echo", "queue": "echo", "result": "json",
              "tags": ["guarded"], "auth": { "methods": ["api-key"] } }"#,
    );
    for n in 0..ENDPOINTS {
        write!(
            text,
            r#", "many-{n}": {{ "route": "GET /v1/many/{n}/{{id}}", "handler": "echo", "queue": "echo",
                 "summary": "Returns resource {n}", "tags": ["area {:02}"], "result": "json", "auth": "public",
                 "parameters": {{ "id": {{ "in": "path", "type": "string", "pattern": "^[A-Z0-9]{{1,15}}$" }},
                                  "day": {{ "in": "query", "type": "date" }} }} }}"#,
            n % 50
        )
        .expect("text");
    }
    text.push('}');
    Box::leak(text.into_boxed_str())
}

async fn fleet() -> Fleet {
    let hash = super::authentication::fixture::hash(API_KEY);
    let gateway_toml = format!("[auth.api_keys.page]\nsha256 = ['{hash}']\n");
    let catalogue = Some(("many.json", catalogue()));
    Fleet::start(FleetOptions { catalogue, gateway_toml, ..FleetOptions::default() }).await
}

/// Returns the path of a screenshot, for people who want to see the page.
fn picture(name: &str) -> PathBuf {
    let directory = target_directory().join("documentation-page");
    fs::create_dir_all(&directory).expect("the directory can be created");
    directory.join(name)
}

async fn run(browser: &Browser, script: &str) -> Value {
    browser.run(&format!("{FUNCTIONS}{script}")).await
}

async fn until(browser: &Browser, script: &str) -> Value {
    browser.until(&format!("{FUNCTIONS}{script}")).await
}

/// Searches for an operation, and opens it once it is the only one.
async fn find(browser: &Browser, operation: &str, path: &str) {
    run(browser, &format!("type(one('#search'), '{operation}');")).await;
    let is_alone = format!(
        "const found = all('.opblock-summary-path');
         return found.length === 1 && found[0].textContent.replaceAll('\\u200b', '') === '{path}';"
    );
    until(browser, &is_alone).await;
    let open = "if (one('.opblock.is-open')) return one('.opblock.is-open .execute') !== null;
         one('.opblock-summary-control').click();";
    until(browser, open).await;
}

/// Enters a value into a field of the open operation.
async fn fill(browser: &Browser, field: &str, value: &str) {
    let script = format!(
        "const field = one('.opblock.is-open {field}');
         if (field) type(field, '{value}');
         return field !== null;"
    );
    until(browser, &script).await;
}

/// Sends the request of the open operation, and returns the status and the body on the page.
async fn try_out(browser: &Browser) -> (String, String) {
    // The page accepts a value shortly after it was typed, so the first click may come too early.
    let sent = "const live = one('.live-responses-table tbody .response-col_status');
         if (live) return [live.textContent.trim(), one('.live-responses-table tbody .response-col_description').innerText];
         if (performance.now() - (window.clicked ?? -1e9) > 1000) {
             window.clicked = performance.now();
             one('.opblock.is-open .execute').click();
         }";
    run(browser, "window.clicked = undefined;").await;
    let answer = until(browser, sent).await;
    let text = |index: usize| answer[index].as_str().unwrap_or_default().to_owned();
    (text(0), text(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_reads_and_tries_one_of_thousands_of_endpoints() {
    let Some(browser) = Browser::start("the documentation page").await else { return };
    let fleet = fleet().await;
    browser.open(&format!("https://{}/docs", fleet.gateways[0].https())).await;
    let shown = until(&browser, "return all('.opblock').length || null;").await;
    assert!(shown.as_u64().is_some_and(|shown| (1..=SHOWN_MAX).contains(&shown)), "{shown}");
    let open = run(&browser, "return all('.opblock.is-open').length;").await;
    assert_eq!(open, 0, "operations are collapsed");
    let tags = run(&browser, "return all('#tags button').map((tag) => tag.innerText);").await;
    let tags = tags.as_array().expect("a list");
    assert!(tags.len() > 50, "{tags:?}");
    assert!(!tags.iter().any(|tag| tag.as_str().is_some_and(|tag| tag.starts_with("guarded"))));
    browser.screenshot(&picture("thousands.png")).await;

    run(
        &browser,
        "all('#tags button').find((tag) => tag.innerText.startsWith('area 21')).click();",
    )
    .await;
    let of_tag = until(
        &browser,
        "const names = all('.opblock-tag').map((tag) => tag.dataset.tag);
         return names.length === 1 && names[0] === 'area 21' && (all('.opblock').length || null);",
    )
    .await;
    assert_eq!(of_tag, SHOWN_MAX);
    run(&browser, "one('#more').click();").await;
    until(&browser, &format!("return all('.opblock').length === {};", ENDPOINTS / 50)).await;

    find(&browser, "many-4321", "/v1/many/4321/{id}").await;
    let page = run(&browser, "return one('.opblock.is-open').innerText;").await;
    let page = page.as_str().expect("text");
    for part in ["Returns resource 4321", "application/problem+json", "503"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    fill(&browser, "tr[data-param-name=id] input", "ABC1").await;
    let (status, body) = try_out(&browser).await;
    assert_eq!(status, "200");
    assert!(body.contains("\"ABC1\""), "{body}");
    browser.screenshot(&picture("answer.png")).await;

    // The problem document of an error is shown.
    find(&browser, "refuse", "/v1/refuse/{id}").await;
    fill(&browser, "tr[data-param-name=id] input", "x").await;
    fill(&browser, "textarea", "{\"number\": \"none\"}").await;
    let (status, body) = try_out(&browser).await;
    assert_eq!(status, "400");
    assert!(body.contains("\"pointer\": \"/number\""), "{body}");
    browser.screenshot(&picture("problem.png")).await;

    // Credentials are entered only once. They apply to the document and to every request.
    run(&browser, "type(one('#search'), ''); one('.btn.authorize').click();").await;
    until(&browser, "return all('.auth-container').length >= 3;").await;
    let key = format!(
        "const box = all('.auth-container').find((box) => box.innerText.includes('X-API-Key'));
         type(box.querySelector('input'), '{API_KEY}');
         box.querySelector('button[type=submit], .authorize').click();"
    );
    run(&browser, &key).await;
    until(
        &browser,
        "return all('#tags button').some((tag) => tag.innerText.startsWith('guarded'));",
    )
    .await;
    run(&browser, "one('.btn-done, .close-modal').click();").await;
    find(&browser, "guarded", "/v1/guarded").await;
    assert_eq!(try_out(&browser).await.0, "200");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    let hosts = "return [...new Set(performance.getEntriesByType('resource').map((it) => new URL(it.name).origin))];";
    assert_eq!(run(&browser, hosts).await, json!([run(&browser, "return location.origin;").await]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_below_a_path_that_a_proxy_removes() {
    let Some(browser) = Browser::start("the documentation page behind a proxy").await else {
        return;
    };
    let fleet = Fleet::start(FleetOptions::default()).await;
    let proxy = PrefixProxy::bind().await;
    let url = format!("http://{}/api/docs#/default/echo", proxy.address());
    let steps = async {
        browser.open(&url).await;
        // The link opens its operation.
        until(&browser, "return one('.opblock.is-open .execute') !== null;").await;
        fill(&browser, "tr[data-param-name=id] input", "behind").await;
        try_out(&browser).await
    };
    let (status, body) = tokio::select! {
        () = proxy.serve(fleet.gateways[0].https(), &fleet.certs, "api") => unreachable!("it never returns"),
        answer = steps => answer,
    };
    assert_eq!(status, "200");
    assert!(body.contains("\"behind\""), "{body}");
    let outside =
        "return performance.getEntriesByType('resource').map((it) => new URL(it.name).pathname)
                     .filter((path) => !path.startsWith('/api/'));";
    assert_eq!(run(&browser, outside).await, json!([]));
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.screenshot(&picture("small.png")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_page_are_cached_forever_and_the_rest_is_validated() {
    let options = FleetOptions {
        gateway_keys: "documentation = 'public'\n",
        // The path of this route would match the paths of the page's files.
        catalogue: Some((
            "any.json",
            r#"{ "any": { "route": "GET /{table}/{id}", "handler": "echo", "queue": "echo", "result": "json",
                 "auth": "public", "parameters": { "table": { "in": "path", "type": "string" },
                                                   "id": { "in": "path", "type": "string" } } } }"#,
        )),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options).await;
    let client = fleet.client();
    let page = client.get("/docs").await;
    assert_eq!(page.is(200).header("content-type"), "text/html; charset=utf-8");
    let html = page.text();
    let files: Vec<&str> = html.split('"').filter(|text| text.starts_with("docs/")).collect();
    assert_eq!(files.len(), 6, "{html}");
    for path in files.into_iter().chain(["docs", "openapi.json"]) {
        let path = format!("/{path}");
        let is_file = path.starts_with("/docs/");
        let whole = client.get(&path).await;
        let (media_type, cache_control) =
            (whole.is(200).header("content-type"), whole.header("cache-control"));
        let expected = match path.rsplit_once('.').map_or("html", |(_, extension)| extension) {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "json" => "application/json",
            "txt" => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(media_type, expected, "{path}");
        let immutable = "public, max-age=31536000, immutable";
        assert_eq!(cache_control, if is_file { immutable } else { "no-cache" }, "{path}");
        let gzip = client.with_header("accept-encoding", "gzip");
        let small = gzip.get(&path).await;
        assert_eq!(small.is(200).header("content-encoding"), "gzip", "{path}");
        assert!(small.body.len() < whole.body.len(), "{path}");
        for (client, whole) in [(&client, &whole), (&gzip, &small)] {
            let head = send(client.request(Method::HEAD, &path)).await;
            assert!(head.is(200).body.is_empty(), "{path}");
            assert_eq!(head.header("content-length"), whole.body.len().to_string(), "{path}");
            let known = client.with_header("if-none-match", whole.header("etag"));
            let unchanged = known.get(&path).await;
            assert!(unchanged.is(304).body.is_empty(), "{path}");
            assert_eq!(unchanged.header("etag"), whole.header("etag"), "{path}");
        }
    }
    client.get("/docs/swagger-ui.js").await.is(200);
    assert!(
        client.get("/docs/swagger-ui.js").await.text().contains("swagger-ui.js"),
        "the endpoint answers"
    );
}
