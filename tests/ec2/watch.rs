//! `fjord ec2 watch` stops the roles of a host when EC2 announces that it will stop the instance.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use fjord::lifecycle::Tasks;

use super::host::{
    BOTH, COMPLETE, FAILS, HEARTBEAT, HOOK, Host, INTERRUPTED, REBALANCE, STOPS, TERMINATED, errors,
};
use crate::support::aws::MetadataMode;
use crate::support::eventually::{SOON, TICK, eventually, eventually_some, for_a_while};
use crate::support::ledger_gate::LedgerGate;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_instance_finishes_its_requests_before_the_action_is_completed() {
    let mut host = Host::start().await;
    let mut watch = host.watch(&HOOK);
    let client = host.fleet.client();
    let worker = &host.fleet.workers[0];
    let gate = LedgerGate::close(worker);
    let held = Tasks::new().spawn(async move { client.get("/v1/held").await });
    eventually_some("the call runs", SOON, async || {
        (worker.metric("fjord_worker_running").await > 0.0).then_some(())
    })
    .await;
    assert!(host.stopped().is_empty(), "nothing is stopped without a notice");
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    let heartbeats = || host.aws.accepted_for(HEARTBEAT);
    eventually(SOON, TICK, || !host.stopped().is_empty() && !heartbeats().is_empty()).await;
    for_a_while(Duration::from_secs(3)).await;
    assert!(watch.is_running() && !held.is_finished(), "{}", watch.log());
    assert_eq!(host.stopped(), BOTH[..1], "the worker runs as long as the gateway has requests");
    assert!(host.aws.accepted_for(COMPLETE).is_empty(), "{}", watch.log());
    gate.open();
    held.await.expect("the request ends").is(200);
    let status = watch.wait(SOON * 2).await;
    assert!(status.success(), "{}", watch.log());
    for ended in host.roles_end().await {
        assert!(ended.success(), "{ended}");
    }
    assert_eq!(host.stopped(), BOTH);
    let accepted = host.aws.accepted_for(COMPLETE);
    let [action] = &accepted[..] else { panic!("{accepted:?}") };
    for (name, value) in [
        ("Version", "2011-01-01"),
        ("LifecycleHookName", "fjord-drain"),
        ("AutoScalingGroupName", "fjord-workers"),
        ("InstanceId", "i-0123456789abcdef0"),
        ("LifecycleActionResult", "CONTINUE"),
    ] {
        assert_eq!(action[name], value, "{action:?}");
    }
    let heartbeats = host.aws.accepted_for(HEARTBEAT);
    assert!(!heartbeats.is_empty(), "the group knows that the drain goes on");
    for heartbeat in heartbeats {
        for name in ["Version", "LifecycleHookName", "AutoScalingGroupName", "InstanceId"] {
            assert_eq!(heartbeat[name], action[name], "{heartbeat:?}");
        }
    }
    let end = "this instance is drained, and the action of hook fjord-drain of group fjord-workers is completed";
    assert!(watch.log().contains(end), "{}", watch.log());
    assert_eq!(errors(&watch.log()), Vec::<&str>::new());
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
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1, "{path}");
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
    host.run_units();
    host.aws.set_mode(MetadataMode::Version1);
    let mut watch = host.watch(&HOOK);
    let failure = "does not issue a session token";
    eventually(SOON, TICK, || watch.log().contains(failure)).await;
    for_a_while(Duration::from_secs(3)).await;
    let log = watch.log();
    let of_failure = errors(&log).iter().filter(|line| line.contains(failure)).count();
    assert_eq!(of_failure, 1, "{log}");
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
async fn a_failed_stop_after_a_spot_notice_is_tried_again() {
    for failure in ["echo 'Access denied' >&2; exit 1", "exit 5", "kill -9 $$"] {
        let host = Host::start().await;
        host.run_units();
        host.stop_with(failure);
        host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
        let mut watch = host.watch(&HOOK);
        eventually(SOON, TICK, || host.stopped().len() >= 6).await;
        let log = watch.log();
        assert_eq!(log.matches("cannot stop fjord@gateway.service").count(), 1, "{log}");
        assert!(!log.contains("the roles are stopped"), "{log}");
        assert!(watch.is_running(), "{log}");
        host.stop_with(STOPS);
        eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
        let stopped = host.stopped();
        host.aws.set(TERMINATED.0, Some(TERMINATED.1));
        let status = watch.wait(SOON).await;
        assert!(status.success(), "the roles have stopped after all: {}", watch.log());
        assert_eq!(host.stopped(), stopped, "roles that have stopped are not stopped again");
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_unit_begins_when_it_is_told_to_stop() {
    let host = Host::start().await;
    host.run_units();
    host.stop_with(FAILS);
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let watch = host.watch(&["--stop-timeout", "4"]);
    eventually(SOON, TICK, || !host.stopped().is_empty()).await;
    for_a_while(Duration::from_secs(5)).await;
    host.stop_with(STOPS);
    eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
    let log = watch.log();
    assert!(log.contains("cannot stop fjord@gateway.service"), "{log}");
    assert!(!log.contains("has not stopped within"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_state_cannot_be_read_is_told_to_stop_and_its_time_begins() {
    let host = Host::start().await;
    host.run_units();
    host.hide_states();
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let watch = host.watch(&["--stop-timeout", "3"]);
    let unreadable =
        "cannot read the state of fjord@gateway.service: systemctl: exit status: 1: No reply";
    eventually(SOON, TICK, || watch.log().contains(unreadable)).await;
    assert!(!watch.log().contains("is not known to have stopped"), "{}", watch.log());
    let late = "fjord@gateway.service is not known to have stopped within 3 s";
    eventually(SOON, TICK, || watch.log().contains(late)).await;
    assert!(BOTH.iter().all(|call| host.stopped().iter().any(|told| told == call)));
    assert!(!watch.log().contains("cannot stop"), "{}", watch.log());
    for role in ["gateway", "worker"] {
        host.set_unit(role, "inactive");
    }
    host.stop_with(STOPS);
    eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_cannot_be_read_does_not_hide_the_others() {
    for (unreadable, readable) in [(INTERRUPTED, REBALANCE), (REBALANCE, INTERRUPTED)] {
        let host = Host::start().await;
        host.run_units();
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
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
        let log = watch.log();
        let of_failure = errors(&log).iter().filter(|line| line.starts_with(&failure)).count();
        assert_eq!(of_failure, 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_run_again_are_stopped_while_a_notice_stands() {
    let host = Host::start().await;
    host.run_units();
    let mut watch = host.watch(&HOOK);
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let stops = |count: usize| {
        let (watch, host) = (&watch, &host);
        eventually(SOON, TICK, move || {
            watch.log().matches("the roles are stopped").count() == count
                && host.stopped().len() == 2 * count
        })
    };
    stops(1).await;
    // This happens, for example, if the package is upgraded or if user-data starts the roles late.
    host.run_units();
    stops(2).await;
    assert!(watch.log().contains("the roles are running again: stopping them"), "{}", watch.log());
    // The interruption is cancelled, and the roles are started.
    host.aws.set(INTERRUPTED.0, None);
    eventually(SOON, TICK, || watch.log().contains("this notice is no longer in effect")).await;
    host.run_units();
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(host.stopped().len(), 4, "roles run without a notice: {}", watch.log());
    // The same notice is published again.
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    stops(3).await;
    assert!(watch.is_running(), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_that_is_over_does_not_stop_the_roles() {
    let host = Host::start().await;
    host.run_units();
    let notice = |seconds: i64| {
        let time = (Utc::now() + TimeDelta::seconds(seconds)).format("%Y-%m-%dT%H:%M:%SZ");
        format!(r#"{{"action": "hibernate", "time": "{time}"}}"#)
    };
    // The interruption counts as over 5 minutes after its time, that is, in 20 seconds.
    host.aws.set(INTERRUPTED.0, Some(&notice(-280)));
    let mut watch = host.watch(&HOOK);
    eventually(SOON, TICK, || watch.log().contains("the roles are stopped")).await;
    // The instance resumes, and an operator starts the roles.
    eventually(SOON * 4, TICK, || watch.log().contains("this notice is no longer in effect")).await;
    host.run_units();
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(host.stopped(), BOTH, "{}", watch.log());
    // The instance is interrupted again.
    host.aws.set(INTERRUPTED.0, Some(&notice(120)));
    eventually(SOON, TICK, || host.stopped().len() == 4).await;
    assert!(watch.is_running(), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_that_is_over_at_the_start_is_an_error_and_does_not_stop_the_roles() {
    let host = Host::start().await;
    host.run_units();
    let time = (Utc::now() - TimeDelta::minutes(8)).format("%Y-%m-%dT%H:%M:%SZ");
    let notice = format!(r#"{{"action": "terminate", "time": "{time}"}}"#);
    host.aws.set(INTERRUPTED.0, Some(&notice));
    let mut watch = host.watch(&HOOK);
    let expected = format!(
        "error: this spot instance will be interrupted (terminate) at {time}: the interruption is over"
    );
    eventually(SOON, TICK, || watch.log().contains(&expected)).await;
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(watch.log().matches(&expected).count(), 1, "{}", watch.log());
    assert!(host.stopped().is_empty() && watch.is_running(), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_while_the_metadata_cannot_be_read() {
    let host = Host::start().await;
    host.run_units();
    host.stop_with(FAILS);
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let watch = host.watch(&HOOK);
    eventually(SOON, TICK, || !host.stopped().is_empty()).await;
    host.aws.set_mode(MetadataMode::Hangs);
    eventually(SOON, TICK, || watch.log().contains("cannot query the instance metadata")).await;
    assert!(!watch.log().contains("the roles are stopped"), "{}", watch.log());
    host.stop_with(STOPS);
    eventually(SOON * 2, TICK, || watch.log().contains("the roles are stopped")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_needs_a_group() {
    let mut command = std::process::Command::new(crate::support::fjord_binary());
    let output = command.args(["ec2", "watch", "--hook", "x"]).output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--group"), "{output:?}");
}
