//! Promise: with the shipped NATS configuration, each role has exactly the permissions that it needs on a cluster of
//! three servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::support::client::get_page_data;
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::{NatsOptions, SHIPPED_PASSWORD};

mod queues;

async fn fleet(workers: usize) -> Fleet {
    Fleet::start(FleetOptions {
        nats_servers: 3,
        nats: NatsOptions { is_shipped: true, ..NatsOptions::default() },
        gateways: 2,
        workers,
        concurrency: 2,
        ..FleetOptions::default()
    })
    .await
}

/// Returns the permission violations that NATS has logged.
fn violations(fleet: &mut Fleet) -> Vec<String> {
    let servers = fleet.nats.servers.iter_mut();
    let logs = servers.map(|server| server.process().log()).collect::<Vec<_>>().concat();
    logs.lines().filter(|line| line.contains("Violation")).map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_permissions_suffice() {
    let mut fleet = fleet(2).await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    client.send(Method::POST, "/v1/once", &json!({ "ms": 10 })).await.is(200);
    // There are more callers than slots, so workers and gateways send progress, refusals, offers and declines.
    let callers: Vec<_> = (0..12)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get("/v1/slow?ms=400").await.is(200).status })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.expect("the caller does not panic"), 200);
    }
    // This answer is sent in parts.
    assert!(client.get("/v1/large?rows=20000").await.is(200).body.len() > 1 << 20);
    // The first cancel message is sent to all workers, because none has reported progress yet. The second one is
    // sent to the worker that is running the call.
    for wait in [50, 700] {
        let response = client.request(Method::GET, "/v1/slow?ms=30000");
        let response = response.timeout(Duration::from_millis(wait)).send().await;
        assert!(response.is_err(), "the client has disconnected");
    }
    let running = r#"fjord_worker_running{queue="slow"}"#;
    eventually_some("the calls are stopped", SOON, async || {
        let calls = fleet.workers[0].metric(running).await + fleet.workers[1].metric(running).await;
        (calls < 0.5).then_some(())
    })
    .await;
    // The restart breaks connections, after which gateways request the answers that they missed.
    fleet.nats.servers[0].restart().await;
    fleet.wait_for_nats_routes().await;
    eventually_some("requests are served again", SOON, async || {
        let answer = client.get("/v1/echo/a").await;
        (answer.status == 200).then_some(())
    })
    .await;
    // These are the pages of the admin listeners. The page of a gateway shows the fleet.
    for (process, number) in [(&fleet.gateways[0], 4), (&fleet.workers[0], 1)] {
        eventually_some(format!("the page shows {number} processes"), SOON, async || {
            let data = get_page_data(process).await?;
            (data["processes"].as_array()?.len() == number).then_some(())
        })
        .await;
    }
    // Both roles drain.
    for node in fleet.workers.iter_mut().chain(&mut fleet.gateways) {
        assert!(node.stop().await.success());
    }
    assert_eq!(violations(&mut fleet), Vec::<String>::new());
}

/// Connects as the user `name`. Returns the client, and the errors that the server reports.
pub(crate) async fn user(fleet: &Fleet, name: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
    let server_errors = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&server_errors);
    let client =
        ConnectOptions::with_user_and_password(name.to_owned(), SHIPPED_PASSWORD.to_owned())
            .add_root_certificates(fleet.certs.ca.clone())
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    heard.lock().unwrap().push(error.to_string().to_lowercase());
                }
                std::future::ready(())
            })
            .connect(fleet.nats.urls()[0].as_str())
            .await
            .expect("the connection succeeds");
    (client, server_errors)
}

async fn is_refused(server_errors: &Mutex<Vec<String>>, what: &str, subject: &str) {
    let subject = subject.to_lowercase();
    eventually_some(format!("{what} {subject} is refused"), SOON, async || {
        let server_errors = server_errors.lock().unwrap();
        let found = server_errors.iter().any(|line| {
            line.contains("permissions violation") && line.contains(what) && line.contains(&subject)
        });
        found.then_some(())
    })
    .await;
}

/// The users, each with the subjects to which it may not publish and the subjects to which it may not subscribe.
const USERS: [(&str, &[&str], &[&str]); 6] = [
    (
        "gateway",
        &[
            "_INBOX_worker.x",
            "$SRV.PING",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "fjord.q.echo.x",
            "fjord.w.echo.x",
        ],
        &["fjord.q.echo", "fjord.w.>", "fjord.cancel.echo", "fjord.resend.echo", "_INBOX_worker.>"],
    ),
    (
        "worker",
        &[
            "fjord.q.echo",
            "fjord.w.echo.x.j.1",
            "fjord.cancel.echo",
            "fjord.resend.echo",
            "fjord.status",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "$SRV.PING",
            "_INBOX_gateway.x",
            "_INBOX_gateway.x.flush.1",
            "_INBOX_worker-payments.x",
        ],
        // A subscription without a queue group would receive requests that are meant for other workers.
        &["fjord.q.echo", "fjord.q.>", "fjord.rate", "_INBOX_gateway.>", "_INBOX_operator.>"],
    ),
    (
        "worker-reports",
        &[
            "fjord.q.reports",
            "fjord.w.reports.x.j.1",
            "fjord.w.payments.x.j.1",
            "fjord.cancel.reports",
            "fjord.resend.reports",
            "fjord.status",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "$SRV.PING",
            "_INBOX_gateway.x",
            "_INBOX_worker-payments.x",
        ],
        &[
            "fjord.q.reports",
            "fjord.q.payments",
            "fjord.q.*",
            "fjord.w.*.>",
            "fjord.w.payments.>",
            "fjord.w.payments.x.>",
            "fjord.cancel.payments",
            "fjord.cancel.*",
            "fjord.resend.payments",
            "fjord.resend.*",
            "fjord.>",
            "fjord.rate",
            "_INBOX_gateway.>",
            "_INBOX_worker-payments.>",
            "_INBOX_operator.>",
        ],
    ),
    (
        "operator",
        &[
            "fjord.q.echo",
            "fjord.w.echo.x.j.1",
            "fjord.resend.echo",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "_INBOX_gateway.x",
            "_INBOX_worker.x",
            "_INBOX_controller.x",
        ],
        &[
            "fjord.q.echo",
            "fjord.w.>",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "$SRV.PING",
            "_INBOX_gateway.>",
            "_INBOX_worker.>",
            "_INBOX_controller.>",
        ],
    ),
    (
        "controller",
        &[
            "fjord.q.echo",
            "fjord.w.echo.x.j.1",
            "fjord.cancel.echo",
            "fjord.resend.echo",
            "fjord.rate",
            "$SRV.PING",
            "_INBOX_gateway.x",
            "_INBOX_worker.x",
            "_INBOX_operator.x",
        ],
        &[
            "fjord.q.echo",
            "fjord.w.>",
            "fjord.status",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "_INBOX_gateway.>",
            "_INBOX_worker.>",
            "_INBOX_operator.>",
        ],
    ),
    (
        "caller",
        &[
            "fjord.resend.echo",
            "fjord.status",
            "fjord.rate",
            "fjord.control",
            "fjord.control.queue",
            "fjord.control.log",
            "$SRV.PING",
            "_INBOX_gateway.x",
            "_INBOX_worker.x",
        ],
        &[
            "fjord.q.echo",
            "fjord.w.>",
            "fjord.status",
            "fjord.rate",
            "_INBOX_gateway.>",
            "_INBOX_worker.>",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_can_do_nothing_else() {
    let fleet = fleet(1).await;
    let common = ["other", "$SYS.REQ.SERVER.PING", "$JS.API.INFO", "_INBOX.x", "fjord.x"];
    for (name, publish, subscribe) in USERS {
        let (client, server_errors) = user(&fleet, name).await;
        for subject in publish.iter().chain(&common) {
            client.publish((*subject).to_owned(), "x".into()).await.expect("the client accepts it");
            is_refused(&server_errors, "publish", subject).await;
        }
        let mut subscriptions = Vec::new();
        for subject in subscribe.iter().chain(&common).chain(&[">"]) {
            subscriptions.push(
                client.subscribe((*subject).to_owned()).await.expect("the client accepts it"),
            );
            is_refused(&server_errors, "subscription", subject).await;
        }
    }
    let anonymous = ConnectOptions::new().add_root_certificates(fleet.certs.ca.clone());
    assert!(
        anonymous.connect(fleet.nats.urls()[0].as_str()).await.is_err(),
        "a connection without credentials"
    );
}
