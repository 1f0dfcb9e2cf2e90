//! Tests `fjord reload` with changed settings in `[messaging.nats]`.

use std::process::Output;

use super::text;
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use crate::support::random::SeededRandom;
use crate::support::reload;

/// Users, each with the only subject to which it may not subscribe.
const USERS: [(&str, &str); 5] = [
    ("whole", "unused"),
    ("second", "unused"),
    ("deaf", "_INBOX.>"),
    ("partial", "fjord.cancel.ledger-once"),
    ("other", "fjord.q.ledger-again"),
];

async fn start() -> Fleet {
    let user = |(name, denied): (&str, &str)| {
        let subscribe = format!(r#"allow: [">"], deny: ["{denied}"]"#);
        format!(
            r#"{{ user: {name}, password: "{SHIPPED_PASSWORD}",
                  permissions: {{ publish: [">"], subscribe: {{ {subscribe} }} }} }}"#
        )
    };
    let extra = format!("authorization: {{ users: [{}] }}", USERS.map(user).join(", "));
    let nats = NatsOptions { extra, ..NatsOptions::default() };
    let nats_keys = format!("user = 'whole'\npassword = '{SHIPPED_PASSWORD}'\n");
    Fleet::start(FleetOptions { nats, nats_keys, ..FleetOptions::default() }).await
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
    let mut before = "user = 'whole'".to_owned();
    for (name, subject) in &USERS[2..] {
        let after = format!("user = '{name}'");
        reload::edit(&fleet.workers[0], &before, &after);
        before = after;
        let output = reload(&fleet).await;
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("NATS refuses the reloaded settings"), "{errors}");
        let subject = subject.trim_end_matches('>');
        assert!(errors.contains(subject), "{errors}");
        load.wait_for_more(100).await;
        assert!(fleet.workers[0].metric("fjord_nats_connected").await > 0.5);
        assert!(fleet.workers[0].metric("fjord_nats_subscriptions_refused").await < 0.5);
    }
    reload::edit(&fleet.workers[0], &before, "user = 'second'");
    let output = reload(&fleet).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let log = fleet.workers[0].process.log();
    assert!(log.contains("connected to NATS with the reloaded settings"), "{log}");
    load.wait_for_more(100).await;
    let answers = load.stop().await;
    reconcile("other NATS users", &answers, fleet.ledger()).no_request_lost().all_ok();
}
