//! Promise: `fjord test` reports whether the API gives the answers that the catalogue's examples expect, directly or
//! through a gateway. `--update` records the answers and leaves the rest of a file unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::dev_command::copy;
use super::dev_command::fixture::{DevRun, fjord, init, printed};
use super::import_command;
use super::support::eventually::{SOON, eventually_some};
use super::support::mssql_server::fake_server;
use super::support::process::Process;
use super::support::{fjord_binary, ports};

mod errors;
mod update;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo");

/// Runs `fjord test` with the configuration of a directory.
fn test(directory: &Path, arguments: &[&str]) -> Output {
    let directory = directory.to_str().expect("UTF-8");
    let all: Vec<&str> =
        ["test", "--config", directory].into_iter().chain(arguments.iter().copied()).collect();
    tokio::task::block_in_place(|| fjord(&all))
}

/// Starts `fjord test` with its own directory for temporary files, `tmp` in `home`.
fn start(directory: &Path, home: &Path, arguments: &[&str]) -> Process {
    fs::create_dir(home.join("tmp")).expect("a new directory");
    let mut command = Command::new(fjord_binary());
    command.arg("test").arg("--config").arg(directory).args(arguments);
    command.env("TMPDIR", home.join("tmp"));
    Process::start("fjord test", command, &home.join("test.log"))
}

async fn prints(process: &Process, text: &str) {
    eventually_some(format!("fjord test prints {text:?}"), SOON, async || {
        process.log().contains(text).then_some(())
    })
    .await;
}

async fn ends(process: &mut Process) -> ExitStatus {
    eventually_some("fjord test ends", SOON, async || process.ended()).await
}

#[track_caller]
fn has_status(output: &Output, status: i32) -> String {
    let printed = printed(output);
    assert_eq!(output.status.code(), Some(status), "{printed}");
    printed
}

/// Creates an API with one catalogue file. `examples` is the text of the examples of `greeting-get`.
fn api(home: &Path, examples: &str) -> PathBuf {
    let api = init(home);
    let text = r#"{
  "greeting-get": {
    "route": "GET /v1/greeting", "procedure": "app.greeting_get", "result": "row", "auth": "public",
    "timeout": "2s", "returns": { "language": { "type": "string" }, "text": { "type": "string" } },
    "parameters": { "language": { "in": "query", "type": "string", "maxLength": 10, "default": "en" } },
    "examples": EXAMPLES
  },
  "greeting-add": {
    "route": "POST /v1/greeting", "procedure": "app.greeting_add", "result": "value", "auth": "public",
    "parameters": { "language": { "in": "body", "type": "string" }, "text": { "in": "body", "type": "string" } },
    "examples": {
      "one more": { "parameters": { "language": "nl", "text": "Hallo" }, "answer": { "status": 200, "body": 5 } }
    }
  }
}
"#;
    let add =
        "INSERT INTO greeting VALUES (@language, @text);\nSELECT count(*) AS n FROM greeting;\n";
    fs::write(api.join("procedures/app.greeting_add.sql"), add).unwrap();
    fs::write(api.join("endpoints/greetings.json"), text.replace("EXAMPLES", examples)).unwrap();
    api
}

const GOOD: &str = r#"{ "in German": { "parameters": { "language": "de" }, "answer": { "status": 200, "body": { "language": "de", "text": "Hallo" } } } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_a_new_api_pass() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let text = has_status(&test(&api, &[]), 0);
    assert!(text.contains("passed  greeting-get/in German ("), "{text}");
    assert!(text.contains("2 examples: 2 passed ("), "{text}");
    assert!(!api.join("data").exists(), "the configured database is not created");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_demo_pass_without_a_gateway() {
    let home = tempfile::tempdir().unwrap();
    let demo = home.path().join("config/demo");
    copy(Path::new(DEMO), &demo);
    let junit = home.path().join("results.xml");
    let output = test(&demo, &["--format", "json", "--junit", junit.to_str().unwrap()]);
    has_status(&output, 0);
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let examples = document["examples"].as_array().unwrap();
    assert!(examples.len() > 30, "{}", examples.len());
    assert_eq!(document["counts"]["passed"], examples.len());
    assert!(!home.path().join("target").exists(), "the demo's database is not created");
    // Every endpoint of the demo has an example.
    let routes = fjord(&["routes", "--config", demo.to_str().unwrap()]);
    for line in String::from_utf8_lossy(&routes.stdout).lines().skip(1) {
        let id = line.split_whitespace().next().unwrap_or_default();
        let is_tested = |example: &Value| example["endpoint"] == id;
        assert!(examples.iter().any(is_tested) || !line.contains("/v1/"), "{line}");
    }

    let text = fs::read_to_string(&junit).unwrap();
    let report = roxmltree::Document::parse(&text).expect("XML");
    let suites = report.root_element();
    assert_eq!(suites.tag_name().name(), "testsuites");
    assert_eq!(suites.attribute("tests"), Some(&*examples.len().to_string()));
    assert_eq!(suites.attribute("failures"), Some("0"));
    let mut cases = report.descendants().filter(|node| node.tag_name().name() == "testcase");
    assert!(cases.any(|case| case.attribute("classname") == Some("horse-get")
        && case.attribute("name") == Some("a horse")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_demo_pass_through_a_gateway() {
    let home = tempfile::tempdir().unwrap();
    let demo = home.path().join("config/demo");
    copy(Path::new(DEMO), &demo);
    let run = DevRun::start(home.path(), &demo).await;
    let (url, ca, token) = (run.url(), run.run.join("ca.pem"), run.run.join("token"));
    let (ca, token) = (ca.to_str().unwrap(), token.to_str().unwrap());
    let text = has_status(&test(&demo, &["--url", &url, "--ca", ca, "--token-file", token]), 0);
    assert!(text.contains("passed  ownership-transfer/the same again ("), "{text}");

    // Without a credential, and with a wrong one, only the public endpoints answer.
    let filters = ["horse-get", "owner-get"];
    for (credential, detail) in [
        ("", None),
        ("wrong.token.here", Some("--token-file")),
        ("wrong-key", Some("--api-key-file")),
    ] {
        let file = home.path().join("credential");
        fs::write(&file, credential).unwrap();
        let mut arguments = vec!["--url", &url, "--ca", ca];
        arguments
            .extend(detail.map(|option| [option, file.to_str().unwrap()]).into_iter().flatten());
        arguments.extend(filters);
        let text = has_status(&test(&demo, &arguments), 1);
        assert!(text.contains("passed  horse-get/a horse ("), "{text}");
        assert!(text.contains("status: expected 200, got 401 unauthenticated"), "{text}");
        assert!(credential.is_empty() || !text.contains(credential), "{text}");
    }

    // A 401 is not recorded as an answer, and the file is not changed.
    let before = fs::read_to_string(demo.join("endpoints/owners.json")).unwrap();
    let text = has_status(&test(&demo, &["--url", &url, "--ca", ca, "--update", "owner-get"]), 1);
    assert!(
        text.contains("owner-get/an owner: not updated: the answer is 401 unauthenticated"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(demo.join("endpoints/owners.json")).unwrap(), before);

    // This authority did not sign the certificate.
    let foreign = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/short.pem");
    let arguments = ["--url", &url, "--ca", foreign, "horse-get"];
    let text = has_status(&test(&demo, &arguments), 1);
    assert!(text.contains("certificate"), "{text}");
    assert!(text.contains("; examples without a result: 4\n"), "{text}");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_is_reported() {
    let home = tempfile::tempdir().unwrap();
    let examples = r#"{
      "wrong text": { "parameters": { "language": "fr" }, "answer": { "status": 200, "body": { "language": "fr", "text": "Salut" } } },
      "wrong status": { "parameters": { "language": "xx" }, "answer": { "status": 200 } },
      "wrong header": { "answer": { "status": 200, "headers": { "Content-Type": "text/csv", "X-Request-Id": { "$any": "uuid" } } } },
      "no answer yet": {}
    }"#;
    let api = api(home.path(), examples);
    let junit = home.path().join("results.xml");
    let text = has_status(&test(&api, &["--junit", junit.to_str().unwrap()]), 1);
    for line in [
        "FAILED  greeting-get/wrong text (",
        "          /text: expected \"Salut\", got \"Bonjour\"\n",
        "          status: expected 200, got 404 no-row\n",
        "          header Content-Type: expected \"text/csv\", got \"application/json\"\n",
        "          answer: expected the catalogue to contain an answer (--update adds it), got 200\n",
        "passed  greeting-add/one more (",
        "5 examples: 1 passed, 4 failed (",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let xml = fs::read_to_string(&junit).unwrap();
    let report = roxmltree::Document::parse(&xml).expect("XML");
    let failures: Vec<roxmltree::Node<'_, '_>> =
        report.descendants().filter(|node| node.tag_name().name() == "failure").collect();
    assert_eq!(failures.len(), 4);
    assert_eq!(
        failures[0].attribute("message"),
        Some("/text: expected \"Salut\", got \"Bonjour\"")
    );
    assert_eq!(report.root_element().attribute("failures"), Some("4"));

    let output = test(&api, &["--format", "json", "greeting-get/wrong *"]);
    has_status(&output, 1);
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(document["counts"], json!({ "passed": 0, "failed": 3, "error": 0, "skipped": 0 }));
    let difference = &document["examples"][0]["differences"][0];
    assert_eq!(
        *difference,
        json!({ "place": "/text", "expected": "\"Salut\"", "actual": "\"Bonjour\"" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_from_returns_fails_and_an_undeclared_member_is_noted() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), r#"{ "any": { "answer": { "status": 200 } } }"#);
    let procedure = api.join("procedures/app.greeting_get.sql");
    fs::write(
        &procedure,
        "SELECT language, text, 1 AS more FROM greeting WHERE language = @language",
    )
    .unwrap();
    let text = has_status(&test(&api, &["greeting-get"]), 0);
    assert!(text.contains("    note: /more: `returns` does not declare this member\n"), "{text}");
    fs::write(&procedure, "SELECT language, 7 AS text FROM greeting WHERE language = @language")
        .unwrap();
    let text = has_status(&test(&api, &["greeting-get", "--update"]), 1);
    assert!(text.contains("          /text: `returns` says string, found a number\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_database_is_changed_only_on_request() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    for _ in 0..2 {
        has_status(&test(&api, &[]), 0);
    }
    assert!(!api.join("data/app.db").exists());
    fs::create_dir(api.join("data")).unwrap();
    has_status(&test(&api, &["--in-place"]), 0);
    let text = has_status(&test(&api, &["--in-place", "greeting-add"]), 1);
    assert!(text.contains("status: expected 200, got 409 conflict"), "{text}");

    // If there is no schema, the database is copied.
    let worker = api.join("worker.toml");
    let settings = fs::read_to_string(&worker).unwrap();
    fs::write(&worker, settings.replace("schema = ", "#schema = ")).unwrap();
    fs::write(
        api.join("procedures/app.greeting_add.sql"),
        "DELETE FROM greeting WHERE language <> @language OR text <> @text;\nSELECT 5 AS n;",
    )
    .unwrap();
    for _ in 0..2 {
        has_status(&test(&api, &[]), 0);
    }
    assert_eq!(leftovers(), [""; 0]);
    fs::remove_dir_all(api.join("data")).unwrap();
    let text = has_status(&test(&api, &[]), 1);
    assert!(
        text.contains("error: database default: ") && text.contains("/app.db does not exist\n"),
        "{text}"
    );
}

/// Returns the directories that earlier runs of this process's children have not removed.
fn leftovers() -> Vec<String> {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let is_old = |name: &String| {
        let path = std::env::temp_dir().join(name);
        let is_test = name.starts_with("fjord-test-");
        // Other tests run at the same time, and their directories are locked.
        is_test
            && fs::File::open(path.join(".fjord-run-lock"))
                .is_ok_and(|lock| lock.try_lock().is_ok())
    };
    names.filter(is_old).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_run_and_removes_the_databases() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let home = tempfile::tempdir().unwrap();
        let api = api(home.path(), GOOD);
        let add = "SELECT sleep_ms(60000), length(@language || @text);\n";
        fs::write(api.join("procedures/app.greeting_add.sql"), add).unwrap();
        let junit = home.path().join("results.xml");
        let arguments = ["--update", "--junit", junit.to_str().unwrap()];
        let mut process = start(&api, home.path(), &arguments);
        prints(&process, "passed  greeting-get/in German (").await;
        let databases = || fs::read_dir(home.path().join("tmp")).unwrap().count();
        assert_eq!(databases(), 1);
        process.signal(signal);
        let status = ends(&mut process).await;
        assert_eq!(status.code(), Some(1), "{signal:?}: {}", process.log());
        assert_eq!(databases(), 0, "{signal:?}");
        for line in [
            "1 example: 1 passed (",
            "error: stopped by a signal; examples without a result: 1; no file was updated\n",
        ] {
            assert!(process.log().contains(line), "{}", process.log());
        }
        let xml = fs::read_to_string(&junit).unwrap();
        assert!(xml.contains("tests=\"2\"") && xml.contains("errors=\"1\""), "{xml}");
        let (_, error) = xml.split_once("<error message=\"").expect("an error");
        assert!(error.starts_with("stopped by a signal; examples without a result: 1"), "{xml}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_too_slow_ends() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let catalogue = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&catalogue).unwrap();
    fs::write(&catalogue, text.replace("\"2s\"", "\"200ms\"")).unwrap();
    fs::write(
        api.join("procedures/app.greeting_get.sql"),
        "SELECT sleep_ms(60000), language, text FROM greeting WHERE language = @language",
    )
    .unwrap();
    let text = has_status(&test(&api, &["greeting-get"]), 1);
    assert!(text.contains("status: expected 200, got 504 "), "{text}");
    let text = has_status(&test(&api, &["greeting-get", "--update"]), 1);
    assert!(text.contains("not updated: the answer is 504 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_the_worker_does_not_serve_are_skipped() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let worker = api.join("worker.toml");
    let text = fs::read_to_string(&worker).unwrap();
    fs::write(&worker, text.replace("worker.queues.\"*\"", "worker.queues.greeting-get")).unwrap();
    let text = has_status(&test(&api, &[]), 0);
    assert!(text.contains("skipped greeting-add/one more ("), "{text}");
    assert!(text.contains("2 examples: 1 passed, 1 skipped ("), "{text}");
    let text = has_status(&test(&api, &["greeting-add"]), 2);
    let reason = "every example was skipped: greeting-add/one more: worker.queues contains no queue of the endpoint";
    assert!(text.contains(reason), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_run_on_sql_server() {
    let endpoint = fake_server().await.fake.expect("this is the fake server");
    let directory = import_command::directory(&import_command::on_endpoint(&endpoint));
    let path = directory.path();
    let catalogue = r#"{ "application": {
      "route": "GET /v1/application", "procedure": "fjord_test.application", "auth": "public", "result": "row",
      "examples": {
        "one": { "answer": { "status": 200, "body": { "name": "fjord" } } },
        "two": { "answer": { "status": 200, "body": { "name": "other" } } } } } }"#;
    fs::write(path.join("endpoints/a.json"), catalogue).unwrap();
    let text = has_status(&test(path, &[]), 1);
    assert!(text.contains("passed  application/one ("), "{text}");
    assert!(text.contains("          /name: expected \"other\", got \"fjord\"\n"), "{text}");

    let worker = fs::read_to_string(path.join("worker.toml")).unwrap();
    let port = format!("port = {}", endpoint.address.port());
    fs::write(
        path.join("worker.toml"),
        worker.replace(&port, &format!("port = {}", ports::pick())),
    )
    .unwrap();
    let text = has_status(&test(path, &[]), 1);
    assert!(text.contains("error: database default: "), "{text}");
}
