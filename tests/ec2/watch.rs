//! `fjord ec2 watch` stops the roles of a host when EC2 announces that it will stop the instance.

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use fjord::lifecycle::Tasks;

use super::ec2;
use crate::support::aws::{AwsServices, MetadataMode, ServiceAnswer};
use crate::support::eventually::{SOON, TICK, eventually, for_a_while};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::process::Process;

const TERMINATED: (&str, &str) = ("autoscaling/target-lifecycle-state", "Terminated");
const INTERRUPTED: (&str, &str) =
    ("spot/instance-action", r#"{"action": "terminate", "time": "2026-11-30T18:22:00Z"}"#);
const REBALANCE: (&str, &str) =
    ("events/recommendations/rebalance", r#"{"noticeTime": "2026-11-30T18:20:00Z"}"#);

/// A host with both roles, and a `systemctl` that stops them.
struct Host {
    fleet: Fleet,
    aws: AwsServices,
    home: tempfile::TempDir,
}

impl Host {
    async fn start() -> Self {
        let fleet = Fleet::start(FleetOptions::default()).await;
        let aws = AwsServices::start(&fleet.certs).await;
        aws.set("autoscaling/target-lifecycle-state", Some("InService"));
        let home = tempfile::tempdir().expect("a temporary directory");
        let host = Self { fleet, aws, home };
        let pid = |process: &crate::support::fjord_process::FjordProcess| process.process.pid();
        let (gateway, worker) = (pid(&host.fleet.gateways[0]), pid(&host.fleet.workers[0]));
        // Like systemctl stop, sends SIGTERM and waits until the process has exited. A zombie counts as exited.
        host.write_systemctl(&format!(
            "case $2 in fjord@gateway.service) pid={gateway};; fjord@worker.service) pid={worker};; *) exit 5;; esac\n\
             kill -TERM $pid\n\
             while grep -q '^State:.[^Z]' /proc/$pid/status 2>/dev/null; do sleep 0.02; done"
        ));
        host
    }

    fn write_systemctl(&self, script: &str) {
        let file = self.home.path().join("systemctl");
        let log = self.home.path().join("log");
        fs::write(&file, format!("#!/bin/sh\necho \"$@\" >> '{}'\n{script}\n", log.display()))
            .expect("the file can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).expect("the permissions can be changed");
    }

    /// Starts the command, and waits until it has queried the metadata.
    fn watch(&self, arguments: &[&str]) -> Process {
        let mut command = ec2("watch", &self.aws, &self.fleet.certs).into_std();
        let path = std::env::vars().find(|(name, _)| name == "PATH").map(|(_, path)| path);
        let path = format!("{}:{}", self.home.path().display(), path.unwrap_or_default());
        command.args(["--interval", "1"]).args(arguments).env("PATH", path);
        Process::start("watch", command, &self.home.path().join("watch.log"))
    }

    /// Returns the arguments with which `systemctl` was called.
    fn stopped(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    async fn roles_end(&mut self) -> [ExitStatus; 2] {
        let gateway = self.fleet.gateways[0].process.wait(SOON).await;
        [gateway, self.fleet.workers[0].process.wait(SOON).await]
    }
}

const BOTH: [&str; 2] = ["stop fjord@gateway.service", "stop fjord@worker.service"];
const HOOK: [&str; 4] = ["--hook", "fjord-drain", "--group", "fjord-workers"];

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_instance_finishes_its_requests_before_the_action_is_completed() {
    let mut host = Host::start().await;
    let mut watch = host.watch(&HOOK);
    let client = host.fleet.client();
    let slow = Tasks::new().spawn(async move { client.get("/v1/slow?ms=3000").await });
    let worker = &host.fleet.workers[0];
    crate::support::eventually::eventually_some("the call runs", SOON, async || {
        (worker.metric("fjord_worker_running").await > 0.0).then_some(())
    })
    .await;
    assert!(host.stopped().is_empty(), "nothing is stopped without a notice");
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    let status = watch.wait(Duration::from_secs(20)).await;
    slow.await.expect("the request ends").is(200);
    assert!(status.success(), "{}", watch.log());
    for ended in host.roles_end().await {
        assert!(ended.success(), "{ended}");
    }
    assert_eq!(host.stopped(), BOTH);
    let accepted = host.aws.accepted();
    let [action] = &accepted[..] else { panic!("{accepted:?}") };
    for (name, value) in [
        ("Action", "CompleteLifecycleAction"),
        ("Version", "2011-01-01"),
        ("LifecycleHookName", "fjord-drain"),
        ("AutoScalingGroupName", "fjord-workers"),
        ("InstanceId", "i-0123456789abcdef0"),
        ("LifecycleActionResult", "CONTINUE"),
    ] {
        assert_eq!(action[name], value, "{action:?}");
    }
    assert!(watch.log().contains("this instance is drained without errors"), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn spot_notices_drain_the_host_once_and_the_group_is_still_answered() {
    for (path, text) in [INTERRUPTED, REBALANCE] {
        let mut host = Host::start().await;
        let mut watch = host.watch(&HOOK);
        host.aws.set(path, Some(text));
        for ended in host.roles_end().await {
            assert!(ended.success(), "{path}: {ended}");
        }
        eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
        assert!(watch.is_running(), "{path}: the group may still wait for the hook");
        assert!(host.aws.accepted().is_empty(), "{path}");
        host.aws.set(TERMINATED.0, Some(TERMINATED.1));
        let status = watch.wait(SOON).await;
        assert!(status.success(), "{path}: {}", watch.log());
        assert_eq!(host.stopped(), BOTH, "{path}: each role is stopped once");
        assert_eq!(host.aws.accepted().len(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_recommendation_can_be_ignored() {
    let mut host = Host::start().await;
    host.aws.set(REBALANCE.0, Some(REBALANCE.1));
    // systemd passes empty names if the host has no hook.
    let mut watch = host.watch(&["--ignore-rebalance", "--hook=", "--group="]);
    for_a_while(Duration::from_secs(3)).await;
    assert!(host.stopped().is_empty() && watch.is_running(), "{}", watch.log());
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    assert!(watch.wait(SOON * 2).await.success(), "{}", watch.log());
    assert_eq!(host.stopped(), BOTH);
    assert_eq!(host.aws.attempts(), 0, "there is no hook to complete");
    for ended in host.roles_end().await {
        assert!(ended.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_metadata_are_logged_once_and_a_notice_is_still_noticed() {
    let host = Host::start().await;
    host.aws.set_mode(MetadataMode::Version1);
    let mut watch = host.watch(&HOOK);
    let failure = "does not issue a session token";
    eventually(SOON, TICK, || watch.log().contains(failure)).await;
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(watch.log().matches(failure).count(), 1, "{}", watch.log());
    host.aws.set_mode(MetadataMode::Version2);
    eventually(SOON, TICK, || watch.log().contains("can be read again")).await;
    host.aws.revoke_token();
    host.aws.set(INTERRUPTED.0, Some("interrupted"));
    eventually(SOON, TICK, || watch.log().contains("spot/instance-action cannot be read")).await;
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
    assert_eq!(host.stopped(), BOTH);
    assert!(watch.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn units_that_do_not_stop_and_actions_that_are_refused_are_errors() {
    let host = Host::start().await;
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    host.write_systemctl("echo 'Unit is masked.' >&2; exit 1");
    let mut watch = host.watch(&HOOK);
    assert_eq!(watch.wait(SOON).await.code(), Some(1));
    let error =
        "error: cannot stop fjord@gateway.service: systemctl: exit status: 1: Unit is masked.";
    assert!(watch.log().contains(error), "{}", watch.log());
    assert_eq!(host.aws.accepted().len(), 1, "the group need not wait for the instance");

    host.write_systemctl("exit 0");
    host.aws.answer_with([ServiceAnswer::Refuse(403, "AccessDenied", "no")]);
    let mut watch = host.watch(&HOOK);
    assert_eq!(watch.wait(SOON).await.code(), Some(1));
    let log = watch.log();
    assert!(log.contains("must permit autoscaling:CompleteLifecycleAction"), "{log}");

    // The answer to an earlier attempt was lost.
    let gone = "No active Lifecycle Action found with instance ID i-0123456789abcdef0";
    host.aws.answer_with([ServiceAnswer::Refuse(400, "ValidationError", gone)]);
    let mut watch = host.watch(&HOOK);
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_action_is_not_completed_while_a_unit_still_stops() {
    let host = Host::start().await;
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    host.write_systemctl("sleep 60");
    let mut watch = host.watch(&[&HOOK[..], &["--stop-timeout", "1"]].concat());
    assert_eq!(watch.wait(SOON).await.code(), Some(1));
    let log = watch.log();
    for unit in ["gateway", "worker"] {
        let error = format!("cannot stop fjord@{unit}.service: systemctl has not ended within 1 s");
        assert!(log.contains(&error), "{log}");
    }
    assert!(log.contains("error: this instance is not drained"), "{log}");
    assert!(!log.contains("the roles are stopped"), "{log}");
    assert_eq!(host.aws.attempts(), 0, "the group must wait: {log}");

    // As systemd does, starts the command again.
    host.write_systemctl("exit 0");
    let mut watch = host.watch(&HOOK);
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert_eq!(host.aws.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_stop_after_a_spot_notice_is_tried_again() {
    let host = Host::start().await;
    host.write_systemctl("echo 'Connection timed out' >&2; exit 1");
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let mut watch = host.watch(&HOOK);
    eventually(SOON, TICK, || host.stopped().len() >= 6).await;
    let log = watch.log();
    assert_eq!(log.matches("cannot stop fjord@gateway.service").count(), 1, "{log}");
    assert!(!log.contains("the roles are stopped"), "{log}");
    assert!(watch.is_running(), "{log}");
    host.write_systemctl("exit 0");
    eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
    let stopped = host.stopped();
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    let status = watch.wait(SOON).await;
    assert!(status.success(), "the roles have stopped after all: {}", watch.log());
    assert!(watch.log().contains("this instance is drained without errors"), "{}", watch.log());
    assert_eq!(host.stopped(), stopped, "roles that have stopped are not stopped again");
    assert_eq!(host.aws.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_cannot_be_read_does_not_hide_the_others() {
    for (unreadable, readable) in [(INTERRUPTED, REBALANCE), (REBALANCE, INTERRUPTED)] {
        let host = Host::start().await;
        host.write_systemctl("exit 0");
        host.aws.set(unreadable.0, Some("{}"));
        let mut watch = host.watch(&HOOK);
        let failure = format!("error: the instance metadata {} cannot be read", unreadable.0);
        eventually(SOON, TICK, || watch.log().contains(&failure)).await;
        assert!(host.stopped().is_empty(), "{}", watch.log());
        host.aws.set(readable.0, Some(readable.1));
        eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
        host.aws.set(TERMINATED.0, Some(TERMINATED.1));
        assert!(watch.wait(SOON).await.success(), "{}", watch.log());
        assert_eq!(host.stopped(), BOTH);
        assert_eq!(host.aws.accepted().len(), 1);
        assert_eq!(watch.log().matches(&failure).count(), 1, "{}", watch.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_needs_a_group() {
    let mut command = std::process::Command::new(crate::support::fjord_binary());
    let output = command.args(["ec2", "watch", "--hook", "x"]).output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--group"), "{output:?}");
}
