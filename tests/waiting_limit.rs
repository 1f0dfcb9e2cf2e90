//! Promise: at most `gateway.session.waiting_max` requests wait for a queue, even if all of them arrive at the same time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;

use super::support::fleet::{Fleet, FleetOptions};

const WAITING_MAX: usize = 5;
const REQUESTS: usize = 60;
/// The time limit for a rejection. It is shorter than the endpoint's `timeout` of two seconds.
const IMMEDIATELY: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_requests_to_an_unserved_queue_respect_the_limit() {
    let fleet = Fleet::start(FleetOptions {
        workers: 0,
        gateway_toml: format!("[gateway.session]\nwaiting_max = {WAITING_MAX}\n"),
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client();
    client.get("/v1/echo/1").await.is(503);
    let send_request = async || {
        let start = Instant::now();
        let answer = client.get("/v1/slow?ms=1").await;
        (answer, start.elapsed())
    };
    let answers = join_all((0..REQUESTS).map(|_| send_request())).await;
    let waited = answers.iter().filter(|(_, took)| *took >= IMMEDIATELY).count();
    assert!((1..=WAITING_MAX).contains(&waited), "{waited} waited");
    for (answer, took) in &answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
        let outcome = if *took >= IMMEDIATELY { "no-workers" } else { "overloaded" };
        assert!(answer.text().contains(outcome), "{took:?}: {}", answer.text());
    }
    let shed = r#"fjord_gateway_requests_shed_total{reason="queue"}"#;
    let counted = fleet.gateways[0].metric(shed).await;
    let expected = u32::try_from(REQUESTS - waited).expect("the number fits u32");
    assert!((counted - f64::from(expected)).abs() < 0.5, "{counted} counted, {expected} shed");
}
