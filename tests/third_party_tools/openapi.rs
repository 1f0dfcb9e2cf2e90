//! Promise: `/openapi.json` describes the behaviour of the gateway. schemathesis generates valid and invalid requests
//! from the document, and finds no difference. A client that is generated from the document reads typed answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::Method;

use crate::support::external_tools::{find, run, run_in};
use crate::support::fleet::{Fleet, FleetOptions};

/// The time limit for a tool.
const LIMIT: Duration = Duration::from_mins(5);
const HINT: &str = "`make openapi-tools` installs it";

/// Endpoints with every type in every place, and an endpoint whose answer is typed.
const ENDPOINTS: &str = include_str!("openapi/endpoints.json");
/// A program that calls the gateway with the generated client.
const CLIENT: &str = include_str!("openapi/client.py");

async fn fleet() -> Fleet {
    let gateway_toml = "[openapi]\ntitle = 'Kinds'\nversion = '2.1'\n".to_owned();
    let catalogue = Some(("kinds.json", ENDPOINTS));
    let gateway_keys = "documentation = 'public'";
    Fleet::start(FleetOptions { gateway_keys, catalogue, gateway_toml, ..FleetOptions::default() })
        .await
}

/// Writes the gateway's document to a file.
async fn document(fleet: &Fleet, directory: &Path) -> PathBuf {
    let answer = fleet.client().get("/openapi.json").await;
    answer.is(200);
    let file = directory.join("openapi.json");
    std::fs::write(&file, &answer.body).expect("the file can be written");
    file
}

fn url(fleet: &Fleet) -> String {
    format!("https://localhost:{}", fleet.gateways[0].https().port())
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_difference_between_document_and_gateway() {
    let what = "the OpenAPI document with schemathesis";
    let Some(tool) = find("schemathesis", "openapi-tools/bin", what, HINT) else { return };
    let fleet = fleet().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = document(&fleet, directory.path()).await;
    let report = directory.path().join("report");
    let url = url(&fleet);
    // Every HTTP server ignores headers that it does not know.
    let config = directory.path().join("schemathesis.toml");
    std::fs::write(&config, "[generation]\nallow-extra-parameters = false\n")
        .expect("the file can be written");
    let arguments = [
        "--config-file",
        config.to_str().expect("a path"),
        "run",
        file.to_str().expect("a path"),
        "--url",
        &url,
        "--tls-verify",
        fleet.certs.ca.to_str().expect("a path"),
        "--include-path-regex",
        "^/v1/kinds",
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "40",
        "--checks",
        "all",
        "--continue-on-failure",
        "--seed",
        "1",
        "--generation-database",
        "none",
        "--suppress-health-check",
        "all",
        "--report-dir",
        report.to_str().expect("a path"),
    ];
    let output = run_in(directory.path(), &tool, &arguments, LIMIT).await;
    assert!(output.contains("No issues found"), "{output}");
    assert!(!output.contains("Test cases:\n  0"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_python_client_reads_typed_answers() {
    let what = "a client that openapi-python-client generates";
    let Some(tool) = find("openapi-python-client", "openapi-tools/bin", what, HINT) else { return };
    let fleet = fleet().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = document(&fleet, directory.path()).await;
    let package = directory.path().join("kinds");
    // The generator runs without hooks, because they need a formatter.
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "post_hooks: []\n").expect("the file can be written");
    let arguments = [
        "generate",
        "--path",
        file.to_str().expect("a path"),
        "--config",
        config.to_str().expect("a path"),
        "--meta",
        "none",
        "--output-path",
        package.to_str().expect("a path"),
    ];
    let output = run(&tool, &arguments, LIMIT).await;
    assert!(package.join("client.py").is_file(), "{output}");
    assert!(!output.to_lowercase().contains("warning"), "{output}");
    let python = tool.with_file_name("python");
    let mut command = Command::new(python);
    command.args(["-c", CLIENT, &url(&fleet)]).arg(&fleet.certs.ca).current_dir(directory.path());
    let called = tokio::task::block_in_place(|| command.output().expect("Python runs"));
    let said = String::from_utf8_lossy(&called.stderr);
    assert!(called.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_and_query_are_methods_that_no_path_supports() {
    let fleet = fleet().await;
    let client = fleet.client();
    for method in ["TRACE", "QUERY"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let known = client.try_send(method.clone(), "/v1/kinds", None).await.expect("an answer");
        known.is(405);
        assert_eq!(known.headers["allow"], "POST, OPTIONS");
        client.try_send(method, "/v1/nowhere", None).await.expect("an answer").is(404);
    }
    let head = client.try_send(Method::from_bytes(b"BREW").unwrap(), "/v1/kinds", None).await;
    head.expect("an answer").is(501);
}
