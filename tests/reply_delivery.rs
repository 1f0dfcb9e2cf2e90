//! Promise: an answer reaches its client even if the gateway cannot send messages to workers in the meantime. The task
//! that reads replies never waits, and the bytes of replies that have not been processed are bounded.

use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::large_answers::memory::{reset_peak, status};
use super::support::client::{HttpResponse, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::ports;
use super::support::raw_client::RawClient;
use super::support::raw_nats::{RawNatsClient, RawNatsMessage};
use super::support::stalling_proxy::StallingProxy;

/// The number of calls that run when NATS stops reading from the gateway.
const CALLS: usize = 8;
/// The number of claims that a worker sends during the stall. If the gateway spent two seconds on the reply to each claim,
/// every session would time out.
const CLAIMS: usize = 100;
/// The number of large requests. Together, they exceed the socket buffers on the path.
const LARGE_REQUESTS: usize = 10;
/// The number of small requests. Together, they exceed the gateway's own queues if `commands_max` is 16.
const SMALL_REQUESTS: usize = 80;
/// The number of parts of 1 MB in each answer.
const PARTS: usize = 40;

/// A control subject of the worker.
const CONTROL: &str = "fjord.w.foreign.tester.j.7";

/// A gateway that reaches NATS through a stalling proxy, and the worker of queue `foreign`, which connects directly.
struct StalledGateway {
    fleet: Fleet,
    stall: StallingProxy,
    worker: RawNatsClient,
    tasks: Tasks,
}

impl StalledGateway {
    async fn start() -> Self {
        let port = ports::pick();
        let stall = StallingProxy::start(([127, 0, 0, 1], port).into());
        let servers = format!("[\"tls://{}\"]", stall.address);
        // The server must not disconnect a gateway because too much data is pending for it.
        let extra = "allow_non_tls: true\nmax_pending: 1GB\n".to_owned();
        let fleet = Fleet::start(FleetOptions {
            nats: NatsOptions { port: Some(port), extra, ..NatsOptions::default() },
            // The ping interval is longer than the stall, so that a missing pong cannot reveal the stall.
            nats_keys: "ping_interval = '60s'\ncommands_max = 16\nconnect_timeout = '10s'\n"
                .to_owned(),
            environment: vec![("FJORD_MESSAGING__NATS__SERVERS", servers)],
            gateway_toml: "buffered_bytes_per_client_max = '16MiB'\n\
                           [gateway.session]\nanswer_bytes_max = '16MiB'\nwindow_parts = 0\n"
                .to_owned(),
            workers: 0,
            ..FleetOptions::default()
        })
        .await;
        let server = ([127, 0, 0, 1], port).into();
        let worker = RawNatsClient::join(server, "fjord.q.foreign", "foreign").await;
        Self { fleet, stall, worker, tasks: Tasks::new() }
    }

    /// Sends a request whose client disconnects before the worker claims it. Returns the message that the worker received.
    async fn abandoned_request(&mut self) -> RawNatsMessage {
        let gateway = &self.fleet.gateways[0];
        let mut disconnecting =
            RawClient::connect(gateway.https(), &self.fleet.certs, &["http/1.1"]).await;
        let post = "POST /v1/foreign/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        disconnecting.send(post.as_bytes()).await.expect("the request is sent");
        let abandoned_request = self.worker.next().await;
        drop(disconnecting);
        eventually_some("the disconnect is detected", SOON, async || {
            let metric = gateway.metric("fjord_gateway_requests_in_flight ").await;
            (metric < 0.5).then_some(())
        })
        .await;
        abandoned_request
    }

    /// Sends requests. Returns the messages that the worker received, and the tasks of the clients.
    async fn calls(
        &mut self,
        method: Method,
    ) -> (Vec<RawNatsMessage>, Vec<JoinHandle<HttpResponse>>) {
        let client = self.fleet.client();
        let answers = (0..CALLS)
            .map(|_| {
                let request = client.request(method.clone(), "/v1/foreign/a");
                self.tasks.spawn(send(request))
            })
            .collect();
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            calls.push(self.worker.next().await);
        }
        (calls, answers)
    }

    /// Stalls the gateway's connection to NATS until the gateway cannot send the denial of the claim for the abandoned
    /// request.
    async fn stall(&mut self, abandoned_request: &RawNatsMessage, calls: &[RawNatsMessage]) {
        self.stall.pause();
        let client = self.fleet.client();
        let body = json!({ "note": "x".repeat(900_000) });
        for number in 0..LARGE_REQUESTS + SMALL_REQUESTS {
            let request = if number < LARGE_REQUESTS {
                client.request(Method::PUT, "/v1/keep/1").json(&body)
            } else {
                client.request(Method::GET, "/v1/echo/a")
            };
            let _detached = self.tasks.spawn_background(async move { drop(request.send().await) });
        }
        let unsent = r#"fjord_gateway_controls_unsent_total{reason="deny"}"#;
        let (gateway, worker) = (&self.fleet.gateways[0], &mut self.worker);
        eventually_some("NATS no longer reads", SOON, async || {
            for call in calls {
                reply_with(worker, call, "progress").await;
            }
            reply_with(worker, abandoned_request, "claim").await;
            (gateway.metric(unsent).await > 0.5).then_some(())
        })
        .await;
    }
}

async fn reply_with(worker: &mut RawNatsClient, to: &RawNatsMessage, word: &str) {
    let control = if word == "claim" { CONTROL } else { "" };
    worker.publish_from(&to.reply, control, &[("Fjord-Reply", word)], b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_socket_delays_no_answer() {
    let mut scene = StalledGateway::start().await;
    let abandoned_request = scene.abandoned_request().await;
    let (calls, answers) = scene.calls(Method::GET).await;
    scene.stall(&abandoned_request, &calls).await;
    for _ in 0..CLAIMS {
        reply_with(&mut scene.worker, &abandoned_request, "claim").await;
    }
    let headers = [("Fjord-Reply", "final"), ("Fjord-Status", "200")];
    for call in &calls {
        scene.worker.publish(&call.reply, &headers, b"").await;
    }
    for answer in answers {
        let answer = timeout(Duration::from_secs(5), answer).await;
        answer.expect("the answer arrives during the stall").expect("the task ends").is(200);
    }
    let StalledGateway { fleet, stall, mut worker, tasks } = scene;
    stall.resume();
    let serving = tasks.spawn(async move {
        loop {
            let call = worker.next().await;
            worker.publish(&call.reply, &headers, b"").await;
        }
    });
    eventually_some("requests are served again", SOON * 2, async || {
        (fleet.client().get("/v1/foreign/b").await.status == 200).then_some(())
    })
    .await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_wait_during_a_stall_are_bounded() {
    let mut scene = StalledGateway::start().await;
    let abandoned_request = scene.abandoned_request().await;
    let (calls, answers) = scene.calls(Method::POST).await;
    scene.stall(&abandoned_request, &calls).await;
    let gateway = &scene.fleet.gateways[0];
    let before = reset_peak(gateway);
    for call in &calls {
        // For each claim, the session tries for two seconds to send a grant, and reads no replies in the meantime.
        for _ in 0..3 {
            reply_with(&mut scene.worker, call, "claim").await;
        }
    }
    let part = vec![b' '; 1_000_000];
    for number in 1..=PARTS {
        let number = number.to_string();
        for call in &calls {
            let headers = [("Fjord-Reply", "part"), ("Fjord-Part", &*number)];
            scene.worker.publish_from(&call.reply, CONTROL, &headers, &part).await;
        }
    }
    for answer in answers {
        let problem = answer.await.expect("the task ends");
        problem.is_problem(502, "outcome-unknown");
    }
    let grown = status(gateway, "VmHWM").saturating_sub(before) >> 20;
    println!("MEMORY of {} MB of parts waiting: +{grown} MiB", CALLS * PARTS);
    assert!(grown < 128, "+{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_max_payload_does_not_wait_for_a_hanging_server() {
    let scene = StalledGateway::start().await;
    scene.stall.pause();
    let began = Instant::now();
    // The gateway opens a new connection to query whether the server accepts larger messages now. That connection
    // hangs.
    let body = json!({ "note": "x".repeat(1_500_000) });
    scene.fleet.client().send(Method::PUT, "/v1/keep/1", &body).await.is(413);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
