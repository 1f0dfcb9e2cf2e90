//! Tests `fjord log`.

use super::{fleet, run, text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::reload;

/// Returns the number of lines of the level `debug` that each process has logged.
fn debug_lines(fleet: &Fleet) -> Vec<usize> {
    let count =
        |log: String| log.lines().filter(|line| line.contains(r#""level":"DEBUG""#)).count();
    fleet.gateways.iter().chain(&fleet.workers).map(|node| count(node.process.log())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_applies_for_a_limited_time_and_survives_a_reload() {
    let mut fleet = fleet(1, 1).await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    assert_eq!(debug_lines(&fleet), [0, 0]);
    let output = run(&fleet, &["log", "debug", "--for", "6s"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("logs debug for 6s"), "{said}");
    assert!(
        said.ends_with("1 worker and 1 gateway: the filter applies, and expires automatically\n")
    );
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        reload::signal(node, "ok").await;
    }
    let before = debug_lines(&fleet);
    eventually_some("both processes log more after the reload", SOON, async || {
        client.get("/v1/echo/a").await.is(200);
        let now = debug_lines(&fleet);
        now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
    })
    .await;
    eventually_some("the filter ends", SOON, async || {
        let mut nodes = fleet.gateways.iter().chain(&fleet.workers);
        let ended = "the temporary log filter has ended";
        nodes.all(|node| node.process.log().contains(ended)).then_some(())
    })
    .await;
    let after = debug_lines(&fleet);
    client.get("/v1/echo/a").await.is(200);
    assert_eq!(debug_lines(&fleet), after);
    let audit = [r#""command":"set-log-filter""#, r#""arguments":"debug for 6s""#];
    fleet.workers[0].process.log_line(&audit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_filter_replaces_the_first_and_the_target_is_respected() {
    let fleet = fleet(1, 1).await;
    let silence = ["log", "off", "--for", "1h", "--on", "worker"];
    let output = run(&fleet, &silence).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout)
            .ends_with("\n1 worker: the filter applies, and expires automatically\n")
    );
    // Commands are still recorded in the log.
    let output = run(&fleet, &["log", "--for", "1s", "--on", "worker", "debug"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // The second filter ends, and the first one ends with it. Lines are written in the order in which they
    // are logged.
    fleet.workers[0].process.log_line(&["the temporary log filter has ended"]).await;
    let log = fleet.workers[0].process.log();
    let audits = log.lines().filter(|line| line.contains("received a command")).count();
    assert_eq!(audits, 2, "{log}");
    assert!(!fleet.gateways[0].process.log().contains("set-log-filter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_filter_or_duration_is_refused_before_it_is_sent() {
    let fleet = fleet(1, 1).await;
    for arguments in [
        ["log", "wran", "--for", "1m"],
        ["log", "fjord=wran", "--for", "1m"],
        ["log", "debug", "--for", "2h"],
        ["log", "debug", "--for", "10ms"],
        ["log", "debug", "--for", "5"],
    ] {
        let output = run(&fleet, &arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("expected "), "{}", text(&output.stderr));
    }
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        assert!(!node.process.log().contains("received a command"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_filter_does_not_hide_commands() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let log_filter = "info,fjord::fleet=off";
    let fleet = Fleet::start(FleetOptions { nats, log_filter, ..FleetOptions::default() }).await;
    let output = run(&fleet, &["queue", "pause", "slow"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in
        ["received a command", "an operator has changed a queue", "the command has succeeded"]
    {
        // Log lines are written in the background.
        eventually_some(part, SOON, async || {
            let log = fleet.workers[0].process.log();
            (log.lines().filter(|line| line.contains(part)).count() == 1).then_some(())
        })
        .await;
    }
}
