//! Promise: an answer reaches its client whatever becomes of what the gateway has to tell workers meanwhile, who reads the
//! replies never waits, and what waits to be read is bounded in bytes.

use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::large_answers::memory::{reset_peak, status};
use super::support::client::{Answer, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::ports;
use super::support::raw::RawClient;
use super::support::raw_nats::{RawNats, Received};
use super::support::stall::Stall;

/// Calls that run when NATS takes nothing more of the gateway.
const CALLS: usize = 8;
/// What a worker asks meanwhile: to wait two seconds for each answer would last longer than any session.
const CLAIMS: usize = 100;
/// More than sockets on the way hold.
const LARGE_REQUESTS: usize = 10;
/// More than the gateway's own queues hold, with `commands_max` of 16.
const SMALL_REQUESTS: usize = 80;
/// Parts of a megabyte that a worker sends of each answer.
const PARTS: usize = 40;

/// Where the worker is told about its claims.
const CONTROL: &str = "fjord.w.foreign.tester.j.7";

/// A gateway that reaches NATS through a proxy, and the worker of queue `foreign`, which does not.
struct Scene {
    fleet: Fleet,
    stall: Stall,
    worker: RawNats,
    tasks: Tasks,
}

impl Scene {
    async fn start() -> Self {
        let port = ports::pick();
        let stall = Stall::start(([127, 0, 0, 1], port).into());
        let servers = format!("[\"tls://{}\"]", stall.address);
        // A gateway for which a lot waits is not cut off.
        let extra = "allow_non_tls: true\nmax_pending: 1GB\n".to_owned();
        let fleet = Fleet::start(FleetOptions {
            nats: NatsOptions { port: Some(port), extra, ..NatsOptions::default() },
            // No ping is due while nothing is read: that the link stands still is noticed otherwise.
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
        let worker = RawNats::join(server, "fjord.q.foreign", "foreign").await;
        Self { fleet, stall, worker, tasks: Tasks::new() }
    }

    /// A request whose client left before anybody was asked to execute it.
    async fn left(&mut self) -> Received {
        let gateway = &self.fleet.gateways[0];
        let mut leaver =
            RawClient::connect(gateway.https(), &self.fleet.certs, &["http/1.1"]).await;
        let post = "POST /v1/foreign/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        leaver.send(post.as_bytes()).await.expect("it is taken");
        let left = self.worker.next().await;
        drop(leaver);
        eventually_some("it is noticed", SOON, async || {
            let figure = gateway.figure("fjord_gateway_requests_in_flight ").await;
            (figure < 0.5).then_some(())
        })
        .await;
        left
    }

    /// Requests that the worker has, and what their clients wait for.
    async fn calls(&mut self, method: Method) -> (Vec<Received>, Vec<JoinHandle<Answer>>) {
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

    /// NATS takes nothing more of the gateway, until a claim of the request that was left cannot be denied.
    async fn stand_still(&mut self, left: &Received, calls: &[Received]) {
        self.stall.stop();
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
        eventually_some("nothing is taken any more", SOON, async || {
            for call in calls {
                says(worker, call, "progress").await;
            }
            says(worker, left, "claim").await;
            (gateway.figure(unsent).await > 0.5).then_some(())
        })
        .await;
    }
}

async fn says(worker: &mut RawNats, to: &Received, word: &str) {
    let control = if word == "claim" { CONTROL } else { "" };
    worker.publish_from(&to.reply, control, &[("Fjord-Reply", word)], b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_stands_still_keeps_no_answer_from_its_client() {
    let mut scene = Scene::start().await;
    let left = scene.left().await;
    let (calls, answers) = scene.calls(Method::GET).await;
    scene.stand_still(&left, &calls).await;
    for _ in 0..CLAIMS {
        says(&mut scene.worker, &left, "claim").await;
    }
    let headers = [("Fjord-Reply", "final"), ("Fjord-Status", "200")];
    for call in &calls {
        scene.worker.publish(&call.reply, &headers, b"").await;
    }
    for answer in answers {
        let answer = timeout(Duration::from_secs(5), answer).await;
        answer.expect("it comes while nothing can be sent").expect("it ends").is(200);
    }
    let Scene { fleet, stall, mut worker, tasks } = scene;
    stall.go_on();
    let serving = tasks.spawn(async move {
        loop {
            let call = worker.next().await;
            worker.publish(&call.reply, &headers, b"").await;
        }
    });
    eventually_some("it is served again", SOON * 2, async || {
        (fleet.client().get("/v1/foreign/b").await.status == 200).then_some(())
    })
    .await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_read_meanwhile_is_bounded() {
    let mut scene = Scene::start().await;
    let left = scene.left().await;
    let (calls, answers) = scene.calls(Method::POST).await;
    scene.stand_still(&left, &calls).await;
    let gateway = &scene.fleet.gateways[0];
    let before = reset_peak(gateway);
    for call in &calls {
        // Each has to be granted, which takes two seconds in vain: meanwhile the request reads nothing.
        for _ in 0..3 {
            says(&mut scene.worker, call, "claim").await;
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
        let problem = answer.await.expect("it ends");
        problem.is_problem(502, "outcome-unknown");
    }
    let grown = (status(gateway, "VmHWM") - before) >> 20;
    println!("MEMORY of {} MB of parts that wait: +{grown} MiB", CALLS * PARTS);
    assert!(grown < 128, "+{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_large_does_not_wait_for_a_server_that_hangs() {
    let scene = Scene::start().await;
    scene.stall.stop();
    let began = Instant::now();
    // Whether the server takes more by now is asked over a connection that does not come.
    let body = json!({ "note": "x".repeat(1_500_000) });
    scene.fleet.client().send(Method::PUT, "/v1/keep/1", &body).await.is(413);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
