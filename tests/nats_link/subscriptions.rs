//! Promise: a subscription that the NATS server refuses is reported, and is restored when the server permits it again.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{is_ready, options, subjects, wait_until_served};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};

/// Returns options for a server that denies its users the subject `denied` and can be reconfigured.
fn denying(denied: &str) -> FleetOptions {
    let mut options = options();
    options.nats.extra = format!(
        "authorization {{ users: [{{ user: fjord, password: secret, permissions: \
         {{ publish: \">\", subscribe: {{ allow: [\">\"], deny: [\"{denied}\"] }} }} }}] }}\n"
    );
    options.nats_keys.push_str("user = 'fjord'\npassword = 'secret'\n");
    options
}

/// A subscription that the server revokes on reload.
struct RevokedPermissions {
    denied: &'static str,
    kind: &'static str,
    role: &'static str,
    /// The outcome of requests while the subscription is revoked. It is empty if the outcome varies because a worker
    /// that has left its queues still refuses requests for a while.
    outcome: &'static str,
}

const REVOKED: [RevokedPermissions; 4] = [
    RevokedPermissions {
        denied: "fjord.q.*",
        kind: "queue",
        role: "worker",
        outcome: "no-workers",
    },
    RevokedPermissions {
        denied: "_INBOX.*.r.>",
        kind: "inbox",
        role: "gateway",
        outcome: "bus-down",
    },
    RevokedPermissions { denied: "fjord.w.>", kind: "control", role: "worker", outcome: "" },
    RevokedPermissions { denied: "fjord.cancel.*", kind: "control", role: "worker", outcome: "" },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_subscription_is_reported_and_restored() {
    const NOTHING: &str = "nothing.at.all";
    let mut fleet = Fleet::start(denying(NOTHING)).await;
    let client = fleet.client();
    for RevokedPermissions { denied, kind, role, outcome } in REVOKED {
        println!("{denied}");
        client.get("/v1/echo/a").await.is(200);
        fleet.nats.servers[0].edit(NOTHING, denied);
        fleet.nats.servers[0].reload().await;
        let node = if role == "worker" { &fleet.workers[0] } else { &fleet.gateways[0] };
        let gauge = format!(r#"fjord_nats_subscriptions_refused{{kind="{kind}"}}"#);
        eventually_some(format!("{denied}: it is reported"), SOON, async || {
            (node.metric(&gauge).await > 0.5 && !is_ready(node).await).then_some(())
        })
        .await;
        // A message that is in flight while the server reloads can be lost. Its request then gets a 504.
        eventually_some(format!("{denied}: requests end as {outcome}"), SOON, async || {
            let answer = client.get("/v1/echo/a").await;
            assert!([503, 504].contains(&answer.status.as_u16()), "{denied}: {}", answer.status);
            let problem: Value = serde_json::from_slice(&answer.body).expect("the body is JSON");
            let has_outcome = problem["type"].as_str().is_some_and(|slug| slug.ends_with(outcome));
            (answer.status == 503 && has_outcome).then_some(())
        })
        .await;
        // In the meantime, the process tries the subscription again. Such an attempt must not be reported as a
        // success.
        let tries = Instant::now();
        eventually_some("a few retries", SOON, async || {
            assert!(
                node.metric(&gauge).await > 0.5 && !is_ready(node).await,
                "{denied}: it is reported as restored"
            );
            (tries.elapsed() > Duration::from_secs(3)).then_some(())
        })
        .await;
        fleet.nats.servers[0].edit(denied, NOTHING);
        fleet.nats.servers[0].reload().await;
        wait_until_served(&client, &fleet, denied).await;
        eventually_some(format!("{denied}: all are served"), SOON * 2, async || {
            (node.metric("fjord_nats_subscriptions_refused").await < 0.5).then_some(())
        })
        .await;
    }
}

/// async-nats keeps at most 128 events, so events are lost if more subscriptions are refused at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn many_simultaneous_refusals_leave_no_queue_unserved() {
    const QUEUES: usize = 300;
    let endpoint = |number| {
        format!(
            r#""many-{number}": {{ "route": "GET /v1/many/{number}", "queue": "many-{number}",
               "procedure": "ledger.slow", "result": "value", "auth": "public",
               "parameters": {{ "ms": {{ "in": "query", "type": "int32", "default": 0 }} }} }}"#
        )
    };
    let endpoints: Vec<_> = (0..QUEUES).map(endpoint).collect();
    let catalogue: &'static str = format!("{{{}}}", endpoints.join(",")).leak();
    let options =
        FleetOptions { catalogue: Some(("many.json", catalogue)), ..denying("fjord.q.none") };
    let mut fleet = Fleet::start(options).await;
    let served = async |fleet: &Fleet| {
        let subjects = subjects(&fleet.nats.servers[0]).await;
        subjects.iter().filter(|subject| subject.starts_with("fjord.q.many-")).count()
    };
    eventually_some("all queues are served", SOON * 2, async || {
        (served(&fleet).await == QUEUES).then_some(())
    })
    .await;
    fleet.nats.servers[0].edit("fjord.q.none", "fjord.q.*");
    fleet.nats.servers[0].reload().await;
    let refused = r#"fjord_nats_subscriptions_refused{kind="queue"}"#;
    eventually_some("the refusals are reported", SOON, async || {
        (fleet.workers[0].metric(refused).await > 0.5).then_some(())
    })
    .await;
    fleet.nats.servers[0].edit("fjord.q.*", "fjord.q.none");
    fleet.nats.servers[0].reload().await;
    eventually_some("all queues are served again", SOON * 2, async || {
        (served(&fleet).await == QUEUES && fleet.workers[0].metric(refused).await < 0.5)
            .then_some(())
    })
    .await;
    wait_until_served(&fleet.client(), &fleet, "many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_limit_is_reported_and_subscriptions_return_when_it_is_raised() {
    const MANY: &str = "max_subscriptions: 1000";
    const FEW: &str = "max_subscriptions: 9";
    let mut options = options();
    options.nats.extra = MANY.to_owned();
    let mut fleet = Fleet::start(options).await;
    let client = fleet.client();
    fleet.nats.servers[0].edit(MANY, FEW);
    fleet.nats.servers[0].restart().await;
    let worker = &fleet.workers[0];
    eventually_some("the worker reports the limit", SOON * 3, async || {
        let refused = worker.metric("fjord_nats_subscriptions_refused").await > 0.5;
        (refused && !is_ready(worker).await).then_some(())
    })
    .await;
    fleet.nats.servers[0].edit(FEW, MANY);
    fleet.nats.servers[0].restart().await;
    wait_until_served(&client, &fleet, "after a limit").await;
    let worker = &fleet.workers[0];
    eventually_some("every subscription is served", SOON * 2, async || {
        (worker.metric("fjord_nats_subscriptions_refused").await < 0.5).then_some(())
    })
    .await;
}
