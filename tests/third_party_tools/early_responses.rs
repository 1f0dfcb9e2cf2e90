//! Third-party clients get responses that are sent before the whole request has been read. The clients are nginx as a
//! proxy with keep-alive, curl, Python's http.client, and Node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use tempfile::TempDir;

use super::LIMIT;
use crate::support::client::install_provider;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::external_tools::{find, run};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ports;
use crate::support::process::Process;

/// The API key that the endpoint requires.
const KEY: &str = "a-key-of-the-test";
/// The hash of `KEY` in the gateway's configuration.
const KEY_SHA256: &str = "e1d4d6883a1dd0388c29b3ec3e181e56db77719d289664e2504b99162ee20030";
/// An endpoint that requires the key and accepts bodies of 2 KiB.
const GUARDED: &str = r#"{ "guarded": { "route": "POST /v1/guarded", "handler": "echo",
    "parameters": { "note": { "in": "body", "type": "string" } }, "result": "json", "timeout": "5s",
    "auth": { "methods": ["api-key"] }, "max_body": "2KiB" } }"#;

async fn fleet() -> Fleet {
    let gateway_toml = format!("[auth.api_keys.test]\nsha256 = ['{KEY_SHA256}']\n");
    let catalogue = Some(("guarded.json", GUARDED));
    Fleet::start(FleetOptions { catalogue, gateway_toml, ..FleetOptions::default() }).await
}

/// Writes a JSON file of the given size.
fn body(directory: &TempDir, bytes: usize) -> PathBuf {
    let file = directory.path().join(format!("{bytes}.json"));
    let text = format!(r#"{{"note": "{}"}}"#, "x".repeat(bytes.saturating_sub(12)));
    std::fs::write(&file, text).expect("the file can be written");
    file
}

/// An nginx reverse proxy with keep-alive connections to the gateway.
struct Nginx {
    _process: Process,
    port: u16,
    _directory: TempDir,
}

impl Nginx {
    async fn start(tool: &Path, fleet: &Fleet) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let home = directory.path().display();
        let port = ports::pick();
        let text = format!(
            "daemon off; master_process off; pid {home}/pid; error_log {home}/errors;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
             fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
             upstream fjord {{ server 127.0.0.1:{}; keepalive 16; }}\n\
             server {{ listen 127.0.0.1:{port}; client_max_body_size 64m; location / {{\n\
             proxy_pass https://fjord; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             proxy_set_header Host localhost; }} }} }}\n",
            fleet.gateways[0].https().port(),
        );
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, text).expect("the file can be written");
        let mut command = Command::new(tool);
        command.arg("-p").arg(directory.path()).arg("-e").arg(directory.path().join("errors"));
        command.arg("-c").arg(&config);
        let process = Process::start("nginx", command, &directory.path().join("log"));
        eventually_some("nginx listens", SOON, async || (!ports::is_free(port)).then_some(()))
            .await;
        Self { _process: process, port, _directory: directory }
    }
}

/// The numbers of responses to clients behind nginx, by status. `wrong` counts those with an unexpected status.
#[derive(Debug, Default)]
struct StatusCounts {
    good: AtomicUsize,
    refused: AtomicUsize,
    too_large: AtomicUsize,
    wrong: AtomicUsize,
}

async fn post(client: reqwest::Client, url: String, number: usize, counts: Arc<StatusCounts>) {
    let (key, bytes, expected, count) = match number % 4 {
        0 => ("wrong", 40_000, StatusCode::UNAUTHORIZED, &counts.refused),
        1 => (KEY, 30_000, StatusCode::PAYLOAD_TOO_LARGE, &counts.too_large),
        _ => (KEY, 1_000, StatusCode::OK, &counts.good),
    };
    let body = format!(r#"{{"note": "{}"}}"#, "x".repeat(bytes));
    let request = client.post(url).header("content-type", "application/json");
    let answer = request.header("x-api-key", key).body(body).send().await.expect("nginx responds");
    let mut status = answer.status();
    drop(answer.bytes().await);
    if expected == StatusCode::UNAUTHORIZED && status == StatusCode::TOO_MANY_REQUESTS {
        // All clients share one address, whose failed attempts are limited.
        status = expected;
    }
    if status == expected { count } else { &counts.wrong }.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_nginx_are_not_lost_to_rejected_ones() {
    behind_nginx(3_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_requests_behind_nginx_are_not_lost_to_rejected_ones() {
    behind_nginx(30_000).await;
}

async fn behind_nginx(requests: usize) {
    let hint = "on Debian, apt-get install nginx-light";
    let what = "early answers behind nginx";
    // On Debian, nginx is not on the PATH of ordinary users.
    let tool = Some(PathBuf::from("/usr/sbin/nginx")).filter(|file| file.is_file());
    let Some(tool) = tool.or_else(|| find("nginx", "nginx", what, hint)) else { return };
    let fleet = fleet().await;
    let nginx = Nginx::start(&tool, &fleet).await;
    install_provider();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://127.0.0.1:{}/v1/guarded", nginx.port);
    let (counts, tasks) = (Arc::new(StatusCounts::default()), fjord::lifecycle::Tasks::new());
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            let (client, url, counts) = (client.clone(), url.clone(), Arc::clone(&counts));
            tasks.spawn(async move {
                for number in 0..requests / 16 {
                    let (client, url) = (client.clone(), url.clone());
                    post(client, url, number + sender, Arc::clone(&counts)).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("the task ends");
    }
    println!("NGINX: {counts:?}");
    assert_eq!(counts.wrong.load(Ordering::Relaxed), 0, "{counts:?}");
    let reused = fleet.gateways[0].metric("fjord_gateway_connections ").await;
    assert!(reused > 0.5, "nginx reuses its connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_early_responses() {
    let hint = "on Debian, apt-get install curl";
    let Some(curl) = find("curl", "curl", "early answers with curl", hint) else { return };
    let fleet = fleet().await;
    let directory = TempDir::new().expect("a temporary directory");
    let url = super::url(&fleet, "/v1/guarded");
    let (right, wrong) = (format!("x-api-key: {KEY}"), "x-api-key: wrong");
    for (key, bytes, status) in [
        (wrong, 40_000, 401),
        (wrong, 1_000_000, 401),
        (&*right, 40_000, 413),
        (&*right, 20_000_000, 413),
    ] {
        let data = format!("@{}", body(&directory, bytes).display());
        // Over HTTP/2, curl does not send Expect: 100-continue unless told to.
        for (protocol, waits) in [
            ("--http1.1", "expect: 100-continue"),
            ("--http1.1", "expect:"),
            ("--http2", "expect:"),
        ] {
            let mut wrong = Vec::new();
            for _ in 0..10 {
                let json = "content-type: application/json";
                let form = ["-sk", "-o", "/dev/null", "-w", "%{http_code} %{exitcode}"];
                let sent = ["-H", key, "-H", json, "-H", waits, "--data-binary", &data, &url];
                let output = run(&curl, &[&form[..], &[protocol], &sent].concat(), LIMIT).await;
                if output != format!("{status} 0") {
                    wrong.push(output);
                }
            }
            assert!(wrong.is_empty(), "{bytes} bytes, {protocol}, {waits}: {wrong:?}");
        }
    }
}

/// A script that prints a line for each response. It sends each request completely before it reads the response.
const PYTHON: &str = r#"
import http.client, ssl, sys
port, key = int(sys.argv[1]), sys.argv[2]
context = ssl._create_unverified_context()
def connect():
    return http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
def post(connection, key, size):
    headers = {"content-type": "application/json", "x-api-key": key}
    connection.request("POST", "/v1/guarded", b'{"note": "' + b"x" * size + b'"}', headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status
for _ in range(10):
    print("large", post(connect(), key, 20_000_000))
kept = connect()
for _ in range(30):
    print("kept", post(kept, "wrong", 40_000), post(kept, key, 1_000))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn pythons_http_client_gets_early_responses() {
    let hint = "on Debian, apt-get install python3";
    let what = "early answers with Python's http.client";
    let Some(python) = find("python3", "python", what, hint) else { return };
    let fleet = fleet().await;
    let port = fleet.gateways[0].https().port().to_string();
    let output = run(&python, &["-c", PYTHON, &port, KEY], LIMIT).await;
    let expected = ["large 413\n".repeat(10), "kept 401 200\n".repeat(30)].concat();
    assert_eq!(output, expected);
}

/// The equivalent of `PYTHON` for Node.
const NODE: &str = r#"
const https = require("https");
const [port, key] = process.argv.slice(1);
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
function post(key, size) {
  return new Promise((resolve) => {
    const headers = { "content-type": "application/json", "x-api-key": key };
    const body = Buffer.from('{"note": "' + "x".repeat(size) + '"}');
    headers["content-length"] = body.length;
    const options = { host: "localhost", port, path: "/v1/guarded", method: "POST", headers, agent };
    const request = https.request(options, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    request.on("error", (error) => resolve(error.code));
    request.end(body);
  });
}
(async () => {
  for (let i = 0; i < 10; i++) console.log("large", await post(key, 20000000));
  for (let i = 0; i < 30; i++) console.log("kept", await post("wrong", 40000), await post(key, 1000));
  agent.destroy();
})();
"#;

#[tokio::test(flavor = "multi_thread")]
async fn node_gets_early_responses() {
    let hint = "https://nodejs.org";
    let Some(node) = find("node", "node", "early answers with Node", hint) else { return };
    let fleet = fleet().await;
    let port = fleet.gateways[0].https().port().to_string();
    let output = run(&node, &["-e", NODE, &port, KEY], LIMIT).await;
    let expected = ["large 413\n".repeat(10), "kept 401 200\n".repeat(30)].concat();
    assert_eq!(output, expected);
}
