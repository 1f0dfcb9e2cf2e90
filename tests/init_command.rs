//! Promise: `fjord init` creates a configuration that `fjord check` accepts, from nothing or from a database. It never overwrites
//! a file, and creates either all files or none.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::dev_command::fixture::{DevRun, fjord, init, printed};
use super::support::eventually::{SOON, TICK, eventually};
use super::support::fjord_binary;
use super::support::mssql_server::fake_server;
use super::support::process::Process;
use super::support::tds::PASSWORD;

fn init_mssql(directory: &Path, connection: &str) -> Output {
    let directory = directory.to_str().expect("UTF-8");
    tokio::task::block_in_place(|| fjord(&["init", directory, "--mssql", connection]))
}

/// Returns the files below a directory with their contents.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn existing_files_are_named_and_not_changed() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    fs::remove_file(api.join("schema.sql")).unwrap();
    fs::write(api.join("fjord.toml"), "# mine").unwrap();
    let before = files(home.path());
    let output = fjord(&["init", api.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = printed(&output);
    for name in [
        ".gitignore",
        "fjord.toml",
        "worker.toml",
        "endpoints/greetings.json",
        "procedures/app.greeting_get.sql",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("schema.sql"), "{text}");
    assert_eq!(files(home.path()), before);

    let output = fjord(&["init", api.join("fjord.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("fjord.toml: expected a directory"), "{}", printed(&output));
}

#[test]
fn the_next_commands_are_printed() {
    let home = tempfile::tempdir().unwrap();
    for (directory, shown) in [("api", "api"), ("my api", "'my api'")] {
        let output = Command::new(fjord_binary())
            .args(["init", directory])
            .current_dir(home.path())
            .output()
            .unwrap();
        let text = printed(&output);
        let commands = ["check --config", "dev", "test --config"];
        let commands = commands.map(|command| format!("  fjord {command} {shown}\n"));
        assert!(text.ends_with(&format!("Next:\n\n{}", commands.concat())), "{text}");
    }
    let ignored = fs::read_to_string(home.path().join("api/.gitignore")).unwrap();
    assert!(ignored.contains("/secrets/") && ignored.contains("/data/"), "{ignored}");
}

#[test]
fn a_connection_string_is_read_from_stdin() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(fjord_binary());
    command.args(["init", "api", "--mssql", "-"]).current_dir(home.path());
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fjord runs");
    // The command does not wait for the end of the input.
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(b"Server=lpc:x;Password=hunter2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let text = printed(&output);
    for part in ["User ID is missing", "Database is missing", "expected a TCP address"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    // A server that accepts connections and never answers.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let connection = format!(
        "Server=127.0.0.1,{port};Database=d;User ID=u;Password={PASSWORD};TrustServerCertificate=true"
    );
    let mut command = Command::new(fjord_binary());
    command.args(["init", "api", "--mssql", &connection]).current_dir(home.path());
    command.env("TMPDIR", &temporary);
    let mut process = Process::start("fjord init", command, &home.path().join("init.log"));
    let (_open, _) = timeout(SOON, server.accept()).await.expect("a connection").unwrap();
    assert!(files(&temporary).iter().any(|(name, _)| name.ends_with("mssql-password")));
    // SIGTERM has the same effect as Ctrl-C, which a shell may ignore for background processes.
    process.signal(Signal::TERM);
    assert!(process.wait(SOON).await.code().is_none(), "the signal ends it");
    eventually(SOON, TICK, || fs::read_dir(&temporary).unwrap().next().is_none()).await;
    assert!(!home.path().join("api").exists());
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    // Files cannot contain any data, and the signal that reports this is ignored.
    let script =
        format!("ulimit -f 0; trap '' XFSZ; exec {} init api/new", fjord_binary().display());
    let output =
        Command::new("sh").args(["-c", &script]).current_dir(home.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("cannot be created: File too large"), "{}", printed(&output));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_procedures_of_a_database_become_endpoints() {
    let server = fake_server().await.fake.expect("this is the fake server");
    let home = tempfile::tempdir().unwrap();
    let api = home.path().join("api");
    let connection = |password: &str| {
        format!(
            "Server=tcp:127.0.0.1,{};Initial Catalog=fjord;User ID=fjord;Password={password};\
             TrustServerCertificate=true;Connection Timeout=30",
            server.address.port()
        )
    };
    // Nothing is created if the database cannot be read.
    let refused = init_mssql(&api, &connection("wrong"));
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(!api.exists(), "{}", printed(&refused));
    let verified = connection(PASSWORD).replace("TrustServerCertificate=true;", "");
    let refused = init_mssql(&api, &verified);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    for part in ["certificate", "nothing was created in ", "TrustServerCertificate=true accepts it"]
    {
        assert!(printed(&refused).contains(part), "{part}: {}", printed(&refused));
    }
    let bad = init_mssql(&api, "Server=np:x;Database=d");
    assert_eq!(bad.status.code(), Some(2), "{}", printed(&bad));
    assert_eq!(printed(&bad).matches("error: --mssql: ").count(), 3, "{}", printed(&bad));

    let output = init_mssql(&api, &connection(PASSWORD));
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert!(
        printed(&output)
            .contains("note: keys of the connection string that are not used: Connection Timeout")
    );
    let secret = api.join("secrets/mssql-password");
    assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{PASSWORD}\n"));
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    for (name, content) in files(&api) {
        let has_password = String::from_utf8_lossy(&content).contains(PASSWORD);
        assert_eq!(has_password, name.ends_with("mssql-password"), "{name}");
    }
    let checked =
        tokio::task::block_in_place(|| fjord(&["check", "--config", api.to_str().unwrap()]));
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));

    // The endpoints require a token, which `fjord dev` creates.
    let run = DevRun::start(home.path(), &api).await;
    let (status, body) = run.post("/v1/application").await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["sets"], json!([[{ "name": "fjord" }]]));
    assert!(!run.lines("-H @").is_empty(), "{}", run.process.log());
    run.stop().await;
}
