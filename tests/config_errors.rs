//! Promise: a role whose configuration has errors reports each error on one line, binds no address and exits with status 78.
//! `fjord check` reports the same errors and exits with status 2.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::support::fjord_binary;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(directory);
    command.output().expect("fjord runs")
}

fn directory_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(directory.path().join("endpoints")).expect("the directory can be created");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("the file can be written");
    }
    directory
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const BROKEN: &str = "[gateway]\nlisten = 'nowhere'\nhost = ['a']\n[messaging.nats]\nservers = []\n\
                      password = 'hunter2'\nping_interval = '5'\n";

#[test]
fn a_role_reports_all_errors_and_exits_with_78() {
    let directory = directory_with(&[("gateway.toml", BROKEN)]);
    let output = run(directory.path(), &["--role", "gateway"]);
    assert_eq!(output.status.code(), Some(78));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "gateway.listen",
        "gateway.host",
        "messaging.nats.servers",
        "messaging.nats.ping_interval",
        "gateway.toml",
    ] {
        assert!(stderr.contains(expected), "{expected} is missing in:\n{stderr}");
    }
    assert!(!stderr.contains("hunter2"), "a secret is in:\n{stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("error: ")), "{stderr}");
    let checked = run(directory.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(2));
    let checked = String::from_utf8_lossy(&checked.stderr).into_owned();
    let (warnings, errors): (Vec<_>, Vec<_>) =
        sorted(&checked).into_iter().partition(|line| line.starts_with("warning: "));
    assert_eq!(errors, sorted(&stderr));
    assert_eq!(warnings.len(), 1, "the password in the file: {warnings:?}");
}

#[test]
fn check_reports_all_errors_of_the_catalogue() {
    let catalogue = r#"{
        "a": { "route": "GET /v1/{x}", "procedure": "s.a", "auth": "public" },
        "b": { "route": "GET /v1/{y}", "procedure": "nodot", "auth": "public",
               "parameters": { "y": { "in": "path", "type": "strin" } } } }"#;
    let directory = directory_with(&[("fjord.toml", ""), ("endpoints/broken.json", catalogue)]);
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for expected in ["broken.json", "endpoint \"a\"", "procedure", "strin"] {
        assert!(stderr.contains(expected), "{expected} is missing in:\n{stderr}");
    }
}

#[test]
fn a_body_larger_than_a_clients_share_of_memory_is_an_error() {
    let catalogue = r#"{
        "small": { "route": "PUT /v1/small", "procedure": "s.a", "auth": "public", "max_body": "2MiB" },
        "large": { "route": "PUT /v1/large", "procedure": "s.a", "auth": "public", "max_body": "3MiB" } }"#;
    let limits = "[gateway]\nlisten = '127.0.0.1:0'\ninsecure_plain_text = true\n\
                  [gateway.http]\nbuffered_bytes_per_client_max = '4MiB'\n\
                  [gateway.session]\nanswer_bytes_max = '1MiB'\n\
                  [messaging.nats]\nservers = ['nats://n:4222']\ninsecure_plain_text = true\n";
    let directory = directory_with(&[("gateway.toml", limits), ("endpoints/all.json", catalogue)]);
    let expected = "endpoint \"large\": max_body: expected at most half of gateway.http.buffered_bytes_per_client_max \
                    (2097152 bytes)";
    for (arguments, code) in [(&["check"][..], 2), (&["--role", "gateway"], 78)] {
        let output = run(directory.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error")).collect();
        assert!(errors.len() == 1 && errors[0].ends_with(expected), "{stderr}");
    }
}

#[test]
fn check_warns_about_a_public_endpoint_that_writes() {
    let catalogue = r#"{
        "look": { "route": "GET /v1/look", "handler": "echo", "auth": "public" },
        "write": { "route": "POST /v1/write", "handler": "echo", "auth": "public" } }"#;
    let directory = directory_with(&[("fjord.toml", ""), ("endpoints/open.json", catalogue)]);
    let output = run(directory.path(), &["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(
        stderr.lines().collect::<Vec<_>>(),
        ["warning: endpoint \"write\" writes (POST) and is public"]
    );
}

#[test]
fn a_schema_that_cannot_be_compared_is_a_warning() {
    let catalogue = r#"{ "look": { "route": "GET /v1/look", "handler": "echo", "auth": "public", "result": "sets",
        "returns": [{ "n": { "type": "json", "schema": { "type": "string", "pattern": "^(?!x)" } } }] } }"#;
    let directory = directory_with(&[("fjord.toml", ""), ("endpoints/look.json", catalogue)]);
    let output = run(directory.path(), &["check"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let start = "warning: endpoint \"look\": returns[0].n.schema: answers are not compared with it: /pattern: ";
    assert!(stderr.starts_with(start) && stderr.contains("look-around"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_missing_default_directory_is_explained_to_roles_and_by_check() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["--role", "gateway"][..], &["check", "--role", "worker"]] {
        let output = Command::new(fjord_binary())
            .args(arguments)
            .env_remove("FJORD_CONFIG")
            .current_dir(home.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let hint = "is not a directory: --config or FJORD_CONFIG names another one";
        let lines = stderr.lines().filter(|line| line.ends_with(hint));
        assert_eq!(lines.count(), 1, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("/endpoints"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_configuration_without_a_directory_is_complete_if_other_layers_name_everything() {
    let endpoint =
        r#"{"a": {"route": "GET /a", "handler": "echo", "result": "json", "auth": "public"}}"#;
    let home = directory_with(&[("endpoints/a.json", endpoint)]);
    let endpoints = home.path().join("endpoints");
    let output = Command::new(fjord_binary())
        .args(["routes", "--set", &format!("catalogue.directory={}", endpoints.display())])
        .env_remove("FJORD_CONFIG")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn neither_role_nor_command_is_a_usage_error() {
    let output = Command::new(fjord_binary()).output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(fjord_binary()).arg("--rol").output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(2));
}

/// A catalogue with three queues of one database, and a fourth queue that needs no connection.
const QUEUES: &str = r#"{
    "a": { "route": "GET /v1/a", "procedure": "s.a", "auth": "public" },
    "b": { "route": "GET /v1/b", "procedure": "s.b", "auth": "public" },
    "c": { "route": "GET /v1/c", "procedure": "s.c", "auth": "public" },
    "d": { "route": "GET /v1/d", "handler": "echo", "auth": "public" } }"#;

#[test]
fn the_number_of_connections_is_reported_and_too_few_cause_a_warning() {
    let database = "[messaging.nats]\nservers = ['tls://n:4222']\n[worker.queues.'*']\nconcurrency = 100\n\
                    [worker.queues.c]\nconcurrency = 10\napplication_name = 'reports'\n\
                    [procedures.databases.default]\nbackend = 'mssql'\n\
                    [procedures.databases.default.mssql]\nhost = 'h'\ndatabase = 'd'\nuser = 'u'\npassword = 'p'\n";
    let directory = directory_with(&[("worker.toml", database), ("endpoints/all.json", QUEUES)]);
    let enough = "database default: at most 210 connections for 3 queues that can run 210 calls concurrently \
                  (200 as \"fjord\", 10 as \"reports\")";
    for (command, line) in
        [("check", format!("worker: {enough}")), ("config", format!("# {enough}"))]
    {
        let output = run(directory.path(), &[command, "--role", "worker"]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.lines().any(|one| one == line), "{command}: {stdout}");
        assert_eq!(output.status.code(), Some(0));
    }
    let few = [
        "check",
        "--role",
        "worker",
        "--set",
        "procedures.databases.default.mssql.connections_max=21",
    ];
    let output = run(directory.path(), &few);
    let short = "warning: worker: database default: at most 21 connections for 3 queues that can run 210 calls concurrently \
                 (20 as \"fjord\", 1 as \"reports\"): further calls wait for a connection (connections_max)";
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.lines().any(|one| one == short), "{stderr}");
    assert_eq!(output.status.code(), Some(0), "a warning is not an error");
}
