//! Problems with the connection to NATS: refused messages, dropped messages, and subscriptions that the server
//! lacks.

use std::time::Duration;

use super::{next_view, watch};
use crate::fleet_status::status_command::status;
use crate::support::caller_pool::CallerPool;
use crate::support::client::get_json;
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::line_filter_proxy::LineFilterProxy;
use crate::support::nats::NatsOptions;
use crate::support::ports;

/// Users with full permissions, except that each of them may not publish to one subject.
const USERS: &str = r#"
authorization { users: [
  { user: fjord, password: secret, permissions: { publish: { deny: ["fjord.q.strict"] } } }
  { user: no-status, password: secret, permissions: { publish: { deny: ["fjord.status"] } } }
  { user: no-inbox, password: secret, permissions: { publish: { deny: ["_INBOX.>"] } } }
] }
"#;

fn options() -> FleetOptions {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    FleetOptions { nats, nats_keys: "ping_interval = '1s'\n".to_owned(), ..FleetOptions::default() }
}

/// Waits until one of the process's notes about a subject contains a text, and returns the note.
async fn note(process: &FjordProcess, about: &str, text: &str) -> String {
    eventually_some(format!("a note: {text}"), SOON, async || {
        let ready = get_json(&format!("http://{}/readyz", process.admin())).await?;
        let note = ready["notes"][about].as_str()?;
        note.contains(text).then(|| note.to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_to_which_the_user_may_not_publish_is_named() {
    let mut options = options();
    options.nats.extra = USERS.to_owned();
    options.nats_keys.push_str("user = 'fjord'\npassword = 'secret'\n");
    let fleet = Fleet::start(options).await;
    let gateway = &fleet.gateways[0];
    let refused = r#"fjord_nats_permission_violations_total{operation="publish"}"#;
    assert!(gateway.metric(refused).await < 0.5);
    fleet.client().get("/v1/strict?ms=1").await.is(504);
    assert!(gateway.metric(refused).await > 0.5, "it is counted");
    let text = "NATS does not permit this user to publish to fjord.q.strict";
    println!("{}", note(gateway, "nats permissions", text).await);
    let log = gateway.process.log();
    assert!(log.contains("does not permit this user to publish to the subject"), "{log}");
    let page = status(gateway.directory(), &["--interval", "1"]).output().expect("fjord runs");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains(&format!("nats permissions: {text}")), "{page}");
    let as_user = |user: &str| {
        let user = format!("messaging.nats.user={user}");
        let arguments = ["--interval", "1", "--set", user.as_str()];
        let output = status(gateway.directory(), &arguments).output().expect("fjord runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let failure = as_user("no-status");
    let text = "error: no reply on fjord.status: NATS does not permit this user to publish to fjord.status";
    assert!(failure.contains(text), "{failure}");
    let failure = as_user("no-inbox");
    let text = "error: no connection to NATS within 5s: NATS does not permit this user to publish to _INBOX";
    assert!(failure.contains(text), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_to_connect_names_every_server_with_its_cause() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let closed = ports::pick();
    let text = format!(
        "[messaging.nats]\nservers = ['nats://127.0.0.1:{closed}', 'nats://nowhere.invalid:4222']\n\
         insecure_plain_text = true\nreconnect_delay_max = '100ms'\nconnect_timeout = '300ms'\n"
    );
    std::fs::write(home.path().join("fjord.toml"), text).expect("the file can be written");
    let output = status(home.path(), &[]).output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(1));
    let failure = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(failure.contains(&format!("127.0.0.1:{closed}: ")), "{failure}");
    assert!(failure.contains("refused"), "{failure}");
    assert!(failure.contains("nowhere.invalid:4222: "), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_messages_are_shown() {
    let mut options = options();
    options.nats_keys.push_str("subscription_messages_max = 64\n");
    let mut fleet = Fleet::start(options).await;
    let dropped = r#"fjord_nats_events_total{event="slow_consumer"}"#;
    assert!(fleet.workers[0].metric(dropped).await < 0.5);
    // The server keeps the messages while the process is suspended, so all of them arrive at the same time.
    fleet.workers[0].process.pause();
    let queries = "PUB fjord.status 0\r\n\r\n".repeat(20_000);
    fleet.nats.servers[0].send_raw("", queries.as_bytes()).await;
    fleet.workers[0].process.resume();
    let worker = &fleet.workers[0];
    let note = note(worker, "nats messages", "this process reads too slowly").await;
    println!("{note}");
    assert!(worker.metric(dropped).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_notices_that_the_server_does_not_have_its_subscription() {
    let port = ports::pick();
    let target = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    // The proxy withholds the gateway's subscription to all replies.
    let proxy = LineFilterProxy::start(target, ".r.>").await;
    let mut options = options();
    options.nats.port = Some(port);
    options.environment =
        vec![("FJORD_MESSAGING__NATS__SERVERS", format!("[\"nats://{}\"]", proxy.address))];
    let fleet = Fleet::start(options).await;
    assert!(proxy.has_withheld(), "the gateway has subscribed");
    let gateway = &fleet.gateways[0];
    let lost = "fjord_nats_subscriptions_lost_total";
    eventually_some("the gateway notices it", SOON, async || {
        (gateway.metric(lost).await > 0.5).then_some(())
    })
    .await;
    assert!(gateway.process.log().contains("does not have a subscription of this process"));
    eventually_some("requests are answered", SOON, async || {
        (fleet.client().get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
    eventually_some("the subscription is not refused any more", SOON, async || {
        (gateway.metric("fjord_nats_subscriptions_refused").await < 0.5).then_some(())
    })
    .await;
    let before = gateway.metric(lost).await;
    for_a_while(Duration::from_secs(4)).await;
    assert!((gateway.metric(lost).await - before).abs() < 0.5, "the check finds no other loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_queue_subscription_does_not_reach_the_server_is_named() {
    let port = ports::pick();
    let target = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let proxy = LineFilterProxy::start(target, "SUB fjord.q.echo ").await;
    let mut options = options();
    options.nats.port = Some(port);
    options.environment =
        vec![("FJORD_MESSAGING__NATS__SERVERS", format!("[\"nats://{}\"]", proxy.address))];
    let mut fleet = Fleet::start(options).await;
    eventually_some("the worker subscribes", SOON, async || {
        let ready = r#"fjord_worker_queue_ready{queue="echo"}"#;
        (proxy.has_withheld() && fleet.workers[0].metric(ready).await > 0.5).then_some(())
    })
    .await;
    // The queue has only this worker.
    let (mut watching, mut views) = watch(fleet.gateways[0].directory(), "4");
    for _ in 0..5 {
        fleet.client().get("/v1/echo/a").await.is_problem(503, "no-workers");
    }
    let unserved = r#"fjord_gateway_attempts_unserved_total{queue="echo"}"#;
    assert!(fleet.gateways[0].metric(unserved).await > 0.5);
    let view = next_view(&mut views);
    drop(views);
    watching.kill().expect("it runs");
    watching.wait().expect("it ends");
    let start = "The bottleneck is queue echo: 1 worker reports that it serves the queue, but NATS found none";
    let sentence = view["bottleneck"]["sentence"].as_str().expect("a sentence");
    assert!(sentence.starts_with(start), "{sentence}");
    // After this, the queue has a second worker.
    fleet.add_worker().ready().await;
    let callers = CallerPool::start(&[fleet.client()], "/v1/echo/a", 200, 4);
    let page = eventually_some("the idle worker is named", SOON * 2, async || {
        let page = status(fleet.gateways[0].directory(), &["--interval", "2"]).output();
        let page = String::from_utf8_lossy(&page.expect("fjord runs").stdout).into_owned();
        page.contains(" received no requests for queue echo, while NATS delivered").then_some(page)
    })
    .await;
    println!("{page}");
    callers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_ended_is_replaced_and_named() {
    let fleet = Fleet::start(options()).await;
    // The client library cannot parse these headers, so its connection task panics.
    let headers = b"NATS/1.0\r\nX: a\rb\r\n\r\n";
    let size = headers.len();
    let line = format!("HPUB fjord.status _INBOX.x {size} {size}\r\n");
    let lines = [line.as_bytes(), headers, b"\r\n"].concat();
    fleet.nats.servers[0].send_raw("", &lines).await;
    for process in [&fleet.gateways[0], &fleet.workers[0]] {
        let note = note(process, "nats client", "because the client had ended").await;
        println!("{note}");
    }
}
