//! Promise: no more requests wait for a queue than `gateway.session.waiting_max`, also when all of them come at the same time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;

use super::support::fjord::{Fleet, FleetOptions};

const WAITING_MAX: usize = 5;
const CROWD: usize = 60;
/// The endpoint's `timeout` is two seconds.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_before_a_queue_that_nobody_serves() {
    let fleet = Fleet::start(FleetOptions {
        workers: 0,
        gateway_toml: format!("[gateway.session]\nwaiting_max = {WAITING_MAX}\n"),
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client();
    client.get("/v1/echo/1").await.is(503);
    let ask = async || {
        let start = Instant::now();
        let answer = client.get("/v1/slow?ms=1").await;
        (answer, start.elapsed())
    };
    let answers = join_all((0..CROWD).map(|_| ask())).await;
    let waited = answers.iter().filter(|(_, took)| *took >= AT_ONCE).count();
    assert!((1..=WAITING_MAX).contains(&waited), "{waited} waited");
    for (answer, took) in &answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
        let word = if *took >= AT_ONCE { "no-workers" } else { "overloaded" };
        assert!(answer.text().contains(word), "{took:?}: {}", answer.text());
    }
    let shed = r#"fjord_gateway_requests_shed_total{reason="queue"}"#;
    let counted = fleet.gateways[0].figure(shed).await;
    let expected = u32::try_from(CROWD - waited).expect("a small number");
    assert!((counted - f64::from(expected)).abs() < 0.5, "{counted} counted, {expected} shed");
}
