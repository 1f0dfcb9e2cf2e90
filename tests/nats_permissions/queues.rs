//! Promise: with the shipped NATS configuration and a separate user for each queue, a worker that may serve one queue
//! can do its work, but cannot affect the calls of another queue.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use fjord::lifecycle::Tasks;
use futures_util::StreamExt;
use http::Method;
use serde_json::json;
use tokio::time::timeout;

use super::super::support::client::{HttpResponse, send};
use super::super::support::eventually::{SOON, eventually_some};
use super::super::support::fleet::{Fleet, FleetOptions};
use super::super::support::nats::NatsOptions;
use super::{is_refused, user, violations};

const CATALOGUE: (&str, &str) = (
    "queues.json",
    r#"{
  "payment": {
    "route": "POST /v1/payments", "queue": "payments", "procedure": "ledger.write",
    "parameters": {
      "ms": { "in": "body", "type": "int32", "minimum": 0, "maximum": 60000, "default": 0 },
      "request_id": { "in": "context" } },
    "result": "row", "timeout": "8s", "session": "40s", "auth": "public" },
  "payments-slow": {
    "route": "GET /v1/payments", "queue": "payments", "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "minimum": 0, "maximum": 60000, "default": 1000 } },
    "result": "value", "timeout": "8s", "session": "40s", "auth": "public" },
  "report": {
    "route": "GET /v1/reports", "queue": "reports", "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "minimum": 0, "maximum": 60000, "default": 1000 } },
    "result": "value", "timeout": "8s", "session": "40s", "auth": "public" }
}"#,
);

/// The id of the hostile worker.
const HOSTILE: &str = "hostile";

async fn fleet(nats_servers: usize) -> Fleet {
    let mut fleet = Fleet::start(FleetOptions {
        nats_servers,
        nats: NatsOptions { is_shipped: true, ..NatsOptions::default() },
        workers: 0,
        concurrency: 1,
        catalogue: Some(CATALOGUE),
        ..FleetOptions::default()
    })
    .await;
    fleet.add_worker_as("worker-payments", "payments").ready().await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_for_each_queue_suffices() {
    let mut fleet = fleet(3).await;
    fleet.add_worker_as("worker-reports", "reports").ready().await;
    let client = fleet.client();
    client.send(Method::POST, "/v1/payments", &json!({ "ms": 10 })).await.is(200);
    // There are more callers than slots, so workers and gateways send progress, refusals, offers and declines.
    let callers: Vec<_> = (0..6)
        .flat_map(|_| ["/v1/payments?ms=300", "/v1/reports?ms=300"])
        .map(|path| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get(path).await.is(200).status })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.expect("the caller does not panic"), 200);
    }
    // The gateway sends one cancel message to all workers of the queue, and another one to the worker that is running
    // the call.
    for wait in [50, 700] {
        let response = client.request(Method::GET, "/v1/reports?ms=30000");
        let response = response.timeout(Duration::from_millis(wait)).send().await;
        assert!(response.is_err(), "the client has disconnected");
    }
    let running = r#"fjord_worker_running{queue="reports"}"#;
    eventually_some("the calls are stopped", SOON, async || {
        (fleet.workers[1].metric(running).await < 0.5).then_some(())
    })
    .await;
    // A connection breaks while a call is running, so the gateway requests the lost answer again.
    let slow = client.clone();
    let response = Tasks::new().spawn(async move { slow.get("/v1/reports?ms=1000").await });
    eventually_some("it runs", SOON, async || {
        (fleet.workers[1].metric(running).await > 0.5).then_some(())
    })
    .await;
    fleet.nats.servers[0].restart().await;
    fleet.wait_for_nats_routes().await;
    drop(response.await.expect("the task does not panic"));
    eventually_some("all clients are still served", SOON, async || {
        (client.get("/v1/reports?ms=1").await.status == 200).then_some(())
    })
    .await;
    for node in fleet.workers.iter_mut().chain(&mut fleet.gateways) {
        assert!(node.stop().await.success());
    }
    assert_eq!(violations(&mut fleet), Vec::<String>::new());
}

/// A hostile worker of the queue `reports`. It can send any message that NATS permits.
struct HostileWorker {
    client: Client,
    requests: Subscriber,
    direct: Subscriber,
}

impl HostileWorker {
    async fn join(fleet: &Fleet) -> Self {
        let (client, _errors) = user(fleet, "worker-reports").await;
        let group = "reports".to_owned();
        let requests = client
            .queue_subscribe("fjord.q.reports", group)
            .await
            .expect("the account permits the subject");
        let direct =
            client.subscribe("fjord.w.reports.*.>").await.expect("the account permits the subject");
        client.flush().await.expect("the connection is open");
        Self { client, requests, direct }
    }

    /// Receives a request of the worker's own queue, whose reply subject reveals the form of other reply subjects.
    async fn request(&mut self) -> Message {
        timeout(SOON, self.requests.next())
            .await
            .expect("a message arrives in time")
            .expect("a request")
    }

    async fn publish(&self, to: &str, named: &str, headers: &[(&str, &str)]) {
        let mut written = HeaderMap::new();
        for (name, value) in headers {
            written.insert(*name, *value);
        }
        let (to, named) = (to.to_owned(), named.to_owned());
        let published =
            self.client.publish_with_reply_and_headers(to, named, written, "<b>".into());
        published.await.expect("the client accepts it");
        self.client.flush().await.expect("the connection is open");
    }

    /// Sends a message to every likely reply subject, in each form that the worker's own reply subject suggests.
    async fn guess(&self, own_subject: &str, named: &str, headers: &[(&str, &str)]) {
        let (base, tail) =
            own_subject.split_once(".r.").expect("the reply subject has the form of a gateway");
        let numbers: Vec<&str> = tail.split('.').collect();
        let request: u64 = numbers[1].parse().expect("a number");
        for (queue, near) in (0..20_u64).flat_map(|queue| (0..6).map(move |near| (queue, near))) {
            let guessed = format!("{base}.r.{queue}.{}.1", (request + 3).saturating_sub(near));
            self.publish(&guessed, named, headers).await;
            for token in numbers.get(3..).unwrap_or_default() {
                self.publish(&format!("{guessed}.{token}"), named, headers).await;
            }
        }
    }
}

const FINAL: &[(&str, &str)] =
    &[("Fjord-Reply", "final"), ("Fjord-Status", "201"), ("Content-Type", "text/html")];

fn send_payment(fleet: &Fleet, ms: u32) -> tokio::task::JoinHandle<HttpResponse> {
    let client = fleet.client();
    Tasks::new()
        .spawn(async move { client.send(Method::POST, "/v1/payments", &json!({ "ms": ms })).await })
}

fn request_report(fleet: &Fleet) -> tokio::task::JoinHandle<HttpResponse> {
    let client = fleet.client();
    Tasks::new().spawn(async move { client.get("/v1/reports?ms=1").await })
}

/// Waits until the worker of the queue `payments` runs a call.
async fn wait_until_running(fleet: &Fleet) {
    let running = r#"fjord_worker_running{queue="payments"}"#;
    eventually_some("a payment runs", SOON, async || {
        (fleet.workers[0].metric(running).await > 0.5).then_some(())
    })
    .await;
}

async fn rejected(fleet: &Fleet, reason: &str) -> f64 {
    let metric = format!(r#"fjord_gateway_replies_rejected_total{{reason="{reason}"}}"#);
    fleet.gateways[0].metric(&metric).await
}

/// Waits until replies have been rejected for the given reason and the log names the worker.
async fn wait_for_rejection(fleet: &Fleet, reason: &str, worker: &str) {
    eventually_some(format!("{reason} is counted and logged"), SOON, async || {
        let log = fleet.gateways[0].process.log();
        let line = log.lines().any(|line| {
            line.contains("dropping a reply") && line.contains(reason) && line.contains(worker)
        });
        (line && rejected(fleet, reason).await > 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_another_queues_call_cannot_be_forged() {
    let fleet = fleet(1).await;
    let mut hostile = HostileWorker::join(&fleet).await;
    let report = request_report(&fleet);
    let own_subject = hostile.request().await.reply.expect("a reply subject");
    let payment = send_payment(&fleet, 1_500);
    wait_until_running(&fleet).await;
    let named = format!("fjord.w.reports.{HOSTILE}.j.1");
    hostile.guess(&own_subject, &named, FINAL).await;
    // The genuine reply subject is valid only for its own request.
    let paid = payment.await.expect("the task does not panic");
    assert_eq!(paid.is(200).header("content-type"), "application/json");
    wait_for_rejection(&fleet, "token", HOSTILE).await;
    hostile.publish(&own_subject, &named, FINAL).await;
    report.await.expect("the task does not panic").is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invented_offer_does_not_obtain_another_queues_request() {
    let fleet = fleet(1).await;
    let mut hostile = HostileWorker::join(&fleet).await;
    let report = request_report(&fleet);
    let own_subject = hostile.request().await.reply.expect("a reply subject");
    let first = send_payment(&fleet, 1_500);
    wait_until_running(&fleet).await;
    let second = send_payment(&fleet, 0);
    eventually_some("the second request waits", SOON, async || {
        let waits = r#"fjord_gateway_requests_waiting{queue="payments"}"#;
        (fleet.gateways[0].metric(waits).await > 0.5).then_some(())
    })
    .await;
    let direct = format!("fjord.w.reports.{HOSTILE}.o.1");
    hostile.guess(&own_subject, &direct, &[("Fjord-Reply", "offer")]).await;
    wait_for_rejection(&fleet, "token", HOSTILE).await;
    // An offer for the hostile worker's own request is rejected if the subject in it belongs to another queue.
    let others = format!("fjord.w.payments.{HOSTILE}.o.1");
    hostile.publish(&own_subject, &others, &[("Fjord-Reply", "offer")]).await;
    wait_for_rejection(&fleet, "subject", &others).await;
    first.await.expect("the task does not panic").is(200);
    second.await.expect("the task does not panic").is(200);
    while let Ok(Some(message)) = timeout(Duration::from_millis(300), hostile.direct.next()).await {
        let headers = message.headers.unwrap_or_default();
        let control = headers.get("Fjord-Control").map(ToString::to_string);
        assert_eq!(control.as_deref(), Some("decline"), "a request arrived: {:?}", message.payload);
    }
    hostile.publish(&own_subject, &direct, FINAL).await;
    report.await.expect("the task does not panic").is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_queues_offers_requests_and_controls_cannot_be_received() {
    let fleet = fleet(1).await;
    let (client, errors) = user(&fleet, "worker-reports").await;
    let mut kept = Vec::new();
    for subject in ["fjord.w.*.>", "fjord.w.payments.>", "fjord.cancel.payments", "fjord.resend.*"]
    {
        kept.push(client.subscribe(subject).await.expect("the client accepts it"));
        is_refused(&errors, "subscription", subject).await;
    }
    kept.push(
        client
            .queue_subscribe("fjord.q.payments", "payments".to_owned())
            .await
            .expect("the subscription is sent"),
    );
    is_refused(&errors, "subscription", "fjord.q.payments").await;
    let payments: Vec<_> = (0..4).map(|_| send_payment(&fleet, 50)).collect();
    for payment in payments {
        payment.await.expect("the task does not panic").is(200);
    }
    for mut subscription in kept {
        let heard = timeout(Duration::from_millis(50), subscription.next()).await;
        assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cannot_have_another_workers_call_cancelled() {
    let fleet = fleet(1).await;
    // The hostile worker learns the other worker's control subject from an observer that is permitted to receive grants.
    let (watcher, _errors) = user(&fleet, "worker").await;
    let mut grants =
        watcher.subscribe("fjord.w.*.*.>").await.expect("the account permits the subject");
    watcher.flush().await.expect("the connection is open");
    let mut hostile = HostileWorker::join(&fleet).await;
    let payment = send_payment(&fleet, 2_500);
    let grant =
        timeout(SOON, grants.next()).await.expect("a message arrives in time").expect("a grant");
    // In each kind of reply, the hostile worker passes off the other call's control subject as its own. Then the client of its
    // own request disconnects.
    let client = fleet.client();
    let response =
        client.request(Method::GET, "/v1/reports?ms=1").timeout(Duration::from_millis(900));
    let response = Tasks::new().spawn(async move { response.send().await.is_err() });
    let own_subject = hostile.request().await.reply.expect("a reply subject");
    for kind in ["progress", "claim", "refused", "offer"] {
        let headers = [("Fjord-Reply", kind), ("Fjord-Reason", "busy")];
        hostile.publish(&own_subject, &grant.subject, &headers).await;
    }
    let part = [("Fjord-Reply", "part"), ("Fjord-Part", "1"), ("Fjord-Status", "200")];
    hostile.publish(&own_subject, &grant.subject, &part).await;
    assert!(response.await.expect("the task does not panic"), "the client has disconnected");
    payment.await.expect("the task does not panic").is(200);
    wait_for_rejection(&fleet, "subject", &grant.subject).await;
    assert!(rejected(&fleet, "subject").await > 4.5, "every reply is rejected");
}

/// Even within a queue, only the worker that executes a call can reply to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_belongs_to_the_first_worker_that_replies() {
    let fleet = fleet(1).await;
    let mut hostile = HostileWorker::join(&fleet).await;
    let client = fleet.client();
    let report = client.request(Method::GET, "/v1/reports?ms=1");
    let report = Tasks::new().spawn(send(report));
    let own_subject = hostile.request().await.reply.expect("a reply subject");
    hostile
        .publish(&own_subject, "fjord.w.reports.first.j.1", &[("Fjord-Reply", "progress")])
        .await;
    let other = format!("fjord.w.reports.{HOSTILE}.j.1");
    let garbage = [("Fjord-Reply", "final"), ("Fjord-Status", "tea")];
    let refused = [("Fjord-Reply", "refused"), ("Fjord-Reason", "expired")];
    for headers in [&garbage[..], &refused, &[("Fjord-Reply", "claim")], FINAL] {
        hostile.publish(&own_subject, &other, headers).await;
    }
    wait_for_rejection(&fleet, "worker", HOSTILE).await;
    assert!(rejected(&fleet, "worker").await > 3.5, "every reply is rejected");
    let answer = [("Fjord-Reply", "final"), ("Fjord-Status", "202")];
    hostile.publish(&own_subject, "fjord.w.reports.first.j.1", &answer).await;
    report.await.expect("the task does not panic").is(202);
}
