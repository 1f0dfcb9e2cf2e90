//! Promise: one caller cannot use up the capacity that other callers need. Its requests in flight are limited, and callers take
//! turns in the wait queue.

use std::time::Instant;

use futures_util::future::{join, join_all};
use http::Method;

use super::support::client::{Client, HttpResponse};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::reload;

/// Lets `client_at` choose the address that the gateway sees.
const TRUSTED: &str = "trusted_proxies = ['127.0.0.0/8']\n";

const ENDPOINTS: &str = r#"{
    "narrow": { "route": "GET /v1/narrow", "procedure": "ledger.slow", "timeout": "10s", "session": "60s",
        "parameters": { "ms": { "in": "query", "type": "int32" } },
        "result": "value", "auth": "public", "max_in_flight": 1 },
    "turns": { "route": "GET /v1/turns", "queue": "turns", "procedure": "ledger.slow", "timeout": "60s", "session": "60s",
        "parameters": { "ms": { "in": "query", "type": "int32" } },
        "result": "value", "auth": "public" },
    "shared": { "route": "GET /v1/shared", "queue": "turns", "procedure": "ledger.slow", "timeout": "60s", "session": "60s",
        "parameters": { "ms": { "in": "query", "type": "int32" } },
        "result": "value", "auth": "public", "cache": { "coalesce": true } } }"#;

/// Returns a client with this address.
fn client_at(fleet: &Fleet, address: &str) -> Client {
    fleet.client().with_header("x-forwarded-for", address)
}

/// Waits until a metric of a process has at least this value.
async fn wait_for(process: &FjordProcess, metric: &str, value: f64) {
    eventually_some(format!("{metric} at {value}"), SOON, async || {
        (process.metric(metric).await > value - 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_a_limited_number_of_requests_in_flight() {
    let fleet = Fleet::start(FleetOptions {
        gateway_keys: TRUSTED,
        gateway_toml: "requests_in_flight_per_caller_max = 2\n".to_owned(),
        catalogue: Some(("narrow.json", ENDPOINTS)),
        ..FleetOptions::default()
    })
    .await;
    let (busy, other) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let gateway = &fleet.gateways[0];
    let held = join_all([busy.get("/v1/narrow?ms=5000"), busy.get("/v1/slow?ms=5000")]);
    let (answers, ()) = tokio::join!(held, async {
        wait_for(gateway, "fjord_gateway_requests_in_flight", 2.0).await;
        let refused = busy.get("/v1/echo/a").await;
        refused.is_problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
        other.get("/v1/echo/a").await.is(200);
    });
    for answer in answers {
        answer.is(200);
    }
    let (first, ()) = tokio::join!(busy.get("/v1/narrow?ms=5000"), async {
        wait_for(gateway, "fjord_gateway_requests_in_flight", 1.0).await;
        busy.get("/v1/narrow?ms=1").await.is_problem(429, "too-many-in-flight");
        busy.get("/v1/echo/a").await.is(200);
    });
    first.is(200);
    let shed = r#"fjord_gateway_requests_shed_total{reason="in_flight_per_caller"}"#;
    for metric in [shed, r#"fjord_in_flight_limited_total{endpoint="narrow"}"#] {
        assert!((gateway.metric(metric).await - 1.0).abs() < 0.5, "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_no_longer_counts() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let call = client.request(Method::GET, "/v1/slow?ms=60000").send();
    let refused = async {
        wait_for(&fleet.workers[0], "fjord_worker_running", 1.0).await;
        client.get("/v1/echo/a").await.is_problem(503, "overloaded");
    };
    // The client disconnects once the other request has been refused.
    tokio::select! {
        _answer = call => panic!("the call takes longer"),
        () = refused => {}
    }
    eventually_some("the caller has no request in flight", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
    eventually_some("the worker has stopped the call", SOON, async || {
        (fleet.workers[0].metric("fjord_worker_running").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_counts_until_it_ends_even_if_its_client_has_disconnected() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let (client, running) = (fleet.client(), "fjord_worker_running");
    // The client disconnects while the call is running.
    tokio::select! {
        _answer = client.request(Method::POST, "/v1/slow?ms=5000").send() => panic!("the call takes longer"),
        () = wait_for(&fleet.workers[0], running, 1.0) => {}
    }
    client.get("/v1/echo/a").await.is_problem(503, "overloaded");
    eventually_some("the call has ended", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
    eventually_some("the worker has no call", SOON, async || {
        (fleet.workers[0].metric(running).await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_limit_at_once() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let mut fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let key = "requests_in_flight_per_caller_max";
    reload::edit(&fleet.gateways[0], &format!("{key} = 1"), &format!("{key} = 0"));
    reload::signal(&mut fleet.gateways[0], "failed").await;
    let log = fleet.gateways[0].process.log_tail();
    assert!(log.contains(key) && log.contains("expected"), "{log}");
    reload::edit(&fleet.gateways[0], &format!("{key} = 0"), &format!("{key} = 2"));
    reload::signal(&mut fleet.gateways[0], "ok").await;
    let (first, ()) = tokio::join!(client.get("/v1/slow?ms=5000"), async {
        wait_for(&fleet.gateways[0], "fjord_gateway_requests_in_flight", 1.0).await;
        client.get("/v1/echo/a").await.is(200);
    });
    first.is(200);
}

/// The maximum number of another caller's calls that may end between the beginning of a request and its answer. They
/// are the running call, one call whose turn comes earlier, and three calls whose end the test notices late on a busy
/// machine. If requests were served in order of arrival, nearly all calls would end in this time.
const OVERTAKEN_MAX: usize = 5;
/// The number of requests that one caller sends at once.
const MANY: usize = 40;
/// The path of a request that occupies the only slot until all other requests of a test have been sent.
const HOLD: &str = "/v1/turns?ms=9000";
const CALL: &str = "/v1/turns?ms=100";

/// Starts a fleet with one slot in total.
async fn one_slot(gateways: usize, gateway_toml: &str) -> Fleet {
    Fleet::start(FleetOptions {
        gateways,
        concurrency: 1,
        gateway_keys: TRUSTED,
        gateway_toml: gateway_toml.to_owned(),
        catalogue: Some(("callers.json", ENDPOINTS)),
        ..FleetOptions::default()
    })
    .await
}

/// Waits until this number of requests is waiting for the queue in a gateway.
async fn wait_until_waiting(gateway: &FjordProcess, requests: f64) {
    wait_for(gateway, r#"fjord_gateway_requests_waiting{queue="turns"}"#, requests).await;
}

/// Waits until the slot is in use.
async fn wait_until_running(fleet: &Fleet) {
    wait_for(&fleet.workers[0], "fjord_worker_running", 1.0).await;
}

/// Sends a request. Returns the times at which it was sent and answered.
async fn timed(client: &Client, path: &str) -> (Instant, Instant) {
    let sent_at = Instant::now();
    client.get(path).await.is(200);
    (sent_at, Instant::now())
}

/// Sends requests of the client `many` all at once, and then requests of the client `single` one after another. Returns
/// the largest number of requests of `many` that were answered during a single request of `single`.
async fn most_overtaking(
    fleet: &Fleet,
    (many, paths): (&Client, &[String]),
    (single, single_paths): (&Client, &[&str]),
) -> usize {
    let calls = async {
        wait_until_running(fleet).await;
        join_all(paths.iter().map(|path| timed(many, path))).await
    };
    let others = async {
        wait_until_waiting(&fleet.gateways[0], 39.0).await;
        let mut times = Vec::new();
        for path in single_paths {
            times.push(timed(single, path).await);
        }
        times
    };
    let (held, (calls, others)) = join(many.get(HOLD), join(calls, others)).await;
    held.is(200);
    let during = |(from, to): (Instant, Instant)| {
        calls.iter().filter(|(_, ended_at)| (from..to).contains(ended_at)).count()
    };
    others.into_iter().map(during).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_served_in_its_turn_while_another_has_many_calls_in_flight() {
    let fleet = one_slot(1, "").await;
    let (many, single) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let paths = vec![CALL.to_owned(); MANY];
    let overtaking = most_overtaking(&fleet, (&many, &paths), (&single, &[CALL; 5])).await;
    println!(
        "at most {overtaking} of the other client's {MANY} calls ended during each of 5 calls"
    );
    assert!(overtaking <= OVERTAKEN_MAX, "{overtaking}");
}

/// The requests of the other client wait in another gateway, so the worker must offer its slot to the gateways in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_served_in_its_turn_while_another_has_many_calls_at_another_gateway() {
    let fleet = one_slot(2, "").await;
    let many = client_at(&fleet, "192.0.2.1");
    let single = client_at(&fleet, "192.0.2.2").at(fleet.gateways[1].https());
    let paths = vec![CALL.to_owned(); MANY];
    let overtaking = most_overtaking(&fleet, (&many, &paths), (&single, &[CALL; 5])).await;
    println!("two gateways: at most {overtaking} of {MANY} calls ended during each of 5 calls");
    assert!(overtaking <= OVERTAKEN_MAX, "{overtaking}");
}

/// The client's request is identical to the last of the other client's waiting requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_wait_for_a_shared_call_behind_many_others_of_its_caller() {
    let fleet = one_slot(1, "").await;
    let (many, single) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let paths: Vec<_> = (0..MANY).map(|number| format!("/v1/shared?ms={}", 100 + number)).collect();
    let last = &[paths[MANY - 1].as_str()];
    let overtaking = most_overtaking(&fleet, (&many, &paths), (&single, last)).await;
    println!(
        "{overtaking} of {MANY} shared calls ended during an identical call of another client"
    );
    assert!(overtaking <= OVERTAKEN_MAX, "{overtaking}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_wait_queue_makes_room_for_a_caller_with_fewer_requests() {
    let fleet = one_slot(1, "[gateway.session]\nwaiting_max = 5\n").await;
    let (many, single) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let calls = async {
        wait_until_running(&fleet).await;
        join_all((0..5).map(|_| many.get(CALL))).await
    };
    let others = async {
        wait_until_waiting(&fleet.gateways[0], 5.0).await;
        join_all((0..2).map(|_| single.get(CALL))).await
    };
    let (held, (answers, others)) = join(many.get(HOLD), join(calls, others)).await;
    for answer in others.iter().chain([&held]) {
        answer.is(200);
    }
    let (served, evicted): (Vec<_>, Vec<HttpResponse>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), evicted.len()), (3, 2), "two of the waiting requests made room");
    for answer in evicted {
        answer.is_problem(503, "overloaded");
    }
}
