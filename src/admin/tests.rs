//! Tests the admin listener over a real socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct TestAdmin {
    address: SocketAddr,
    readiness: Readiness,
    stop: Cancel,
    tasks: Tasks,
}

fn start() -> TestAdmin {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = AdminConfig { listen, hosts: Vec::new(), fleet: true };
    let admin = Admin::bind(&config).unwrap();
    let address = admin.address();
    let (readiness, tasks, stop) = (Readiness::new(), Tasks::new(), Cancel::new());
    let status: StatusSource = Arc::new(|| json!({ "role": "gateway" }));
    let fleet: DocumentSource = Arc::new(|queue| format!("{{\"queue\": {queue:?}}}").into_bytes());
    let health = ProcessHealth { readiness: readiness.clone(), status, fleet };
    admin.serve(health, &tasks, stop.clone());
    TestAdmin { address, readiness, stop, tasks }
}

impl TestAdmin {
    async fn request(&self, line: &str) -> String {
        self.request_as(line, "*/*", "localhost").await
    }

    async fn request_as(&self, line: &str, accept: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }
}

#[tokio::test]
async fn readyz_lists_the_parts_that_are_not_ready() {
    let started = start();
    assert!(started.request("GET /readyz").await.starts_with("HTTP/1.1 200 "));
    started.readiness.set("nats", Err("not connected".to_owned()));
    let answer = started.request("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains(r#""nats": "not connected""#), "{answer}");
    assert!(
        started.request("GET /healthz").await.starts_with("HTTP/1.1 200 "),
        "the process is alive"
    );
    started.readiness.set("nats", Ok(()));
    assert!(started.request("GET /readyz").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn metrics_are_in_the_prometheus_format() {
    exposition::install(crate::cli::Role::Gateway);
    let answer = start().request("GET /metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
    assert!(answer.contains("fjord_build_info{"), "{answer}");
    let answer =
        start().request_as("GET /metrics", "application/openmetrics-text", "127.0.0.1").await;
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(answer.ends_with("\n# EOF\n"), "{answer}");
}

#[tokio::test]
async fn status_returns_the_document_of_the_process() {
    let answer = start().request("GET /status").await;
    assert!(answer.contains(r#""role": "gateway""#), "{answer}");
}

#[tokio::test]
async fn the_page_and_its_files_are_served_with_a_strict_policy() {
    let started = start();
    let page = started.request("GET /").await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; "), "{page}");
    assert!(page.contains("content-type: text/html; charset=utf-8"), "{page}");
    let script = started.request("GET /page/page.js").await;
    assert!(script.contains("content-type: text/javascript; charset=utf-8"), "{script}");
    let data = "GET /fleet.json?queue=a%22";
    let answer = started.request(data).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.ends_with("(use fjord status --json instead)\n"), "{answer}");
    let answer = started.request_as(data, "*/*\r\nFjord-Page: 1", "localhost").await;
    assert!(answer.ends_with(r#"{"queue": Some("a\"")}"#), "{answer}");
    // The preflight request for a page of another site.
    let preflight = "*/*\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: GET\r\n\
                     Access-Control-Request-Headers: fjord-page";
    let answer = started.request_as("OPTIONS /fleet.json", preflight, "localhost").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && !answer.contains("access-control"), "{answer}");
    assert!(started.request("HEAD /").await.starts_with("HTTP/1.1 200 "));
    assert!(started.request("GET /page/../status").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let started = start();
    assert!(started.request("POST /metrics").await.starts_with("HTTP/1.1 405 "));
    assert!(started.request("GET /etc/passwd").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_page_from_another_origin_can_read_nothing() {
    let started = start();
    for path in ["/metrics", "/readyz", "/status", "/healthz", "/", "/fleet.json", "/page/page.js"]
    {
        let answer = started.request_as(&format!("GET {path}"), "*/*", "evil.example:9464").await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{path}: {answer}");
        assert!(!answer.contains("fjord_"), "{answer}");
    }
}

#[tokio::test]
async fn the_listener_stops_when_cancelled() {
    let started = start();
    let _idle = TcpStream::connect(started.address).await.unwrap();
    started.stop.cancel();
    assert!(started.tasks.wait(Duration::from_secs(5)).await);
}
