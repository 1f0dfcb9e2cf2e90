//! A host with both roles, whose `systemctl` is a script.

use std::fs;
use std::process::ExitStatus;

use super::ec2;
use crate::support::aws::AwsServices;
use crate::support::eventually::SOON;
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::process::Process;

/// The path of a metadata value, and its text.
type Metadata = (&'static str, &'static str);

pub(super) const TERMINATED: Metadata = ("autoscaling/target-lifecycle-state", "Terminated");
pub(super) const INTERRUPTED: Metadata =
    ("spot/instance-action", r#"{"action": "terminate", "time": "2126-11-30T18:22:00Z"}"#);
pub(super) const REBALANCE: Metadata =
    ("events/recommendations/rebalance", r#"{"noticeTime": "2026-11-30T18:20:00Z"}"#);
/// The calls to `systemctl` that stop both roles, in order.
pub(super) const BOTH: [&str; 2] =
    ["stop --no-block fjord@gateway.service", "stop --no-block fjord@worker.service"];
pub(super) const HOOK: [&str; 4] = ["--hook", "fjord-drain", "--group", "fjord-workers"];
pub(super) const COMPLETE: &str = "CompleteLifecycleAction";
pub(super) const HEARTBEAT: &str = "RecordLifecycleActionHeartbeat";
/// A script for `systemctl stop` that stops a unit immediately. `$state` is the file that contains the state of the
/// unit.
pub(super) const STOPS: &str = "echo inactive > $state";
/// A script for `systemctl stop` of a unit that continues to process its requests.
pub(super) const STOPS_SLOWLY: &str = "echo deactivating > $state";
/// A script for `systemctl` that fails.
pub(super) const FAILS: &str = "echo 'Access denied' >&2; exit 1";

/// An endpoint whose calls a `LedgerGate` holds back.
const HELD: &str = r#"{ "held": { "route": "GET /v1/held", "procedure": "ledger.write", "result": "row", "auth": "public",
    "timeout": "60s", "parameters": {
    "ms": { "in": "query", "type": "int32", "default": 0 }, "request_id": { "in": "context" } } } }"#;
/// The command's description of an answer that the metadata service took too long to send, as happens on a busy
/// machine.
const SLOW_METADATA: &str = "no answer within 2 s (expected an EC2 instance";

/// Returns the error lines of the command, without those about slow answers of the metadata service. If a failure is
/// logged again because of such a line, it is returned only once.
pub(super) fn errors(log: &str) -> Vec<&str> {
    let mut errors = Vec::new();
    let mut follows_slow_answer = false;
    for line in log.lines().filter(|line| line.starts_with("error: ")) {
        if line.contains(SLOW_METADATA) {
            follows_slow_answer = true;
        } else if !(follows_slow_answer && errors.last() == Some(&line)) {
            errors.push(line);
            follows_slow_answer = false;
        }
    }
    errors
}

/// A host with both roles.
pub(super) struct Host {
    pub(super) fleet: Fleet,
    pub(super) aws: AwsServices,
    home: tempfile::TempDir,
}

impl Host {
    /// Starts both roles. `systemctl stop` tells the roles to stop, and the states of their units are those of their
    /// processes.
    pub(super) async fn start() -> Self {
        let catalogue = Some(("held.json", HELD));
        let fleet = Fleet::start(FleetOptions { catalogue, ..FleetOptions::default() }).await;
        let aws = AwsServices::start(&fleet.certs).await;
        aws.set(TERMINATED.0, Some("InService"));
        let home = tempfile::tempdir().expect("a temporary directory");
        let host = Self { fleet, aws, home };
        let pid = |process: &FjordProcess| process.process.pid();
        let (gateway, worker) = (pid(&host.fleet.gateways[0]), pid(&host.fleet.workers[0]));
        host.write_systemctl(
            &format!("pid={gateway}; [ $role = worker ] && pid={worker}"),
            // The parent of a process that has ended may not have noticed this yet.
            "if grep -q '^State:.[^Z]' /proc/$pid/status 2>/dev/null; then cat $state 2>/dev/null || echo active; \
             else echo inactive; fi",
            "echo deactivating > $state; kill -TERM $pid",
        );
        host
    }

    /// Replaces the roles with units that are running, have no processes, and stop immediately.
    pub(super) fn run_units(&self) {
        for role in ["gateway", "worker"] {
            self.set_unit(role, "active");
        }
        self.stop_with(STOPS);
    }

    /// Changes the effect of `systemctl stop` on the units of `run_units`.
    pub(super) fn stop_with(&self, script: &str) {
        self.write_systemctl("", "cat $state", script);
    }

    /// Makes every call to `systemctl` run this script.
    pub(super) fn break_systemctl(&self, script: &str) {
        self.write_systemctl(script, "exit 1", "exit 1");
    }

    /// Makes `systemctl` fail to report the states of the units of `run_units`, which process their requests when they are told to stop.
    pub(super) fn hide_states(&self) {
        self.write_systemctl(
            "[ $1 = show ] && { echo 'No reply' >&2; exit 1; }",
            "exit 1",
            STOPS_SLOWLY,
        );
    }

    /// Changes the state of a unit of `run_units`.
    pub(super) fn set_unit(&self, role: &str, state: &str) {
        // The script must never read a partly written file.
        let new = self.home.path().join(format!("{role}.new"));
        fs::write(&new, state).expect("the file can be written");
        fs::rename(new, self.home.path().join(role)).expect("the file can be renamed");
    }

    fn write_systemctl(&self, first: &str, show: &str, stop: &str) {
        let (home, new) = (self.home.path().display(), self.home.path().join("systemctl.new"));
        let script = format!(
            "#!/bin/sh\n\
             [ $1 = show ] || echo \"$@\" >> {home}/log\n\
             for unit; do :; done\n\
             case $unit in fjord@gateway.service) role=gateway;; fjord@worker.service) role=worker;; *) exit 5;; esac\n\
             state={home}/$role\n\
             {first}\n\
             case $1 in\n\
             show) echo LoadState=loaded; echo \"ActiveState=$({show})\";;\n\
             stop) {stop};;\n\
             *) exit 2;;\n\
             esac\n"
        );
        fs::write(&new, script).expect("the file can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&new, mode).expect("the permissions can be changed");
        fs::rename(new, self.home.path().join("systemctl")).expect("the file can be renamed");
    }

    /// Removes `systemctl`. The system may have its own `systemctl`, which is not on the command's PATH.
    pub(super) fn remove_systemctl(&self) {
        fs::remove_file(self.home.path().join("systemctl")).expect("the file can be removed");
    }

    /// Starts the command, which queries the metadata every second.
    pub(super) fn watch(&self, arguments: &[&str]) -> Process {
        self.watch_with(arguments, &[])
    }

    /// Starts the command with environment variables.
    pub(super) fn watch_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = ec2("watch", &self.aws, &self.fleet.certs).into_std();
        let tools = self.home.path().join("tools");
        if !tools.exists() {
            // This directory replaces the directories on the PATH that may contain a real `systemctl`.
            fs::create_dir(&tools).expect("the directory can be created");
            for tool in ["cat", "grep", "sh"] {
                let paths = ["/bin", "/usr/bin"].map(|directory| format!("{directory}/{tool}"));
                let path = paths.iter().find(|path| fs::exists(path).unwrap_or(false));
                let path = path.unwrap_or_else(|| panic!("no {tool}"));
                std::os::unix::fs::symlink(path, tools.join(tool)).expect("a link");
            }
        }
        let path = format!("{}:{}", self.home.path().display(), tools.display());
        command.args(["--interval", "1"]).args(arguments).env("PATH", path);
        command.envs(variables.iter().copied());
        Process::start("watch", command, &self.home.path().join("watch.log"))
    }

    /// Returns the arguments of each call to `systemctl` that stopped a unit.
    pub(super) fn stopped(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Waits until both roles have ended.
    pub(super) async fn roles_end(&mut self) -> [ExitStatus; 2] {
        let gateway = self.fleet.gateways[0].process.wait(SOON).await;
        [gateway, self.fleet.workers[0].process.wait(SOON).await]
    }
}
