//! Promise: the shipped files for systemd and EC2 are valid, as restrictive as possible, and consistent with fjord's
//! settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fjord::config::limits::UNIT_STOP_TIMEOUT;

use super::support::certs::Certs;
use super::support::external_tools::{find, run};
use super::support::fjord_binary;

const LIMIT: Duration = Duration::from_mins(1);
/// The highest exposure that `systemd-analyze security` may report, times ten: 1.2.
const EXPOSURE_MAX: &str = "12";

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(shipped(file)).expect("the shipped file can be read")
}

fn systemd_analyze() -> Option<PathBuf> {
    find(
        "systemd-analyze",
        "systemd",
        "the check of the units with systemd-analyze",
        "Debian: apt-get install systemd",
    )
}

/// Writes the shipped units, with the paths of the executables under test.
fn units(directory: &Path) -> Vec<PathBuf> {
    let binary = fjord_binary();
    let lifecycle = shipped("systemd/fjord-lifecycle");
    let write = |name: &str, from: &str| {
        let text = text(from);
        let text = text.replace("/usr/bin/fjord", binary.to_str().expect("the path is UTF-8"));
        let text = text.replace(
            "/usr/libexec/fjord/lifecycle",
            lifecycle.to_str().expect("the path is UTF-8"),
        );
        let file = directory.join(name);
        fs::write(&file, text).expect("the file can be written");
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
async fn systemd_analyze_reports_nothing_about_the_units() {
    let Some(tool) = systemd_analyze() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for unit in units(directory.path()) {
        let path = unit.to_str().expect("the path is UTF-8");
        // systemd-analyze exits with 0 even if it reports problems.
        assert_eq!(run(&tool, &["verify", "--man=no", path], LIMIT).await, "");
    }
}

#[test]
fn the_exposure_of_the_unit_does_not_grow() {
    let Some(tool) = systemd_analyze() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for unit in units(directory.path()).iter().take(2) {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let output = Command::new(&tool)
            .args(["security", "--no-pager", "--offline=true", &threshold])
            .arg(unit)
            .output()
            .expect("the tool can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().rfind(|line| line.contains("exposure")).unwrap_or_default();
        println!("{last}");
        assert!(output.status.success(), "{text}");
    }
}

/// Returns the effective value of a unit's key, which is its last value.
fn value(unit: &str, key: &str) -> String {
    let value = unit.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn the_unit_is_consistent_with_fjord_and_valid_on_every_systemd() {
    let unit = text("systemd/fjord@.service");
    assert_eq!(value(&unit, "TimeoutStopSec"), UNIT_STOP_TIMEOUT.as_secs().to_string());
    assert_eq!(
        value(&unit, "RestartPreventExitStatus"),
        "2 78",
        "configuration errors are not retried"
    );
    assert_eq!(value(&unit, "LimitCORE"), "0", "memory is never dumped to disk");
    // systemd 219 treats unknown groups as an empty allow list and rejects `strict`.
    assert!(value(&unit, "SystemCallFilter").starts_with('~'));
    assert!(!unit.contains("@system-service"));
    let full = unit.find("ProtectSystem=full").expect("the unit has a value for systemd 219");
    assert!(
        full < unit.find("ProtectSystem=strict").expect("the unit has a value for newer versions")
    );
}

/// A list of names with their values.
type NamedValues = Vec<(String, String)>;

/// Returns the settings that a user-data file writes: environment variables, and files in `conf.d`.
fn settings(user_data: &str) -> (NamedValues, NamedValues) {
    let (mut variables, mut files) = (NamedValues::new(), NamedValues::new());
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
fn settings_in_user_data_are_valid() {
    for role in ["gateway", "worker"] {
        let user_data = text(&format!("config/ec2/{role}.yaml"));
        let (variables, files) = settings(&user_data);
        assert!(!variables.is_empty() && (role == "gateway" || files.len() == 2), "{files:?}");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().expect("the directory can be created"))
                .expect("a directory");
            fs::write(file, text).expect("the file can be written");
        };
        let catalogue =
            r#"{ "a": { "route": "GET /v1/a", "procedure": "r.a", "auth": "public" } }"#;
        write("endpoints/a.json", catalogue);
        write(&format!("{role}.toml"), "");
        for (name, text) in &files {
            write(&format!("conf.d/{name}"), text);
        }
        // runcmd downloads these files.
        for name in ["secrets/nats-password", "secrets/mssql-password"] {
            write(name, "x");
        }
        let certs = Certs::new(&directory.path().join("issued"));
        for (from, name) in [
            (&certs.ca, "tls/ca.pem"),
            (&certs.server.certificate, "tls/server.pem"),
            (&certs.server.key, "secrets/server.key"),
        ] {
            write(name, &fs::read_to_string(from).expect("the file can be read"));
        }
        let home = directory.path().to_str().expect("the path is UTF-8");
        let here =
            variables.into_iter().map(|(name, value)| (name, value.replace("/etc/fjord", home)));
        let mut check = Command::new(fjord_binary());
        check.args(["check", "--role", role, "--config", home]).envs(here);
        let checked = check.output().expect("fjord runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert!(user_data.contains(&format!("fjord@{role}.service")), "the unit of the role");
        assert!(!user_data.contains("PASSWORD="), "no secret in user-data");
    }
}

/// Runs the lifecycle script against a metadata service that announces termination. `systemctl` and `aws` are replaced by
/// scripts that record their arguments.
#[tokio::test]
async fn a_terminating_host_is_drained_before_the_lifecycle_action_completes() {
    let what = "the drain of a terminating instance";
    let Some(python) = find("python3", "python/bin", what, "Debian: apt-get install python3")
    else {
        return;
    };
    if find("curl", "curl", what, "Debian: apt-get install curl").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let commands = home.path().join("bin");
    fs::create_dir(&commands).expect("the directory can be created");
    let log = home.path().join("log");
    for name in ["systemctl", "aws"] {
        let file = commands.join(name);
        fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >> '{}'\n", log.display()))
            .expect("the file can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).expect("the permissions can be changed");
    }
    let port = super::support::ports::pick();
    let mut metadata = Command::new(python);
    metadata.arg(shipped("tests/support/python_metadata.py")).arg(port.to_string());
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
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .expect("the process ends")
        .expect("the command runs");
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
