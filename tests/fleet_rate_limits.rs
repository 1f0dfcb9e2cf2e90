//! Promise: all gateways together give a caller one quota, within the documented bound. If a gateway is cut off from
//! the others, it still enforces the quota.

use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::support::client::Client;
use super::support::eventually::{SOON, eventually_some, for_a_while};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::reload;

const GATEWAYS: usize = 3;
const QUOTA: usize = 30;
/// The time in which the quota refills by one request, given 30 requests per hour. It is so long that the quota hardly
/// refills while a test runs, even on a busy machine.
const REFILL: Duration = Duration::from_mins(2);
/// The interval of reports, plus a margin for the delivery of messages on a busy machine.
const REPORTED_AFTER: Duration = Duration::from_secs(1);
/// The pause between two requests, so that 10 requests are sent in each interval.
const PACE: Duration = Duration::from_millis(50);
const REQUESTS: usize = 4 * QUOTA;

const LIMITED: &str = r#"{ "limited": { "route": "GET /v1/limited", "queue": "echo", "handler": "echo",
    "timeout": "2s", "auth": "public", "rate_limit": { "requests": 30, "window": "1h" } } }"#;

async fn fleet(gateways: usize, gateway_toml: &str) -> Fleet {
    let catalogue = Some(("limited.json", LIMITED));
    let gateway_toml = gateway_toml.to_owned();
    Fleet::start(FleetOptions { gateways, catalogue, gateway_toml, ..FleetOptions::default() })
        .await
}

/// Returns a client for each gateway.
fn clients(fleet: &Fleet) -> Vec<Client> {
    let client = fleet.client();
    fleet.gateways.iter().map(|gateway| client.at(gateway.https())).collect()
}

/// Returns a client of the fleet's NATS server that may send every message.
async fn nats_client(fleet: &Fleet) -> async_nats::Client {
    let options = ConnectOptions::new().add_root_certificates(fleet.certs.ca.clone());
    options.connect(fleet.nats.urls()[0].as_str()).await.expect("a connection")
}

/// The admitted requests of a caller. Each entry contains the gateway that admitted the request and the time since the
/// start.
struct Admitted {
    requests: Vec<(usize, Duration)>,
    elapsed: Duration,
}

impl Admitted {
    /// Returns the largest number of requests that one gateway admitted before the other gateways knew of them.
    fn most_pending(&self) -> usize {
        let of_gateway = |gateway: usize, from: Duration| {
            let within = |(one, at): &&(usize, Duration)| {
                *one == gateway && (from..=from + REPORTED_AFTER).contains(at)
            };
            self.requests.iter().filter(within).count()
        };
        self.requests.iter().map(|(gateway, at)| of_gateway(*gateway, *at)).max().unwrap_or(0)
    }

    /// Returns the number of requests by which the quota has been refilled since the start.
    fn refilled(&self) -> usize {
        usize::try_from(self.elapsed.as_millis() / REFILL.as_millis()).expect("a small number")
    }
}

/// Sends requests to the gateways in turn, at a steady pace.
async fn send_in_turn(clients: &[Client]) -> Admitted {
    let (start, mut requests) = (Instant::now(), Vec::new());
    for number in 0..REQUESTS {
        let gateway = number % clients.len();
        let sent_at = start.elapsed();
        let answer = clients[gateway].get("/v1/limited").await;
        if answer.status == 429 {
            answer.is_problem(429, "rate-limited");
        } else {
            answer.is(200);
            requests.push((gateway, sent_at));
        }
        for_a_while(PACE.saturating_sub(start.elapsed().saturating_sub(sent_at))).await;
    }
    Admitted { requests, elapsed: start.elapsed() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_one_quota_at_three_gateways() {
    let fleet = fleet(GATEWAYS, "").await;
    let admitted = send_in_turn(&clients(&fleet)).await;
    let (total, pending) = (admitted.requests.len(), admitted.most_pending());
    let bound = QUOTA + admitted.refilled() + (GATEWAYS - 1) * pending;
    println!(
        "{GATEWAYS} gateways admitted {total} requests of {REQUESTS} in {:?}: the quota is {QUOTA}, {} were refilled, and \
         a gateway admitted at most {pending} in an interval, so the bound is {bound}",
        admitted.elapsed,
        admitted.refilled(),
    );
    assert!(total <= bound, "{total} > {bound}");
    assert!(total >= QUOTA, "{total}");
    assert!(bound < 2 * QUOTA, "a bound of {bound} would prove nothing");
    for gateway in &fleet.gateways {
        for result in ["sent", "received"] {
            let metric = format!(r#"fjord_rate_limit_messages_total{{result="{result}"}}"#);
            assert!(gateway.metric(&metric).await > 0.5, "{metric}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_has_a_quota_of_its_own_if_that_is_configured() {
    let own = "[gateway.rate_limits]\nscope = 'gateway'\n";
    let mut fleet = fleet(GATEWAYS, own).await;
    let clients = clients(&fleet);
    let admitted = send_in_turn(&clients).await;
    println!("with a quota at each gateway, {} requests were admitted", admitted.requests.len());
    assert!(admitted.requests.len() >= GATEWAYS * QUOTA);
    // After a reload, the gateways enforce a shared limit.
    let key = "scope = 'gateway'";
    reload::edit(&fleet.gateways[0], key, "scope = 'fleets'");
    reload::signal(&mut fleet.gateways[0], "failed").await;
    let log = fleet.gateways[0].process.log_tail();
    assert!(log.contains("gateway.rate_limits.scope") && log.contains("fleet, gateway"), "{log}");
    reload::edit(&fleet.gateways[0], "scope = 'fleets'", key);
    for gateway in &mut fleet.gateways {
        reload::edit(gateway, key, "scope = 'fleet'");
        reload::signal(gateway, "ok").await;
    }
    eventually_some("a gateway hears of the requests at another", SOON * 3, async || {
        clients[0].get("/v1/limited").await;
        let received = r#"fjord_rate_limit_messages_total{result="received"}"#;
        (fleet.gateways[1].metric(received).await > 0.5).then_some(())
    })
    .await;
}

/// If a caller spends whole quotas at all gateways at the same time, each gateway admits one quota. This is the largest
/// possible excess.
#[tokio::test(flavor = "multi_thread")]
async fn the_excess_of_a_burst_to_all_gateways_is_deducted() {
    let fleet = fleet(GATEWAYS, "").await;
    let clients = clients(&fleet);
    let start = Instant::now();
    let burst = clients.iter().flat_map(|client| (0..QUOTA + 5).map(|_| client.get("/v1/limited")));
    let answers = join_all(burst).await;
    let total = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((QUOTA..=GATEWAYS * QUOTA + 5).contains(&total), "{total}");
    // The caller owes the excess. At every gateway, it must wait until the quota has refilled by the whole excess.
    let owed = u32::try_from(total + 1 - QUOTA).expect("a small number");
    for client in &clients {
        let wait = eventually_some("the gateway knows of all requests", SOON, async || {
            let answer = client.get("/v1/limited").await;
            answer.is_problem(429, "rate-limited");
            let wait = answer.header("retry-after").parse().expect("seconds");
            let wait = Duration::from_secs(wait);
            // `Retry-After` is rounded up.
            (wait + start.elapsed() + Duration::from_secs(1) >= REFILL * owed).then_some(wait)
        });
        let wait = wait.await;
        println!(
            "a burst got {total} requests; after {:?}, the caller must wait for {wait:?}",
            start.elapsed()
        );
        assert!(wait <= REFILL * owed + Duration::from_secs(1), "{wait:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drains_sends_a_last_message() {
    // The next regular report would be sent too late.
    let mut fleet = fleet(2, "[gateway.rate_limits]\ninterval = '10s'\n").await;
    let clients = clients(&fleet);
    let answers = join_all((0..QUOTA).map(|_| clients[0].get("/v1/limited"))).await;
    for answer in answers {
        answer.is(200);
    }
    assert!(fleet.gateways[0].stop().await.success());
    eventually_some("the other gateway knows of the requests", SOON, async || {
        let answer = clients[1].get("/v1/limited").await;
        (answer.status == 429).then_some(())
    })
    .await;
    let received = r#"fjord_rate_limit_messages_total{result="received"}"#;
    assert!(
        fleet.gateways[1].metric(received).await > 0.5,
        "it has not used up a quota of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_each_gateway_enforces_its_own_limit() {
    let mut fleet = fleet(2, "").await;
    let clients = clients(&fleet);
    fleet.nats.servers[0].stop().await;
    for client in &clients {
        let answers = join_all((0..QUOTA + 10).map(|_| client.get("/v1/limited"))).await;
        let limited = answers.iter().filter(|answer| answer.status == 429).count();
        assert!((5..=10).contains(&limited), "{limited}: the quota is {QUOTA}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_violates_the_protocol_is_counted_and_ignored() {
    let fleet = fleet(1, "").await;
    let client = fleet.client();
    client.get("/v1/limited").await.is(200);
    let sender = nats_client(&fleet).await;
    let large = "x".repeat(200 << 10);
    let messages =
        ["{", "[1]", "\u{0}", r#"{"gateway":"x","consumed":{"principals":{"a":1}}}"#, &large];
    for message in messages {
        sender
            .publish("fjord.rate", message.to_owned().into())
            .await
            .expect("the client accepts it");
    }
    sender.flush().await.expect("the server has received the messages");
    let malformed = r#"fjord_rate_limit_messages_total{result="malformed"}"#;
    eventually_some("the messages are counted", SOON, async || {
        let count = fleet.gateways[0].metric(malformed).await;
        (count > 4.5).then_some(())
    })
    .await;
    let answer = client.get("/v1/limited").await;
    assert!(answer.is(200).header("ratelimit").contains("r=28"), "{}", answer.header("ratelimit"));
}

/// The messages contain more callers than the tables have room for, and more consumption than is possible.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_messages_neither_disable_a_limit_nor_block_a_caller_for_long() {
    const MESSAGES: u32 = 26;
    const CALLERS: u32 = 2_900;
    let fleet = fleet(1, "").await;
    let (client, sender) = (fleet.client(), nats_client(&fleet).await);
    let mut messages = sender.subscribe("fjord.rate").await.expect("a subscription");
    sender.flush().await.expect("the server knows the subscription");
    for answer in join_all((0..QUOTA).map(|_| client.get("/v1/limited"))).await {
        answer.is(200);
    }
    let message = timeout(SOON, messages.next()).await.expect("the gateway sends a message");
    let message: Value =
        serde_json::from_slice(&message.expect("a message").payload).expect("JSON");
    let callers = message["consumed"]["addresses"].as_object().expect("an object");
    let key = callers.keys().next().expect("the caller").clone();

    let publish = async |addresses: Value| {
        let message = json!({ "gateway": "other", "consumed": { "addresses": addresses } });
        let sent = sender.publish("fjord.rate", message.to_string().into()).await;
        sent.expect("the client accepts it");
    };
    let window = Duration::from_hours(1);
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).expect("a few days");
    for message in 0..MESSAGES {
        let keys = (message * CALLERS..(message + 1) * CALLERS)
            .map(|number| URL_SAFE_NO_PAD.encode(u128::from(number).to_be_bytes()));
        publish(keys.map(|key| (key, json!(nanoseconds(window)))).collect()).await;
    }
    let received = r#"fjord_rate_limit_messages_total{result="received"}"#;
    eventually_some("the messages are received", SOON, async || {
        (fleet.gateways[0].metric(received).await > f64::from(MESSAGES) - 0.5).then_some(())
    })
    .await;
    client.get("/v1/limited").await.is_problem(429, "rate-limited");

    publish(json!({ key: nanoseconds(48 * window) })).await;
    let wait = eventually_some("the message is counted", SOON, async || {
        let answer = client.get("/v1/limited").await;
        let wait = answer.header("retry-after").parse().map(Duration::from_secs).expect("seconds");
        (wait > window).then_some(wait)
    });
    // There are two gateways, so the caller owes at most two quotas. It may send requests again once it owes less than
    // one.
    let wait = wait.await;
    assert!(wait <= window + REFILL, "{wait:?}");
}
