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
    let write = |name: &str, from: &str| {
        let text = text(from);
        let text = text.replace("/usr/bin/fjord", binary.to_str().expect("the path is UTF-8"));
        let file = directory.join(name);
        fs::write(&file, text).expect("the file can be written");
        file
    };
    let role = |name: &str| write(&format!("fjord@{name}.service"), "systemd/fjord@.service");
    vec![
        role("gateway"),
        role("worker"),
        write("fjord-headroom.service", "systemd/fjord-headroom.service"),
        write("fjord-headroom.timer", "systemd/fjord-headroom.timer"),
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
    for unit in units(directory.path()).iter().take(3) {
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
    // systemd 219 treats unknown groups as an empty allow list, and rejects `strict`.
    assert!(value(&unit, "SystemCallFilter").starts_with('~'));
    assert!(!unit.contains("@system-service"));
    let full = unit.find("ProtectSystem=full").expect("the unit has a value for systemd 219");
    assert!(
        full < unit.find("ProtectSystem=strict").expect("the unit has a value for newer versions")
    );
}

#[test]
fn systemd_waits_longer_than_the_longest_measurement() {
    let mut publish = Command::new(fjord_binary());
    let output = publish.args(["ec2", "publish", "--interval", "0"]).output().expect("fjord runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let after = error.split("0 is not in 1..=").nth(1).expect("the permitted range");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let interval: u64 = digits.parse().expect("a number");
    let unit = text("systemd/fjord-headroom.service");
    let limit: u64 = value(&unit, "TimeoutStartSec").parse().expect("a number of seconds");
    // The connections to NATS, three queries, a second interval of at most 30 s, and three attempts with their metadata
    // and pauses take at most 100 s in total, apart from the first interval.
    assert!(limit >= interval + 100, "{limit} s, with an interval of {interval} s");
}

/// A list of names with their values.
type NamedValues = Vec<(String, String)>;

/// Returns the settings that a user-data file writes for a unit: environment variables, and files in `conf.d`.
fn settings(user_data: &str, unit: &str) -> (NamedValues, NamedValues) {
    let (mut variables, mut files) = (NamedValues::new(), NamedValues::new());
    let mut file: Option<(String, String)> = None;
    let mut is_of_unit = false;
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
        } else if let Some(path) = line.trim().strip_prefix("- path: ") {
            is_of_unit = path == format!("/etc/sysconfig/fjord-{unit}");
        } else if let Some((name, value)) = line.trim().split_once('=')
            && is_of_unit
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
        let (variables, files) = settings(&user_data, role);
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
        for name in
            ["secrets/nats-password", "secrets/nats-operator-password", "secrets/mssql-password"]
        {
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
        let here = |variables: NamedValues| {
            variables.into_iter().map(|(name, value)| (name, value.replace("/etc/fjord", home)))
        };
        let mut check = Command::new(fjord_binary());
        check.args(["check", "--role", role, "--config", home]).envs(here(variables));
        let checked = check.output().expect("fjord runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        // The variables of fjord-headroom suffice for a connection to NATS, which fails because there is no server.
        let (variables, _) = settings(&user_data, "headroom");
        assert_eq!(variables.is_empty(), role == "worker", "the gateways publish the headroom");
        if !variables.is_empty() {
            let mut publish = Command::new(fjord_binary());
            publish.args(["ec2", "publish", "--config", home]).envs(here(variables));
            let published = publish.output().expect("fjord runs");
            let error = String::from_utf8_lossy(&published.stderr).into_owned();
            assert_eq!(published.status.code(), Some(1), "{error}");
            assert!(error.contains("no connection to NATS"), "{error}");
        }
        assert!(user_data.contains(&format!("fjord@{role}.service")), "the unit of the role");
        assert!(!user_data.contains("PASSWORD="), "no secret in user-data");
    }
}
