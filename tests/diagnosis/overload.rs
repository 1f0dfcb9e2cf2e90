//! Permanent faults under overload: requests keep arriving, and each one times out before its age alone would show a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{document, options, queue};
use crate::fleet_status::status_command::status;
use crate::support::client::Client;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};

/// The number of clients.
const CLIENTS: usize = 20;
/// The time between the starts of two clients, so that their requests arrive and time out one after another.
const SPACING: Duration = Duration::from_millis(100);
/// The time between two requests of a client. It is equal to the session time.
const PERIOD: Duration = Duration::from_secs(2);

/// Clients that start one after another. Each client sends requests at a fixed interval, but never before its previous request has
/// ended.
struct ArrivingClients(Arc<AtomicBool>, JoinHandle<()>);

impl ArrivingClients {
    fn start(client: &Client, method: Method, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (client.clone(), Arc::clone(&stop));
        let starting = Tasks::new().spawn(async move {
            let mut turns = interval(SPACING);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                turns.tick().await;
                let (client, method) = (client.clone(), method.clone());
                let stopped = Arc::clone(&stopped);
                let mut turns = interval(PERIOD);
                turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                clients.push(Tasks::new().spawn(async move {
                    while !stopped.load(Ordering::Relaxed) {
                        turns.tick().await;
                        drop(client.try_send(method.clone(), path, None).await);
                    }
                }));
            }
            for client in clients {
                client.await.expect("a client does not panic");
            }
        });
        Self(stop, starting)
    }

    async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.await.expect("no client panics");
    }
}

fn one_slot() -> FleetOptions {
    FleetOptions { concurrency: 1, ..options() }
}

fn view(fleet: &Fleet, interval: &str) -> Value {
    let arguments = ["--interval", interval, "--json"];
    let output = status(fleet.gateways[0].directory(), &arguments).output();
    document(&output.expect("fjord runs"))
}

fn page(fleet: &Fleet, interval: &str) -> String {
    let output = status(fleet.gateways[0].directory(), &["--interval", interval]).output();
    String::from_utf8_lossy(&output.expect("fjord runs").stdout).into_owned()
}

/// Waits until twice as many requests have failed as there are clients, so that the slot has passed to requests that waited for it.
async fn several_rounds_time_out(fleet: &Fleet, name: &str) {
    let failed =
        format!("fjord_gateway_requests_total{{endpoint=\"{name}\",queue=\"{name}\",status=\"50");
    eventually_some("several rounds of requests time out", SOON * 3, async || {
        (fleet.gateways[0].metric(&failed).await > 45.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_end_are_named_although_requests_keep_arriving_and_time_out() {
    let fleet = Fleet::start(one_slot()).await;
    for (method, path, name) in [
        (Method::GET, "/v1/brief?ms=60000", "brief"),
        (Method::POST, "/v1/brief?ms=60000", "brief-once"),
        (Method::GET, "/v1/lasting?ms=60000", "lasting"),
    ] {
        let fast = path.replace("60000", "1");
        let answer = fleet.client().try_send(method.clone(), &fast, None).await;
        answer.expect("an answer").is(200);
        let clients = ArrivingClients::start(&fleet.client(), method, path);
        several_rounds_time_out(&fleet, name).await;
        let start = format!("The bottleneck is queue {name}: its calls do not end.");
        for _ in 0..3 {
            let view = view(&fleet, "2");
            println!("{} {}", view["bottleneck"]["sentence"], queue(&view, name));
            assert_eq!(view["bottleneck"]["kind"], "stalled", "{view}");
            let sentence = view["bottleneck"]["sentence"].as_str().expect("a sentence");
            assert!(sentence.starts_with(&start), "{sentence}");
            assert!(sentence.ends_with("for a lock, or its workers hang."), "{sentence}");
            assert_eq!(queue(&view, name)["answered"], 0);
        }
        let page = page(&fleet, "2");
        assert!(page.starts_with(&start), "{page}");
        clients.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_no_worker_accepts_are_named_although_they_keep_arriving_and_time_out() {
    let mut fleet = Fleet::start(one_slot()).await;
    fleet.client().get("/v1/short").await.is(200);
    fleet.workers[0].process.pause();
    let clients = ArrivingClients::start(&fleet.client(), Method::GET, "/v1/short");
    several_rounds_time_out(&fleet, "short").await;
    let metric = r#"fjord_gateway_requests_timed_out_total{queue="short",state="unaccepted"}"#;
    assert!(fleet.gateways[0].metric(metric).await > 20.0);
    let view = view(&fleet, "2");
    println!("{} {}", view["bottleneck"]["sentence"], queue(&view, "short"));
    assert_eq!(view["bottleneck"]["kind"], "stalled", "{view}");
    assert!(queue(&view, "short")["timed_out_unaccepted"].as_u64() > Some(5), "{view}");
    let sentence = view["bottleneck"]["sentence"].as_str().expect("a sentence");
    let number = queue(&view, "short")["timed_out_unaccepted"].to_string();
    let expected = format!(
        "The bottleneck is queue short: {number} requests ran out of time since the earlier report, and no worker had accepted them; \
         none of its workers has replied to this query. Its workers or a connection to NATS may be hanging."
    );
    assert_eq!(sentence, expected);
    let page = page(&fleet, "2");
    let note =
        " requests ran out of time since the earlier report, and no worker had accepted them\n";
    assert!(page.contains(note), "{page}");
    clients.stop().await;
}

/// Most requests have so little time left when they get the slot that their calls cannot end.
#[tokio::test(flavor = "multi_thread")]
async fn an_overload_of_slow_calls_is_not_called_a_hang() {
    let fleet = Fleet::start(one_slot()).await;
    fleet.client().get("/v1/brief?ms=1200").await.is(200);
    let clients = ArrivingClients::start(&fleet.client(), Method::GET, "/v1/brief?ms=1200");
    several_rounds_time_out(&fleet, "brief").await;
    let mut sentences = Vec::new();
    for interval in ["2", "5", "10"] {
        let view = view(&fleet, interval);
        println!("{} {}", view["bottleneck"]["sentence"], queue(&view, "brief"));
        sentences.push(view["bottleneck"]["sentence"].as_str().expect("a sentence").to_owned());
    }
    for sentence in &sentences {
        assert!(sentence.starts_with("The bottleneck is queue brief: "), "{sentence}");
        assert!(!sentence.contains("its calls do not end"), "{sentence}");
    }
    clients.stop().await;
    let stopped = r#"fjord_worker_calls_total{queue="brief",outcome="cancelled""#;
    let timeouts = r#"fjord_worker_calls_total{queue="brief",outcome="sql_timeout""#;
    let worker = &fleet.workers[0];
    let stopped = worker.metric(stopped).await + worker.metric(timeouts).await;
    assert!(stopped > 4.5, "{stopped} calls were stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_that_end_are_not_named_although_requests_time_out() {
    let fleet = Fleet::start(one_slot()).await;
    let clients = ArrivingClients::start(&fleet.client(), Method::GET, "/v1/brief?ms=400");
    several_rounds_time_out(&fleet, "brief").await;
    for interval in ["1", "2", "1", "2"] {
        let view = view(&fleet, interval);
        println!("{} {}", view["bottleneck"]["sentence"], queue(&view, "brief"));
        assert_eq!(view["bottleneck"]["kind"], "queue", "{view}");
    }
    let timed_out = r#"fjord_gateway_requests_timed_out_total{queue="brief""#;
    assert!(fleet.gateways[0].metric(timed_out).await > 0.5, "requests have timed out");
    clients.stop().await;
}
