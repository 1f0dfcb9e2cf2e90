//! Promise: a broken link to NATS is detected within two pings, reported, and repaired without a restart.

use std::time::{Duration, Instant};

use fjord::config::messaging::TransportConfig;
use fjord::config::{Config, Sources};
use fjord::messaging::{self, TransportError, nats};
use http::Method;
use serde_json::{Value, json};

mod subscriptions;

use super::support::certs::Certs;
use super::support::client::{Client, get_json};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use super::support::nats::{NatsOptions, NatsServer};
use super::support::random::SeededRandom;

/// The ping interval. It is longer than any delay on a busy machine.
const PING: Duration = Duration::from_secs(2);

fn options() -> FleetOptions {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    FleetOptions { nats, nats_keys: "ping_interval = '2s'\n".to_owned(), ..FleetOptions::default() }
}

fn all(fleet: &Fleet) -> impl Iterator<Item = &FjordProcess> {
    fleet.gateways.iter().chain(&fleet.workers)
}

async fn is_ready(node: &FjordProcess) -> bool {
    get_json(&format!("http://{}/readyz", node.admin())).await.is_some()
}

async fn wait_until_served(client: &Client, fleet: &Fleet, what: &str) {
    eventually_some(format!("{what}: served again"), SOON + PING * 2, async || {
        for node in all(fleet) {
            if !is_ready(node).await {
                return None;
            }
        }
        let answer = client.try_send(Method::GET, "/v1/echo/a", None).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Returns every subject with a subscription on a server.
async fn subjects(server: &NatsServer) -> Vec<String> {
    let url = format!("{}/connz?subs=1", server.monitoring());
    let connections = get_json(&url).await.expect("the server answers with its connections");
    let connections = connections["connections"].as_array().expect("a list").clone();
    let lists =
        connections.iter().filter_map(|connection| connection["subscriptions_list"].as_array());
    lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Messages whose headers async-nats 0.51 cannot parse. The first one terminates its client, and the others terminate
/// its connection.
const POISONS: [&[u8]; 3] = [
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nX: a\xffb\r\n\r\n",
    b"NATS/1.0\r\nX y: ab\r\n\r\n",
];

async fn poison(server: &NatsServer, subject: &str, headers: &[u8]) {
    let size = headers.len();
    let line = format!("HPUB {subject} _INBOX.x {size} {size}\r\n");
    server.send_raw("", &[line.as_bytes(), headers, b"\r\n"].concat()).await;
}

async fn disturbances(node: &FjordProcess) -> f64 {
    node.metric("fjord_nats_reconnects_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_ends_a_client_permanently() {
    let mut options = options();
    // The delay grows when connections are short-lived, and each message of this test breaks a connection.
    options.nats_keys.push_str("reconnect_delay_max = '100ms'\n");
    let fleet = Fleet::start(options).await;
    let (server, client) = (&fleet.nats.servers[0], fleet.client());
    let mut targets: Vec<String> = subjects(server).await;
    targets.retain(|subject| !subject.contains("echo.>"));
    targets.sort();
    targets.dedup();
    let has = |part: &str| targets.iter().any(|subject| subject.contains(part));
    assert!(
        ["fjord.status", "$SRV.PING", "fjord.q.", "fjord.cancel.", "_INBOX."]
            .iter()
            .all(|s| has(s))
    );
    // One message of each kind is enough.
    let kinds =
        ["fjord.status", "$SRV.PING", "fjord.q.echo", "fjord.w.", "fjord.resend", "_INBOX."];
    for kind in kinds {
        let subject = targets.iter().find(|subject| subject.starts_with(kind)).expect(kind);
        let subject = subject.replace('>', "1.2.3").replace('*', "x");
        for headers in POISONS {
            let before =
                disturbances(&fleet.gateways[0]).await + disturbances(&fleet.workers[0]).await;
            poison(server, &subject, headers).await;
            eventually_some(format!("{subject} is received"), PING * 2, async || {
                let now =
                    disturbances(&fleet.gateways[0]).await + disturbances(&fleet.workers[0]).await;
                (now > before).then_some(())
            })
            .await;
            wait_until_served(&client, &fleet, &subject).await;
        }
    }
    for node in all(&fleet) {
        let ended = node.metric(r#"fjord_nats_clients_replaced_total{reason="ended"}"#).await;
        assert!(ended > 0.5, "{}: the replaced client is counted", node.role());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_bad_messages_cause_no_reconnect_storm() {
    const TIMES: usize = 400;
    let fleet = Fleet::start(options()).await;
    let (server, client) = (&fleet.nats.servers[0], fleet.client());
    for number in 0..TIMES {
        poison(server, "fjord.status", POISONS[number % POISONS.len()]).await;
    }
    for node in all(&fleet) {
        eventually_some("the messages have reached every process", SOON, async || {
            (disturbances(node).await >= 1.0).then_some(())
        })
        .await;
    }
    wait_until_served(&client, &fleet, "after a storm").await;
    for node in all(&fleet) {
        let again = disturbances(node).await;
        assert!(again < 40.0, "{}: {again} connections", node.role());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_detected_within_two_pings() {
    let mut fleet = Fleet::start(options()).await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    fleet.nats.servers[0].process().pause();
    let since = Instant::now();
    // The half second is a margin for the processes, which share the machine with other tests.
    let limit = PING * 2 + Duration::from_millis(500);
    for node in all(&fleet) {
        eventually_some("the stopped server is detected", limit, async || {
            (node.metric("fjord_nats_connected").await < 0.5).then_some(())
        })
        .await;
        assert!(since.elapsed() < limit, "{:?}", since.elapsed());
        assert!(!is_ready(node).await, "{} reports ready", node.role());
        let silent = node.metric(r#"fjord_nats_clients_replaced_total{reason="silent"}"#).await;
        assert!(silent > 0.5, "the replaced client is counted");
    }
    fleet.nats.servers[0].process().resume();
    wait_until_served(&client, &fleet, "after a stall").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_max_payload_is_used_after_a_reload() {
    const SMALL: &str = "max_payload: 65536";
    let mut options = options();
    options.nats.payload_bytes_max = 65_536;
    let mut fleet = Fleet::start(options).await;
    let client = fleet.client();
    let body = json!({ "note": "n".repeat(100_000) });
    client.send(Method::PUT, "/v1/keep/1", &body).await.is(413);
    fleet.nats.servers[0].edit(SMALL, "max_payload: 1048576");
    fleet.nats.servers[0].reload().await;
    // The gateway queries the limit at most once every ten seconds, and has just done so.
    eventually_some("the request is accepted", SOON * 2, async || {
        let answer = client.send(Method::PUT, "/v1/keep/1", &body).await;
        assert!([200, 413, 503].contains(&answer.status.as_u16()), "{}", answer.status);
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_while_nats_is_stopped_loses_no_response() {
    const STOP_TIME: Duration = Duration::from_secs(3);
    let mut fleet =
        Fleet::start(FleetOptions { workers: 3, concurrency: 16, ..FleetOptions::default() }).await;
    let mut seed = SeededRandom::new();
    let rotation = GatewayRotation::new(vec![fleet.client()]);
    // Several loads run concurrently, because a single one has too few concurrent callers.
    let loads: Vec<_> = (0..5).map(|_| LedgerLoad::start(&rotation, &mut seed)).collect();
    let load = &loads[0];
    load.wait_for_more(100).await;
    for number in 0..fleet.workers.len() {
        fleet.nats.servers[0].process().pause();
        let since = Instant::now();
        fleet.workers[number].process.terminate();
        eventually_some("the time of the stop", STOP_TIME * 2, async || {
            (since.elapsed() > STOP_TIME).then_some(())
        })
        .await;
        fleet.nats.servers[0].process().resume();
        let status = fleet.workers[number].process.wait(Duration::from_secs(40)).await;
        assert_eq!(status.code(), Some(0), "{}", fleet.workers[number].process.log_tail());
        fleet.workers[number].restart();
        fleet.workers[number].ready().await;
        load.wait_for_more(100).await;
    }
    let mut answers = Vec::new();
    for load in loads {
        answers.extend(load.stop().await);
    }
    reconcile("NATS is stopped while workers restart", &answers, fleet.ledger()).all_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_never_connected_ends_at_once() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    fleet.nats.servers[0].kill();
    let Fleet { gateways, workers, .. } = &mut fleet;
    for node in gateways.iter_mut().chain(workers) {
        node.restart();
        eventually_some("it tries to connect", SOON, async || {
            node.process.log().contains("cannot connect to NATS").then_some(())
        })
        .await;
        let begin = Instant::now();
        let status = node.stop().await;
        assert_eq!(status.code(), Some(0), "{}", node.process.log_tail());
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "a process that sent nothing need not wait for a flush"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_fails_once_the_link_is_lost_and_not_only_at_its_timeout() {
    let home = tempfile::tempdir().expect("a directory");
    let certs = Certs::new(&home.path().join("certs"));
    let options = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let mut server = NatsServer::start(home.path(), &certs, &options).await;
    let directory = home.path().join("config");
    std::fs::create_dir(&directory).expect("a directory");
    let keys = "insecure_plain_text = true\nping_interval = '1s'\noperation_timeout = '60s'\n";
    let text = format!("[messaging.nats]\nservers = ['{}']\n{keys}", server.url());
    std::fs::write(directory.join("fjord.toml"), text).expect("a file");
    let sources = Sources { directory: Some(directory), ..Sources::default() };
    let config = Config::load(&sources).expect("a valid configuration").config;
    let TransportConfig::Nats(settings) = &config.messaging.transport;
    let transport = nats::connect(settings, "flush").await.expect("a transport");
    messaging::wait_until_up(&mut transport.link()).await.expect("a connection");
    server.process().pause();
    let flushed = tokio::time::timeout(SOON, transport.flush()).await;
    assert!(matches!(flushed, Ok(Err(TransportError::Disconnected))), "{flushed:?}");
    server.process().resume();
}
