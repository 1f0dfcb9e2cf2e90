//! Promise: a request does not wait for a long call to end, even though workers offer slots before they are free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;

use super::support::client::{Client, ClientOptions, HttpVersion};
use super::support::eventually::for_a_while;
use super::support::fleet::{Fleet, FleetOptions};

const CALLERS: usize = 12;
/// The path of a call that takes longer than a gateway waits for a message from a worker.
const LONG: &str = "/v1/slow?ms=3000";
const SHORT: &str = "/v1/slow?ms=5";

/// Makes short calls until `stop` is set. Returns the longest response time.
async fn longest_response(client: Client, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.get(SHORT).await.is(200);
        longest = longest.max(start.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn short_calls_use_the_other_worker_while_a_long_call_runs() {
    let options = FleetOptions { workers: 2, concurrency: 1, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let client =
        fleet.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| Tasks::new().spawn(longest_response(client.clone(), Arc::clone(&stop))))
        .collect();
    // During this time, the workers learn that calls are short.
    for_a_while(Duration::from_millis(500)).await;
    for _ in 0..2 {
        client.get(LONG).await.is(200);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let longest = caller.await.expect("the caller does not panic");
        assert!(longest < Duration::from_millis(900), "a short call took {longest:?}");
    }
    let no_reply = r#"fjord_gateway_resubmissions_total{reason="no_reply"}"#;
    assert!(fleet.gateways[0].metric(no_reply).await < 0.5, "no call was treated as lost");
    let busy = r#"fjord_worker_refusals_total{queue="slow",reason="busy"}"#;
    assert!(fleet.workers[0].metric(busy).await > 0.5, "requests had to wait for slots");
}
