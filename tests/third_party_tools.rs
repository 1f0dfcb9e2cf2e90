//! Promise: third-party test tools (nghttp2's clients, sslyze, slowhttptest) find no faults, and third-party clients
//! get every response. The tests that always run are short. `make test-hostile` also runs long variants, which take
//! minutes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::eventually::eventually_some;
use super::support::external_tools::{find, run};
use super::support::fleet::{Fleet, FleetOptions};

mod early_responses;
mod openapi;

/// The time limit for a tool. It is longer than the time that any tool takes.
const LIMIT: Duration = Duration::from_mins(10);

/// Starts a fleet with short timeouts for slow clients.
async fn fleet() -> Fleet {
    let gateway_toml =
        "header_timeout = '1s'\nbody_idle_timeout = '1s'\nbody_timeout = '2s'\n".to_owned();
    Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await
}

fn url(fleet: &Fleet, path: &str) -> String {
    format!("https://localhost:{}{path}", fleet.gateways[0].https().port())
}

/// The scale of a test.
struct Scale {
    requests: u32,
    connections: u32,
    seconds: u32,
}

const SHORT: Scale = Scale { requests: 1_000, connections: 100, seconds: 6 };
const LONG: Scale = Scale { requests: 100_000, connections: 800, seconds: 60 };

#[tokio::test(flavor = "multi_thread")]
async fn nghttp2_gets_every_response() {
    nghttp2(&SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_nghttp2_gets_every_response() {
    nghttp2(&LONG).await;
}

async fn nghttp2(scale: &Scale) {
    let hint = "on Debian, apt-get install nghttp2-client";
    let tool = |name| find(name, "nghttp2", "HTTP/2 with nghttp2's clients", hint);
    let (Some(h2load), Some(nghttp)) = (tool("h2load"), tool("nghttp")) else { return };
    let fleet = fleet().await;
    let echo = url(&fleet, "/v1/echo/a?text=hello");
    let number = scale.requests.to_string();
    for protocol in [&[][..], &["--h1"]] {
        let load = ["-n", &number, "-c", "10", "-m", "10", &echo];
        let output = run(&h2load, &[protocol, &load].concat(), LIMIT).await;
        assert!(output.contains(&format!("{number} succeeded, 0 failed, 0 errored")), "{output}");
        assert!(output.contains(&format!("status codes: {number} 2xx")), "{protocol:?}: {output}");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let body = directory.path().join("body.json");
    std::fs::write(&body, r#"{"note": "ok"}"#).expect("the file can be written");
    let body = body.to_str().expect("a path");
    let keep = url(&fleet, "/v1/keep/1");
    let (put, json) = (":method: PUT", "content-type: application/json");
    waits_for_a_100(&nghttp, &["-H", put, "-H", json, "-d", body, &keep]).await;
    let forms: &[&[&str]] = &[
        &[&echo],
        &["-m", "50", &echo],
        &["--no-dep", "-p", "5", &echo],
        &["-H", ":method: HEAD", &echo],
        &["-b", "255", &echo],
        &["-w", "1", "-W", "1", &echo],
        &["--header-table-size=0", &echo],
        &["-H", put, "-H", json, "-d", body, &keep],
        &["-H", put, "-H", json, "-d", body, "--trailer", "content-length: 9999", &keep],
        &["-H", put, "-H", json, "-d", body, "-b", "100", "--no-content-length", &keep],
    ];
    for form in forms {
        let output = run(&nghttp, &[&["-nv", "--timeout=10"], *form].concat(), LIMIT).await;
        let expected = if form.contains(&"50") { 50 } else { 1 };
        assert_eq!(output.matches(":status: 200").count(), expected, "{form:?}: {output}");
        let bad = ["PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "COMPRESSION_ERROR"];
        for bad in bad {
            assert!(!output.contains(bad), "{form:?}: {output}");
        }
    }
}

/// hyper sends no 100 over HTTP/2. nghttp waits one second for it, and the gateway's time limit for the start of the
/// body is also one second. Therefore, either final status is correct (RFC 9110 §10.1.1).
async fn waits_for_a_100(nghttp: &Path, arguments: &[&str]) {
    let output = run(nghttp, &[&["-nv", "--expect-continue"], arguments].concat(), LIMIT).await;
    assert!(output.contains(":status: 408") || output.contains(":status: 200"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slowhttptest_does_not_affect_other_clients() {
    slowhttptest(&SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make test-hostile"]
async fn long_slowhttptest_does_not_affect_other_clients() {
    slowhttptest(&LONG).await;
}

async fn slowhttptest(scale: &Scale) {
    let hint = "on Debian, apt-get install slowhttptest";
    let what = "slow headers, bodies and reading with slowhttptest";
    let Some(tool) = find("slowhttptest", "slowhttptest", what, hint) else { return };
    let fleet = fleet().await;
    let (connections, seconds) = (scale.connections.to_string(), scale.seconds.to_string());
    let common = ["-c", &connections, "-r", &connections, "-l", &seconds, "-p", "3"];
    let (echo, large) = (url(&fleet, "/v1/echo/a"), url(&fleet, "/v1/large?rows=2000"));
    let once = url(&fleet, "/v1/once");
    for mode in [
        &["-H", "-i", "1", "-u", &echo][..],
        &["-B", "-i", "1", "-s", "8192", "-f", "application/json", "-u", &once],
        &["-X", "-k", "1", "-n", "1", "-z", "32", "-w", "8", "-y", "16", "-u", &large],
    ] {
        let attack = [&common[..], mode].concat();
        let client = fleet.client();
        let (output, answered) = tokio::join!(run(&tool, &attack, LIMIT), async {
            let mut answered = 0;
            for _ in 0..20 {
                client.get("/v1/echo/a").await.is(200);
                answered += 1;
            }
            answered
        });
        assert_eq!(answered, 20, "other clients are served");
        assert!(output.contains("YES") && !output.contains("\u{1b}[1;31mNO"), "{mode:?}: {output}");
        let gone = "all connections are gone";
        eventually_some(gone, Duration::from_secs(15), async || {
            let open = fleet.gateways[0].metric("fjord_gateway_connections ").await;
            // The test's own client keeps one connection open.
            (open < 1.5).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_a_modern_server() {
    let what = "the TLS policy with sslyze";
    let hint = "`make sslyze` installs it";
    let Some(sslyze) = find("sslyze", "sslyze/bin", what, hint) else { return };
    let fleet = fleet().await;
    let target = format!("localhost:{}", fleet.gateways[0].https().port());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let found = scan(&sslyze, &target, &directory.path().join("found.json")).await;
    let result = |scan: &str| {
        let scanned = &found[scan];
        assert_eq!(scanned["status"], "COMPLETED", "{scan}: {scanned}");
        scanned["result"].clone()
    };
    let suites = |version: &str| -> Vec<String> {
        let found = result(&format!("{version}_cipher_suites"));
        let accepted = found["accepted_cipher_suites"].as_array().expect("a list").clone();
        let name = |suite: &Value| suite["cipher_suite"]["name"].as_str().map(ToOwned::to_owned);
        accepted.iter().filter_map(name).collect()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(suites(old), Vec::<String>::new(), "{old}");
    }
    for (version, prefix) in [("tls_1_2", "TLS_ECDHE_"), ("tls_1_3", "TLS_")] {
        let suites = suites(version);
        let is_modern = |suite: &String| {
            suite.starts_with(prefix) && (suite.contains("GCM") || suite.contains("CHACHA20"))
        };
        assert!(suites.len() >= 3 && suites.iter().all(is_modern), "{suites:?}");
    }
    for (scan, key, expected) in [
        ("tls_compression", "supports_compression", false),
        ("tls_1_3_early_data", "supports_early_data", false),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false),
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false),
        ("session_renegotiation", "supports_secure_renegotiation", true),
        ("tls_fallback_scsv", "supports_fallback_scsv", true),
        ("tls_extended_master_secret", "supports_ems_extension", true),
    ] {
        assert_eq!(result(scan)[key], expected, "{scan}");
    }
    let robot = &result("robot")["robot_result"];
    assert_eq!(robot, "NOT_VULNERABLE_RSA_NOT_SUPPORTED");
    let resumed = &result("session_resumption")["session_id_resumption_result"];
    assert_eq!(resumed, "FULLY_SUPPORTED", "TLS sessions can be resumed");
}

/// Runs sslyze and returns the result of each scan.
async fn scan(sslyze: &Path, target: &str, file: &Path) -> Value {
    let scans = "--sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression --early_data --ems --fallback \
                 --heartbleed --robot --openssl_ccs --reneg --resum --resum_attempts 2 --elliptic_curves";
    let mut arguments = vec![target, "--mozilla_config=disable", "--quiet", "--json_out"];
    arguments.push(file.to_str().expect("a path"));
    arguments.extend(scans.split_whitespace());
    let output = run(sslyze, &arguments, LIMIT).await;
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {output}"));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    document["server_scan_results"][0]["scan_result"].clone()
}
