//! `fjord ec2 watch` tells an autoscaling group that an instance has been drained or is still draining, and reports
//! failures.

use std::time::{Duration, Instant};

use super::host::{
    BOTH, COMPLETE, FAILS, HEARTBEAT, HOOK, Host, INTERRUPTED, STOPS, STOPS_SLOWLY, TERMINATED,
    errors,
};
use crate::support::aws::ServiceAnswer;
use crate::support::connect_proxy::ConnectProxy;
use crate::support::eventually::{SOON, TICK, eventually, for_a_while};

const NO_ACTION: ServiceAnswer = ServiceAnswer::Refuse(
    400,
    "ValidationError",
    "No active Lifecycle Action found with instance ID i-0123456789abcdef0",
);
/// The start of the error line about a hook that does not exist.
const UNKNOWN_HOOK: &str = "error: hook fjord-drain of group fjord-workers has no action for this instance: \
                            ValidationError: No active Lifecycle Action found";

/// Returns a host whose units run, and whose group terminates it.
async fn terminated() -> Host {
    let host = Host::start().await;
    host.run_units();
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_hook_is_one_error_and_systemd_does_not_restart_the_command() {
    let host = terminated().await;
    for action in [HEARTBEAT, COMPLETE] {
        host.aws.answer_action(action, Some(NO_ACTION));
    }
    let mut watch = host.watch(&HOOK);
    assert_eq!(watch.wait(SOON * 2).await.code(), Some(3), "{}", watch.log());
    let log = watch.log();
    let [error] = errors(&log)[..] else { panic!("{log}") };
    assert!(error.starts_with(UNKNOWN_HOOK), "{log}");
    assert!(error.contains("check the names of the hook and the group"), "{log}");
    assert!(!log.contains("is completed"), "{log}");
    assert_eq!(host.stopped(), BOTH, "the units are stopped all the same: {log}");
    let unit = std::fs::read_to_string(super::shipped("systemd/fjord-lifecycle.service"));
    let unit = unit.expect("the unit can be read");
    assert!(
        unit.contains("Restart=on-failure\n") && unit.contains("RestartPreventExitStatus=2 3\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_hook_is_reported_while_the_units_still_stop() {
    let host = terminated().await;
    host.stop_with(STOPS_SLOWLY);
    host.aws.answer_action(HEARTBEAT, Some(NO_ACTION));
    let mut watch = host.watch(&[&HOOK[..], &["--heartbeat-interval", "1"]].concat());
    eventually(SOON, TICK, || watch.log().contains(UNKNOWN_HOOK)).await;
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(errors(&watch.log()).len(), 1, "logged once: {}", watch.log());
    assert!(watch.is_running(), "{}", watch.log());
    // The group gets a hook with this name.
    host.aws.answer_action(HEARTBEAT, None);
    eventually(SOON, TICK, || !host.aws.accepted_for(HEARTBEAT).is_empty()).await;
    for role in ["gateway", "worker"] {
        host.set_unit(role, "inactive");
    }
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_begins_a_little_later_is_completed() {
    let host = terminated().await;
    host.aws.answer_action(HEARTBEAT, Some(NO_ACTION));
    host.aws.answer_next(COMPLETE, [NO_ACTION, NO_ACTION]);
    let mut watch = host.watch(&HOOK);
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert_eq!(errors(&watch.log()), Vec::<&str>::new());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_completion_was_not_answered_is_not_an_error() {
    let host = terminated().await;
    // The heartbeat shows that the action exists, and the first attempt to complete it may have succeeded.
    host.aws.answer_next(COMPLETE, [ServiceAnswer::Text(500, String::new())]);
    host.aws.answer_action(COMPLETE, Some(NO_ACTION));
    let mut watch = host.watch(&HOOK);
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert!(host.aws.attempts() >= 3, "a heartbeat and two attempts");
    assert_eq!(errors(&watch.log()), Vec::<&str>::new());

    // If the first attempt is refused in the same way, the group has not waited.
    let host = terminated().await;
    host.aws.answer_action(COMPLETE, Some(NO_ACTION));
    let mut watch = host.watch(&HOOK);
    assert_eq!(watch.wait(SOON * 2).await.code(), Some(3), "{}", watch.log());
    let log = watch.log();
    let ended = "the action ended before this instance was drained";
    assert!(log.contains(UNKNOWN_HOOK) && log.contains(ended), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_is_refused_is_retried_and_logged_once() {
    let host = terminated().await;
    host.aws.answer_action(COMPLETE, Some(ServiceAnswer::Refuse(403, "AccessDenied", "no")));
    let mut watch = host.watch(&HOOK);
    eventually(SOON, TICK, || host.aws.attempts() >= 4).await;
    let log = watch.log();
    let [error] = errors(&log)[..] else { panic!("{log}") };
    assert!(error.starts_with("error: hook fjord-drain of group fjord-workers: "), "{log}");
    assert!(error.contains("must permit autoscaling:CompleteLifecycleAction"), "{log}");
    host.aws.answer_action(COMPLETE, None);
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_sent_while_the_units_stop_and_not_after_that() {
    let host = terminated().await;
    host.stop_with(STOPS_SLOWLY);
    let start = Instant::now();
    let mut watch = host.watch(&[&HOOK[..], &["--heartbeat-interval", "2"]].concat());
    eventually(SOON, TICK, || host.aws.accepted_for(HEARTBEAT).len() >= 3).await;
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 0);
    // A lost heartbeat does not end the drain.
    let refusal = ServiceAnswer::Refuse(403, "AccessDenied", "no");
    host.aws.answer_action(HEARTBEAT, Some(refusal));
    let denied = "must permit autoscaling:RecordLifecycleActionHeartbeat";
    eventually(SOON, TICK, || watch.log().contains(denied)).await;
    assert!(watch.is_running(), "{}", watch.log());
    host.aws.answer_action(HEARTBEAT, Some(ServiceAnswer::Hang));
    for role in ["gateway", "worker"] {
        host.set_unit(role, "inactive");
    }
    assert!(watch.wait(SOON * 2).await.success(), "{}", watch.log());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_action_is_not_completed_before_the_units_are_observed_to_be_stopped() {
    let unreadable = "cannot read the state of fjord@worker.service";
    for (failure, reason) in [
        (FAILS, "cannot stop fjord@worker.service"),
        ("exit 0", unreadable),
        ("echo ActiveState=inactive; echo LoadState=not-found; exit 0", unreadable),
    ] {
        let host = terminated().await;
        host.break_systemctl(failure);
        let mut watch = host.watch(&HOOK);
        eventually(SOON, TICK, || errors(&watch.log()).iter().any(|line| line.contains(reason)))
            .await;
        for_a_while(Duration::from_secs(3)).await;
        let log = watch.log();
        assert_eq!(errors(&log).len(), 1, "{failure}: {log}");
        assert!(watch.is_running() && !log.contains("the roles are stopped"), "{failure}: {log}");
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 0, "{failure}: {log}");
        host.stop_with(STOPS);
        assert!(watch.wait(SOON).await.success(), "{failure}: {}", watch.log());
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1, "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_completed_with_an_error() {
    for (script, reason) in [
        (Some(STOPS_SLOWLY), "error: fjord@gateway.service has not stopped within 2 s"),
        (
            Some(FAILS),
            "error: cannot stop fjord@gateway.service: systemctl: exit status: 1: Access denied",
        ),
        (None, "error: cannot stop fjord@gateway.service: systemctl: No such file or directory"),
    ] {
        let host = terminated().await;
        match script {
            Some(script) => host.stop_with(script),
            None => host.remove_systemctl(),
        }
        let start = Instant::now();
        let mut watch = host.watch(&[&HOOK[..], &["--stop-timeout", "2"]].concat());
        assert_eq!(watch.wait(SOON * 2).await.code(), Some(3), "{}", watch.log());
        assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
        let log = watch.log();
        assert!(log.contains(reason), "{reason}: {log}");
        let late =
            "error: this instance was not drained within 4 s: requests may still be in progress";
        assert_eq!(log.matches(late).count(), 1, "{log}");
        assert!(log.contains("this instance is not drained, and the action of hook"), "{log}");
        assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_that_is_withdrawn_does_not_end_the_watch() {
    let host = terminated().await;
    host.stop_with(STOPS_SLOWLY);
    let mut watch = host.watch(&HOOK);
    eventually(SOON, TICK, || !host.stopped().is_empty()).await;
    host.aws.set(TERMINATED.0, Some("InService"));
    eventually(SOON, TICK, || watch.log().contains("this notice is no longer in effect")).await;
    host.run_units();
    for_a_while(Duration::from_secs(3)).await;
    assert!(watch.is_running(), "{}", watch.log());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 0);
    let stopped = host.stopped().len();
    // The instance was in a warm pool, and the group terminates it there.
    host.aws.set(TERMINATED.0, Some("Warmed:Terminated"));
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert_eq!(host.stopped()[stopped..], BOTH);
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_during_another_drain_is_noticed() {
    let host = Host::start().await;
    host.run_units();
    host.stop_with(STOPS_SLOWLY);
    host.aws.set(INTERRUPTED.0, Some(INTERRUPTED.1));
    let proxy = ConnectProxy::start(None).await;
    let url = format!("http://{}", proxy.address);
    let mut watch = host.watch_with(&HOOK, &[("HTTPS_PROXY", &url), ("HTTP_PROXY", &url)]);
    eventually(SOON, TICK, || !host.stopped().is_empty()).await;
    assert_eq!(host.aws.attempts(), 0);
    host.aws.set(TERMINATED.0, Some(TERMINATED.1));
    eventually(SOON, TICK, || !host.aws.accepted_for(HEARTBEAT).is_empty()).await;
    for role in ["gateway", "worker"] {
        host.set_unit(role, "failed");
    }
    assert!(watch.wait(SOON).await.success(), "{}", watch.log());
    assert_eq!(host.aws.accepted_for(COMPLETE).len(), 1);
    // The metadata service is never reached through the proxy.
    let connect = format!("CONNECT {} HTTP/1.1", host.aws.api_address());
    let requests = proxy.requests();
    assert!(!requests.is_empty() && requests.iter().all(|one| one.line == connect), "{requests:?}");
}
