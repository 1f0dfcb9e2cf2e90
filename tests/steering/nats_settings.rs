//! Tests `fjord reload` with changed settings in `[messaging.nats]`.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::text;
use crate::support::client::get_json;
use crate::support::eventually::{SOON, TICK, eventually_some, for_a_while};
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use crate::support::random::SeededRandom;
use crate::support::reload;

/// The users, each with the only subject to which it may not subscribe.
const USERS: [(&str, &str); 5] = [
    ("whole", "unused"),
    ("second", "unused"),
    ("deaf", "_INBOX.>"),
    ("partial", "fjord.cancel.ledger-once"),
    ("other", "fjord.q.ledger-again"),
];

/// A short ping interval, so that a server that does not answer is noticed quickly.
const PINGS: &str = "ping_interval = '1s'\n";
/// The log line that follows a successful trial of new settings.
const CONNECTED: &str = "connected to NATS with the reloaded settings";
const REPLACED: &str = r#"fjord_nats_clients_replaced_total{reason="silent"}"#;

async fn start() -> Fleet {
    start_with(Duration::ZERO).await
}

/// Starts a fleet with this round trip between its worker and NATS.
async fn start_with(worker_round_trip: Duration) -> Fleet {
    let user = |(name, denied): (&str, &str)| {
        let subscribe = format!(r#"allow: [">"], deny: ["{denied}"]"#);
        format!(
            r#"{{ user: {name}, password: "{SHIPPED_PASSWORD}",
                  permissions: {{ publish: [">"], subscribe: {{ {subscribe} }} }} }}"#
        )
    };
    let extra = format!("authorization: {{ users: [{}] }}", USERS.map(user).join(", "));
    let nats = NatsOptions { extra, ..NatsOptions::default() };
    let nats_keys = format!("user = 'whole'\npassword = '{SHIPPED_PASSWORD}'\n{PINGS}");
    Fleet::start(FleetOptions { nats, nats_keys, worker_round_trip, ..FleetOptions::default() })
        .await
}

async fn reload(fleet: &Fleet) -> Output {
    let mut command = tokio::process::Command::new(fjord_binary());
    command.args(["reload", "--config"]).arg(fleet.gateways[0].directory());
    command.output().await.expect("fjord runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_permission_is_not_used_and_no_request_fails() {
    let fleet = start().await;
    let load =
        LedgerLoad::start(&GatewayRotation::new(vec![fleet.client()]), &mut SeededRandom::new());
    load.wait_for_more(20).await;
    let mut failures = 0.0;
    let mut before = "user = 'whole'".to_owned();
    for (name, subject) in &USERS[2..] {
        let after = format!("user = '{name}'");
        reload::edit(&fleet.workers[0], &before, &after);
        before = after;
        let output = reload(&fleet).await;
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("NATS refuses the reloaded settings"), "{errors}");
        let failed = r#"fjord_config_reloads_total{result="failed"}"#;
        let reloads = r#"fjord_config_reloads_total{result="ok"}"#;
        failures += 1.0;
        eventually_some("the reload is counted as failed", SOON, async || {
            (fleet.workers[0].metric(failed).await > failures - 0.5).then_some(())
        })
        .await;
        assert!(fleet.workers[0].metric(reloads).await < 0.5, "each reload is counted once");
        let subject = subject.trim_end_matches('>');
        assert!(errors.contains(subject), "{errors}");
        load.wait_for_more(100).await;
        assert!(fleet.workers[0].metric("fjord_nats_connected").await > 0.5);
        assert!(fleet.workers[0].metric("fjord_nats_subscriptions_refused").await < 0.5);
    }
    reload::edit(&fleet.workers[0], &before, "user = 'second'");
    let output = reload(&fleet).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fleet.workers[0].process.log_line(&[CONNECTED]).await;
    load.wait_for_more(100).await;
    let answers = load.stop().await;
    reconcile("other NATS users", &answers, fleet.ledger()).no_request_lost().all_ok();
}

/// Counts the messages of queue groups that the server sends to each connection of a user. Never returns, so it must be
/// dropped.
async fn count_group_messages(fleet: &Fleet, user: &str, counts: &mut BTreeMap<String, u64>) {
    let monitoring = fleet.nats.servers[0].monitoring();
    let url = format!("{monitoring}/connz?auth=true&subs=detail");
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    loop {
        let report = get_json(&url).await.expect("the server answers");
        for connection in list(&report, "connections") {
            if connection["authorized_user"] != user {
                continue;
            }
            for one in list(&connection, "subscriptions_list_detail") {
                if let (Some(group), Some(messages)) =
                    (one["qgroup"].as_str(), one["msgs"].as_u64())
                {
                    counts.insert(format!("{} {group}", connection["cid"]), messages);
                }
            }
        }
        for_a_while(TICK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_group_delivers_during_a_trial_are_answered() {
    /// The number of callers. It is large enough that the group delivers requests during a trial, which takes a few
    /// round trips.
    const CALLERS: usize = 32;
    let fleet = start_with(Duration::from_millis(300)).await;
    let rotation = GatewayRotation::new(vec![fleet.client()]);
    let load = LedgerLoad::start_callers(CALLERS, &rotation, &mut SeededRandom::new());
    load.wait_for_more(CALLERS).await;
    let mut before = "user = 'whole'".to_owned();
    let mut counts = BTreeMap::new();
    let no_reply = r#"fjord_gateway_resubmissions_total{reason="no_reply"}"#;
    // The server refuses one of the groups to the user `other`, so the worker leaves the other groups again. The
    // connection of `whole` stays in use until the connection of `second` replaces it. Requests that are in transit
    // when a group is left, or when the connection is replaced, get no reply, so the gateway sends them again.
    for name in ["other", "other", "other", "second"] {
        let after = format!("user = '{name}'");
        reload::edit(&fleet.workers[0], &before, &after);
        before = after;
        let output = tokio::select! {
            output = reload(&fleet) => output,
            () = count_group_messages(&fleet, "other", &mut counts) => unreachable!(),
        };
        let expected = i32::from(name == "other");
        assert_eq!(output.status.code(), Some(expected), "{name}: {}", text(&output.stderr));
        load.wait_for_more(CALLERS).await;
    }
    let answers = load.stop().await;
    let reconciliation = reconcile("trials of NATS settings", &answers, fleet.ledger());
    reconciliation.no_request_lost().all_ok();
    let delivered: u64 = counts.values().sum();
    assert!(delivered > 0, "the test can fail: {counts:?}");
    let resent = fleet.gateways[0].metric(no_reply).await;
    println!("{delivered} requests were delivered during failed trials, {resent} were sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_the_previous_settings_survive_a_stalled_server() {
    let mut fleet = start().await;
    let client = fleet.client();
    let right = format!("password = '{SHIPPED_PASSWORD}'");
    reload::edit(&fleet.workers[0], &right, "password = 'wrong'");
    let mut command = tokio::process::Command::new(fjord_binary());
    command.args(["reload", "--timeout", "3", "--config"]).arg(fleet.gateways[0].directory());
    let output = command.output().await.expect("fjord runs");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("no connection to NATS with the reloaded settings yet: 127."),
        "{errors}"
    );
    assert!(errors.to_lowercase().contains("authorization violation"), "{errors}");
    client.get("/v1/echo/a").await.is(200);

    fleet.nats.servers[0].process().pause();
    eventually_some("the stalled server is noticed", SOON, async || {
        (fleet.workers[0].metric(REPLACED).await > 0.5).then_some(())
    })
    .await;
    fleet.nats.servers[0].process().resume();
    eventually_some("the queue is served with the previous password", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;

    reload::edit(&fleet.workers[0], "password = 'wrong'", &right);
    reload::signal(&mut fleet.workers[0], "ok").await;
    client.get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_before_it_confirms_the_settings_has_not_refused_them() {
    // The network is slow enough that the server restarts while it processes the subscriptions.
    let mut fleet = start_with(Duration::from_millis(500)).await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    let connected = r#"fjord_nats_events_total{event="connected"}"#;
    let before = fleet.workers[0].metric(connected).await;
    reload::edit(&fleet.workers[0], "user = 'whole'", "user = 'second'");
    fleet.workers[0].process.signal(Signal::HUP);
    eventually_some("the new client is connected", SOON, async || {
        (fleet.workers[0].metric(connected).await > before + 0.5).then_some(())
    })
    .await;
    fleet.nats.servers[0].restart().await;
    eventually_some("the new settings are used", SOON * 2, async || {
        let log = fleet.workers[0].process.log();
        log.contains(CONNECTED).then_some(())
    })
    .await;
    // The server restarted before it had confirmed the settings. Either the trial failed, or its client connected
    // again.
    let log = fleet.workers[0].process.log();
    let position = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
    assert!(position("connection to NATS lost") < position(CONNECTED), "{log}");
    let reloads = async |result: &str| {
        let name = format!(r#"fjord_config_reloads_total{{result="{result}"}}"#);
        fleet.workers[0].metric(&name).await
    };
    eventually_some("the reload is counted", SOON, async || {
        (reloads("ok").await > 0.5).then_some(())
    })
    .await;
    assert!(reloads("failed").await < 0.5, "each reload is counted once");
    eventually_some("the queue is served", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
}
