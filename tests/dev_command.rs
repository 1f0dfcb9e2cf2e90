//! Promise: `fjord init` and `fjord dev` lead from an empty directory to an API that applies files as soon as they are
//! saved. After Ctrl-C, nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::support::{external_tools, fjord_binary};

mod errors;
pub(crate) mod fixture;

use fixture::{DevRun, dev, fjord, init, printed, runs};

const HELLO: &str = r#"{"language":"en","text":"Hello"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_becomes_an_api() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let checked = fjord(&["check", "--config", api.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
    assert!(printed(&checked).contains("valid for worker"), "{}", printed(&checked));

    let run = DevRun::start(home.path(), &api).await;
    assert_eq!(run.get("/v1/greeting").await, (200, HELLO.to_owned()));
    let mode = fs::metadata(&run.run).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(run.process.log().matches("error").count(), 0, "{}", run.process.log());
    for (id, line) in run.children().into_iter().filter(|(_, line)| !line.contains("guard")) {
        let addresses = listening(id);
        assert!(!addresses.is_empty(), "{line} listens");
        assert!(addresses.iter().all(|address| address.starts_with("0100007F:")), "{addresses:?}");
    }
    run.stop().await;
}

/// Returns the addresses on which a process listens, in the kernel's notation.
fn listening(id: u32) -> Vec<String> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{id}/net/{table}")).unwrap());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| {
        let columns: Vec<&str> = row.split_whitespace().collect();
        let is_own = sockets.contains(&format!("socket:[{}]", columns[9]));
        // State 0A is LISTEN.
        (columns[3] == "0A" && is_own).then(|| columns[1].to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_files_are_served() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let run = DevRun::start(home.path(), &api).await;
    let worker = run.child("--role worker");

    let endpoints = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&endpoints).unwrap();
    fs::write(&endpoints, text.replace("/v1/greeting\"", "/v1/hello\"")).unwrap();
    run.answers("/v1/hello", 200, HELLO).await;
    assert_eq!(run.get("/v1/greeting").await.0, 404);
    run.prints("endpoints/greetings.json: applied").await;

    // A procedure is changed, and an endpoint with its own procedure is added.
    fs::write(api.join("procedures/app.greeting_get.sql"), "SELECT upper(@language) AS language")
        .unwrap();
    run.answers("/v1/hello", 200, r#"{"language":"EN"}"#).await;
    fs::write(api.join("procedures/app.count.sql"), "SELECT count(*) AS number FROM greeting")
        .unwrap();
    let added = r#"{ "count": { "route": "GET /v1/count", "procedure": "app.count", "result": "value", "auth": "public" } }"#;
    fs::write(api.join("endpoints/count.json"), added).unwrap();
    run.answers("/v1/count", 200, "4").await;
    assert_eq!(run.child("--role worker"), worker, "the worker was not restarted");

    // This file is part of the configuration of both roles.
    let settings = api.join("fjord.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let text = text.replace("#[gateway]", "[gateway]\nhealth_path = \"/alive\"");
    fs::write(&settings, text).unwrap();
    run.prints("fjord.toml: changed; restarting the gateway and the worker").await;
    eventually_some("the health check", SOON, async || {
        (run.get("/alive").await.0 == 200).then_some(())
    })
    .await;
    run.answers("/v1/count", 200, "4").await;
    fs::write(api.join("schema.sql"), "-- nothing").unwrap();
    run.prints("stop, delete data/app.db, and start again").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_catalogue_is_reported_and_the_old_one_is_served() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let run = DevRun::start(home.path(), &api).await;
    let endpoints = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&endpoints).unwrap();
    let broken = text.replace("\"row\"", "\"rowz\"").replace("\"query\"", "\"cookie\"");
    fs::write(&endpoints, broken).unwrap();
    fs::write(api.join("endpoints/other.json"), r#"{ "other": { "route": "GET v1" } }"#).unwrap();
    run.prints("not applied; the previous version stays in use").await;
    let errors = run.lines("error: ");
    for part in ["rowz", "cookie", "other.json"] {
        assert!(errors.iter().any(|line| line.contains(part)), "{part} in {errors:#?}");
    }
    assert_eq!(run.get("/v1/greeting").await, (200, HELLO.to_owned()));

    // Only the gateway finds this error.
    fs::remove_file(api.join("endpoints/other.json")).unwrap();
    let unknown = r#"{ "methods": ["jwt"], "issuers": ["elsewhere"] }"#;
    fs::write(&endpoints, text.replace(r#""public""#, unknown)).unwrap();
    run.prints("no [auth.jwt.elsewhere]").await;
    assert_eq!(run.get("/v1/greeting").await, (200, HELLO.to_owned()));

    fs::write(&endpoints, text.replace("greeting\"", "greetings\"")).unwrap();
    run.answers("/v1/greetings", 200, HELLO).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_only_the_worker_finds_is_reported_and_the_old_catalogue_is_served() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let run = DevRun::start(home.path(), &api).await;
    let endpoints = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&endpoints).unwrap();
    fs::write(&endpoints, text.replace("\"row\"", "\"row\", \"handler\": \"missing\"")).unwrap();
    run.prints("not applied; the previous version stays in use").await;
    assert!(!run.lines("missing").is_empty(), "{}", run.process.log());
    assert_eq!(run.get("/v1/greeting").await, (200, HELLO.to_owned()));
    fs::write(&endpoints, text.replace("greeting\"", "hello\"")).unwrap();
    run.answers("/v1/hello", 200, HELLO).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_rejected_with_another_one_is_applied_with_the_correction() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let run = DevRun::start(home.path(), &api).await;
    let endpoints = api.join("endpoints/greetings.json");
    let (text, settings) = (fs::read_to_string(&endpoints).unwrap(), api.join("fjord.toml"));
    let configured = fs::read_to_string(&settings).unwrap();
    fs::write(&endpoints, text.replace("\"row\"", "\"rowz\"")).unwrap();
    run.prints("endpoints/greetings.json: not applied").await;
    let changed = configured.replace("#[gateway]", "[gateway]\nhealth_path = \"/alive\"");
    fs::write(&settings, changed).unwrap();
    run.prints("fjord.toml, endpoints/greetings.json: not applied").await;
    fs::write(&endpoints, &text).unwrap();
    run.prints("changed; restarting the gateway and the worker").await;
    eventually_some("the health check", SOON, async || {
        (run.get("/alive").await.0 == 200).then_some(())
    })
    .await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_no_longer_ready_is_reported() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let mut command = dev(&api);
    command.args(["--set", "messaging.nats.ping_interval=1s"]);
    let run = DevRun::start_command(home.path(), command).await;
    assert!(run.lines("not ready").is_empty(), "{}", run.process.log());
    let server = Pid::from_raw(i32::try_from(run.child("nats-server")).unwrap()).unwrap();
    kill_process(server, Signal::STOP).unwrap();
    run.prints("gateway: WARN not ready").await;
    kill_process(server, Signal::CONT).unwrap();
    run.prints("gateway: INFO ready again").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_trying_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let endpoints = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&endpoints).unwrap();
    let auth = r#"{ "methods": ["jwt"], "scopes": ["read", "greet"] }"#;
    fs::write(&endpoints, text.replace(r#""public""#, auth)).unwrap();
    let run = DevRun::start(home.path(), &api).await;
    assert_eq!(run.get("/v1/greeting").await.0, 401);
    let lines = run.lines("curl --cacert");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for file in ["token", "token.header"] {
        let mode = fs::metadata(run.run.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let token = fs::read_to_string(run.run.join("token")).unwrap();
    assert!(lines[0].contains("-H @") && !lines[0].contains(&token), "{lines:?}");
    if let Some(answer) = shell(&format!("{} --silent", lines[0])) {
        assert_eq!(answer, HELLO);
    }
    let lines = run.lines("fjord test --config");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let command = lines[0].trim().replacen("fjord", &fjord_binary().display().to_string(), 1);
    if let Some(results) = shell(&command) {
        assert!(results.contains(" passed"), "{results}");
    }
    // fjord's other commands find the running processes.
    let call =
        format!(". {}/env; {} call greeting-get", run.run.display(), fjord_binary().display());
    assert!(shell(&call).is_none_or(|answer| answer.ends_with(&format!("{HELLO}\n"))));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_documentation_the_examples_are_offered_and_the_page_is_not() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    for (access, page) in [
        ("off", None),
        ("authenticated", Some("for the endpoints that a caller may call")),
        ("public", Some("/docs\n")),
    ] {
        let home = home.path().join(access);
        fs::create_dir(&home).unwrap();
        let mut command = dev(&api);
        command.arg("--set").arg(format!("gateway.documentation={access}"));
        let run = DevRun::start_command(&home, command).await;
        assert_eq!(run.lines("fjord test --config").len(), 1, "{}", run.process.log());
        assert_eq!(run.lines("documentation: ").len(), usize::from(page.is_some()));
        assert!(page.is_none_or(|page| run.process.log().contains(page)), "{}", run.process.log());
        assert_eq!(run.get("/docs").await.0, if page.is_some() { 200 } else { 404 });
        run.stop().await;
    }
}

/// Runs a command line that may use curl. Returns `None` if curl is not installed.
fn shell(line: &str) -> Option<String> {
    external_tools::find(
        "curl",
        "curl",
        "the printed command lines",
        "install curl 7.82 or newer",
    )?;
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell is installed");
    assert!(output.status.success(), "{line}: {}", printed(&output));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_serves_the_requests_of_the_readme() {
    let home = tempfile::tempdir().unwrap();
    let register = home.path().join("config/demo");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo"), &register);
    let run = DevRun::start(home.path(), &register).await;
    let readme = include_str!("../README.md");
    let block = readme.split("```sh\n").find(|block| block.starts_with("CA=")).expect("a block");
    let block = block.split("```").next().expect("the end of the block");
    let script = block
        .replace("target/dev", run.run.to_str().unwrap())
        .replace("https://localhost:8443", &run.url())
        .replace("curl ", "curl --silent --write-out '\\n' ");
    if let Some(answers) = shell(&script) {
        let answers: Vec<Value> =
            answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(answers.len(), 3, "{answers:#?}");
        assert_eq!(answers[0]["name"], "Little Comet 4000");
        assert_eq!(answers[1].as_array().map(Vec::len), Some(3));
        assert_eq!(answers[2]["is_new"], true, "{}", answers[2]);
        let lines = run.lines("curl --cacert");
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in lines {
            let status =
                shell(&format!("{line} --silent --output /dev/null --write-out '%{{http_code}}'"));
            assert_eq!(status.as_deref(), Some("200"), "{line}");
        }
    }
    run.stop().await;
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_ends_everything() {
    for (text, name) in [("nats-server", "nats-server"), ("--role worker", "worker")] {
        let home = tempfile::tempdir().unwrap();
        let api = init(home.path());
        let mut run = DevRun::start(home.path(), &api).await;
        let children = run.children();
        let id = Pid::from_raw(i32::try_from(run.child(text)).unwrap()).unwrap();
        kill_process(id, Signal::KILL).unwrap();
        assert_eq!(run.ended().await, Some(1), "{}", run.process.log());
        let expected = format!("error: {name} has ended (signal: 9 (SIGKILL)); its last lines:");
        assert_eq!(run.lines(&expected).len(), 1, "{}", run.process.log());
        run.is_clean(&children);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let mut run = DevRun::start(home.path(), &api).await;
    let children = run.children();
    run.process.kill();
    eventually(SOON, TICK, || !children.iter().any(|(id, _)| runs(*id)) && !run.run.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_in_use_are_replaced() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = dev(&api);
    command.arg("--set").arg(format!("gateway.listen=0.0.0.0:{port}"));
    let run = DevRun::start_command(home.path(), command).await;
    assert_eq!(run.lines(&format!("port {port} is in use: the API uses port ")).len(), 1);
    assert_eq!(run.get("/v1/greeting").await.0, 200);
    // A second run in the same directory is possible, but not with the same run directory.
    let second = home.path().join("second");
    fs::create_dir(&second).unwrap();
    let other = DevRun::start(&second, &api).await;
    assert_eq!(other.get("/v1/greeting").await.0, 200);
    let output = dev(&api).arg("--run-directory").arg(&run.run).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("another process is using it"), "{}", printed(&output));
    other.stop().await;
    run.stop().await;
}
