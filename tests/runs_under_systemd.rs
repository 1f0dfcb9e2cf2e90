//! Promise: what is shipped for systemd and EC2 is understood there, is as tight as it can be, and fits what fjord does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fjord::config::limits::UNIT_STOP_TIMEOUT;

use super::support::fjord_binary;
use super::support::tools::{find, run};

const LIMIT: Duration = Duration::from_mins(1);
/// Ten times the exposure that `systemd-analyze security` may find: 1.2.
const EXPOSURE_MAX: &str = "12";

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(shipped(file)).expect("what is shipped")
}

fn systemd_analyze() -> Option<PathBuf> {
    find(
        "systemd-analyze",
        "systemd",
        "the units, by systemd-analyze",
        "Debian: apt-get install systemd",
    )
}

/// The units as installed, but for the paths of what they start.
fn units(directory: &Path) -> Vec<PathBuf> {
    let binary = fjord_binary();
    let lifecycle = shipped("systemd/fjord-lifecycle");
    let write = |name: &str, from: &str| {
        let text = text(from);
        let text = text.replace("/usr/bin/fjord", binary.to_str().expect("a path"));
        let text =
            text.replace("/usr/libexec/fjord/lifecycle", lifecycle.to_str().expect("a path"));
        let file = directory.join(name);
        fs::write(&file, text).expect("a file");
        file
    };
    let role = |name: &str| write(&format!("fjord@{name}.service"), "systemd/fjord@.service");
    vec![
        role("gateway"),
        role("worker"),
        write("fjord-lifecycle.service", "systemd/fjord-lifecycle.service"),
    ]
}

#[tokio::test]
async fn systemd_finds_nothing_to_say_about_the_units() {
    let Some(tool) = systemd_analyze() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    for unit in units(directory.path()) {
        let path = unit.to_str().expect("a path");
        // It says what it finds and ends with 0 all the same.
        assert_eq!(run(&tool, &["verify", "--man=no", path], LIMIT).await, "");
    }
}

#[test]
fn the_unit_is_as_tight_as_it_was() {
    let Some(tool) = systemd_analyze() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    for unit in units(directory.path()).iter().take(2) {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let output = Command::new(&tool)
            .args(["security", "--no-pager", "--offline=true", &threshold])
            .arg(unit)
            .output()
            .expect("it was just found");
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().rfind(|line| line.contains("exposure")).unwrap_or_default();
        println!("{last}");
        assert!(output.status.success(), "{said}");
    }
}

/// The value of a unit's key that counts: the last.
fn value(unit: &str, key: &str) -> String {
    let value = unit.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn the_unit_fits_what_fjord_does_on_every_systemd() {
    let unit = text("systemd/fjord@.service");
    assert_eq!(value(&unit, "TimeoutStopSec"), UNIT_STOP_TIMEOUT.as_secs().to_string());
    assert_eq!(value(&unit, "RestartPreventExitStatus"), "2 78", "errors are not tried again");
    assert_eq!(value(&unit, "LimitCORE"), "0", "what is in memory never goes to disk");
    // systemd 219 takes unknown groups for an empty list of what is allowed, and refuses `strict`.
    assert!(value(&unit, "SystemCallFilter").starts_with('~'));
    assert!(!unit.contains("@system-service"));
    let full = unit.find("ProtectSystem=full").expect("for 219");
    assert!(full < unit.find("ProtectSystem=strict").expect("for newer ones"));
}

/// Names and what stands behind them.
type Pairs = Vec<(String, String)>;

/// The settings that a user-data file writes: variables, and files of `conf.d`.
fn settings(user_data: &str) -> (Pairs, Pairs) {
    let (mut variables, mut files) = (Pairs::new(), Pairs::new());
    let mut file: Option<(String, String)> = None;
    for line in user_data.lines() {
        let is_content = line.starts_with("      ");
        if let Some((name, text)) = &mut file {
            if is_content {
                text.push_str(line);
                continue;
            }
            if !text.is_empty() {
                files.push((std::mem::take(name), std::mem::take(text)));
                file = None;
            }
        }
        if let Some(name) = line.trim().strip_prefix("- path: /etc/fjord/conf.d/") {
            file = Some((name.to_owned(), String::new()));
        } else if let Some((name, value)) = line.trim().split_once('=')
            && name.starts_with("FJORD_")
        {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    (variables, files)
}

#[test]
fn user_data_says_what_fjord_understands() {
    for role in ["gateway", "worker"] {
        let user_data = text(&format!("config/ec2/{role}.yaml"));
        let (variables, files) = settings(&user_data);
        assert!(!variables.is_empty() && (role == "gateway" || files.len() == 2), "{files:?}");
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(file, text).expect("a file");
        };
        let catalogue =
            r#"{ "a": { "route": "GET /v1/a", "procedure": "r.a", "auth": "public" } }"#;
        write("endpoints/a.json", catalogue);
        write(&format!("{role}.toml"), "");
        for (name, text) in &files {
            write(&format!("conf.d/{name}"), text);
        }
        // What runcmd gets.
        for name in [
            "tls/ca.pem",
            "tls/server.pem",
            "secrets/server.key",
            "secrets/nats-password",
            "secrets/mssql-password",
        ] {
            write(name, "x");
        }
        let home = directory.path().to_str().expect("a path");
        let here =
            variables.into_iter().map(|(name, value)| (name, value.replace("/etc/fjord", home)));
        let mut check = Command::new(fjord_binary());
        check.args(["check", "--role", role, "--config", home]).envs(here);
        let checked = check.output().expect("fjord runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert!(user_data.contains(&format!("fjord@{role}.service")), "it chooses the role");
        assert!(!user_data.contains("PASSWORD="), "no secret in user-data");
    }
}

/// A host whose metadata say that it is to go, with commands that write down how they are called.
#[tokio::test]
async fn a_host_that_is_to_go_is_drained_before_its_group_is_told() {
    let what = "the drain of an instance that is to go";
    let Some(python) = find("python3", "python/bin", what, "Debian: apt-get install python3")
    else {
        return;
    };
    if find("curl", "curl", what, "Debian: apt-get install curl").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let commands = home.path().join("bin");
    fs::create_dir(&commands).expect("a directory");
    let log = home.path().join("log");
    for name in ["systemctl", "aws"] {
        let file = commands.join(name);
        fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >> '{}'\n", log.display()))
            .expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).expect("our own file");
    }
    let port = super::support::ports::pick();
    let mut metadata = Command::new(python);
    metadata.arg(shipped("tests/support/metadata.py")).arg(port.to_string());
    let mut metadata = super::support::process::Process::start(
        "metadata",
        metadata,
        &home.path().join("metadata.log"),
    );
    let path = std::env::vars().find(|(name, _)| name == "PATH").map(|(_, path)| path);
    let path = format!("{}:{}", commands.display(), path.unwrap_or_default());
    let output = tokio::process::Command::new("sh")
        .arg(shipped("systemd/fjord-lifecycle"))
        .env("PATH", path)
        .env("METADATA", format!("http://127.0.0.1:{port}"))
        .envs([("INTERVAL", "0.1"), ("HOOK", "drain"), ("GROUP", "gateways")])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends").expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(metadata.is_running());
    assert_eq!(
        fs::read_to_string(log).expect("commands were called").lines().collect::<Vec<_>>(),
        [
            "systemctl stop fjord@gateway.service",
            "systemctl stop fjord@worker.service",
            "aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE \
             --lifecycle-hook-name drain --auto-scaling-group-name gateways --instance-id i-0123456789abcdef0",
        ]
    );
}
