//! Promise: when requests do not progress, metrics, `/readyz` and `fjord status` name the cause.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};

use http::Method;
use serde_json::{Value, json};

mod nats;
mod overload;

use super::fleet_status::status_command::status;
use super::support::caller_pool::CallerPool;
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

/// Sends requests in the background, without waiting for their responses.
fn send(fleet: &Fleet, path: &'static str, number: usize) {
    for _ in 0..number {
        let client = fleet.client();
        let _detached = fjord::lifecycle::Tasks::new()
            .spawn(async move { drop(client.try_send(Method::GET, path, None).await) });
    }
}

fn document(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON document: {errors}"))
}

fn queue<'a>(view: &'a Value, name: &str) -> &'a Value {
    let queues = view["queues"].as_array().expect("queues");
    queues.iter().find(|queue| queue["name"] == name).expect("the queue")
}

/// An endpoint whose requests do not end during a test, and endpoints whose calls time out.
const ENDPOINTS: (&str, &str) = (
    "patience.json",
    r#"{
  "patient": {
    "route": "GET /v1/patient",
    "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } },
    "result": "value", "timeout": "5m", "session": "5m", "auth": "public"
  },
  "brief": {
    "route": "GET /v1/brief",
    "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } },
    "result": "value", "timeout": "2s", "session": "2s", "auth": "public"
  },
  "brief-once": {
    "route": "POST /v1/brief",
    "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } },
    "result": "value", "timeout": "2s", "session": "2s", "auth": "public"
  },
  "lasting": {
    "route": "GET /v1/lasting",
    "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } },
    "result": "value", "timeout": "1s", "session": "2s", "auth": "public"
  },
  "short": {
    "route": "GET /v1/short",
    "procedure": "ledger.slow",
    "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } },
    "result": "value", "timeout": "300ms", "session": "300ms", "auth": "public"
  }
}"#,
);

fn options() -> FleetOptions {
    FleetOptions { catalogue: Some(ENDPOINTS), ..FleetOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_workers_are_named_although_the_gateway_has_no_waiting_requests() {
    let mut fleet = Fleet::start(FleetOptions { workers: 2, ..options() }).await;
    for worker in &mut fleet.workers {
        worker.process.pause();
    }
    send(&fleet, "/v1/patient", 5);
    let gateway = &fleet.gateways[0];
    let unaccepted = r#"fjord_gateway_requests_unaccepted{queue="patient"}"#;
    let oldest = r#"fjord_gateway_requests_unaccepted_oldest_seconds{queue="patient"}"#;
    // The test waits until the connections are no longer new, because new connections are not expected to have replied.
    eventually_some("the requests and their age are shown", SOON * 2, async || {
        (gateway.metric(unaccepted).await > 4.5 && gateway.metric(oldest).await > 6.0).then_some(())
    })
    .await;
    assert!(gateway.metric("fjord_gateway_requests_waiting").await < 0.5, "none waits");
    let monitoring = format!("messaging.nats.monitoring={}", fleet.nats.servers[0].monitoring());
    let arguments = ["--interval", "1", "--set", monitoring.as_str()];
    let page = status(gateway.directory(), &arguments).output().expect("fjord runs");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    println!("{page}");
    let start = "The bottleneck is queue patient: no worker has accepted 5 requests, the oldest of which was sent ";
    assert!(page.starts_with(start), "{page}");
    assert!(page.contains("\n2 of 3 known processes did not reply: worker "), "{page}");
    assert!(
        page.contains("\nqueue patient: no worker has accepted 5 requests, the oldest"),
        "{page}"
    );
    let output = status(gateway.directory(), &arguments).arg("--json").output();
    let view = document(&output.expect("fjord runs"));
    assert_eq!(view["bottleneck"]["kind"], "stalled");
    assert_eq!(view["known_processes"], 3);
    let missing = view["missing"].as_array().expect("a list");
    let roles: Vec<_> = missing.iter().map(|one| (&one["role"], &one["has_replied"])).collect();
    assert_eq!(roles, [(&"worker".into(), &false.into()); 2]);
    for worker in &mut fleet.workers {
        worker.process.resume();
    }
    let gateway = &fleet.gateways[0];
    eventually_some("all requests have ended", SOON * 3, async || {
        (gateway.metric(unaccepted).await < 0.5 && gateway.metric(oldest).await < 0.1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_end_are_named_although_slots_are_free() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for _ in 0..20 {
        fleet.client().get("/v1/slow?ms=1").await.is(200);
    }
    send(&fleet, "/v1/slow?ms=60000", 3);
    let accepted = r#"fjord_gateway_requests_accepted{queue="slow"}"#;
    let oldest = r#"fjord_gateway_requests_accepted_oldest_seconds{queue="slow"}"#;
    let gateway = &fleet.gateways[0];
    eventually_some("the calls and their age are shown", SOON * 2, async || {
        (gateway.metric(accepted).await > 2.5 && gateway.metric(oldest).await > 5.0).then_some(())
    })
    .await;
    let output = status(gateway.directory(), &["--interval", "1", "--json"]).output();
    let view = document(&output.expect("fjord runs"));
    let sentence = view["bottleneck"]["sentence"].as_str().expect("a sentence");
    let start =
        "The bottleneck is queue slow: its calls do not end. Workers have accepted 3 requests";
    assert!(sentence.starts_with(start), "{sentence}");
    assert_eq!(view["bottleneck"]["kind"], "stalled");
    assert_eq!(view["missing"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_time_out_again_and_again_do_not_seem_usual() {
    let fleet = Fleet::start(options()).await;
    for _ in 0..20 {
        fleet.client().get("/v1/brief").await.is(200);
    }
    let callers = CallerPool::start(&[fleet.client()], "/v1/brief?ms=60000", 504, 4);
    let failed = r#"fjord_gateway_requests_total{endpoint="brief",queue="brief",status="504""#;
    let gateway = &fleet.gateways[0];
    eventually_some("several rounds of calls time out", SOON * 3, async || {
        (gateway.metric(failed).await > 15.5).then_some(())
    })
    .await;
    // A call may have timed out just before this point.
    let start = "The bottleneck is queue brief: its calls do not end.";
    eventually_some("the calls are named", SOON * 2, async || {
        let output = status(gateway.directory(), &["--interval", "1", "--json"]).output();
        let view = document(&output.expect("fjord runs"));
        assert_eq!(queue(&view, "brief")["answered"], 0, "calls that time out are no answers");
        view["bottleneck"]["sentence"].as_str().filter(|text| text.starts_with(start)).map(drop)
    })
    .await;
    callers.stop().await;
}

/// Starts `fjord status`, and waits until it has shown a first view. Returns its process and the rest of its output,
/// which begins with the next view.
fn watch(directory: &Path, interval: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = status(directory, &["--watch", "--json", "--interval", interval]);
    let mut watching = command.stdout(Stdio::piped()).spawn().expect("fjord runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("the output is piped")).lines();
    next_view(&mut lines);
    (watching, lines)
}

fn next_view(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = lines.next().expect("another line").expect("the line is UTF-8");
    serde_json::from_str(&line).expect("a JSON document")
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_that_no_gateway_takes_are_counted_and_explained() {
    let options = FleetOptions { concurrency: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let callers = CallerPool::start(&[fleet.client()], "/v1/slow?ms=300", 200, 40);
    let waiting = r#"fjord_gateway_requests_waiting{queue="slow"}"#;
    eventually_some("requests wait", SOON, async || {
        (fleet.gateways[0].metric(waiting).await > 20.0).then_some(())
    })
    .await;
    let (mut watching, mut views) = watch(fleet.gateways[0].directory(), "6");
    fleet.gateways[0].process.pause();
    let offers = async |fleet: &Fleet, result: &str| {
        let metric = format!(r#"fjord_worker_offers_total{{queue="slow",result="{result}"}}"#);
        fleet.workers[0].metric(&metric).await
    };
    let before = offers(&fleet, "lapsed").await;
    eventually_some("offers lapse", SOON, async || {
        (offers(&fleet, "lapsed").await > before + 0.5).then_some(())
    })
    .await;
    let view = next_view(&mut views);
    drop(views);
    watching.kill().expect("it runs");
    watching.wait().expect("it ends");
    let slow = queue(&view, "slow");
    assert!(slow["offers_lapsed"].as_u64() > Some(0), "{slow}");
    assert!(slow["offers_made"].as_u64() > Some(0), "{slow}");
    let missing = &view["missing"];
    assert_eq!(missing.as_array().map(Vec::len), Some(1), "{missing}");
    assert_eq!(
        (&missing[0]["role"], &missing[0]["has_replied"]),
        (&"gateway".into(), &true.into())
    );
    fleet.gateways[0].process.resume();
    // Some requests may have timed out while the gateway was suspended.
    drop(fjord::lifecycle::Tasks::new().spawn(callers.stop()).await);
    eventually_some("each offer has ended exactly once", SOON, async || {
        let [made, accepted, declined, lapsed] = [
            offers(&fleet, "made").await,
            offers(&fleet, "accepted").await,
            offers(&fleet, "declined").await,
            offers(&fleet, "lapsed").await,
        ];
        println!("{made} {accepted} {declined} {lapsed}");
        ((made - accepted - declined - lapsed).abs() < 0.5).then_some(())
    })
    .await;
}
