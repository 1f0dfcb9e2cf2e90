//! A real Prometheus and the load generator agree on throughput, saturation and latency.

use std::time::{Duration, SystemTime};

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use crate::support::client::Client;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{GatewayRotation, LedgerAnswer, LedgerLoad};
use crate::support::prometheus::{self, Prometheus};
use crate::support::random::SeededRandom;

/// The window over which rates are computed. It covers ten scrapes.
const WINDOW: Duration = Duration::from_secs(10);
/// The tolerance of a rate: one scrape at each end of the window.
const RATE_TOLERANCE: f64 = 0.2;
/// The maximum number of concurrent calls per queue. The load generator has three times as many callers per queue.
const LIMIT: usize = 2;
const REFUSED: usize = 40;

/// Sends requests that the procedure rejects, so that the error ratio is not zero.
async fn send_rejected(client: Client) {
    for number in 0..REFUSED {
        let path = format!("/v1/refuse/{number}");
        client.send(Method::POST, &path, &json!({})).await.is(500);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Returns the quantile `share` of the latencies, in seconds.
fn quantile(answers: &[LedgerAnswer], share: f64) -> f64 {
    let mut times: Vec<f64> = answers.iter().map(|answer| answer.took.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let below =
        times.iter().enumerate().take_while(|(at, _)| number(*at) < number(times.len()) * share);
    below.last().map_or(0.0, |(_, time)| *time)
}

/// Returns whether two latencies are in the same histogram bucket, or in adjacent ones.
fn are_close(one: f64, other: f64) -> bool {
    let bounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        5.0, 10.0, 30.0, 60.0,
    ];
    let bucket = |time: f64| bounds.iter().filter(|bound| **bound < time).count();
    bucket(one).abs_diff(bucket(other)) <= 1
}

fn assert_near(what: &str, prometheus: f64, generator: f64, tolerance: f64) {
    println!("{what}: Prometheus {prometheus:.4}, load generator {generator:.4}");
    let off = (prometheus - generator).abs();
    assert!(off <= generator * tolerance, "{what}: {prometheus} is not near {generator}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_the_load_generator_agree() {
    let Some(executable) = prometheus::server("throughput and saturation with PromQL") else {
        return;
    };
    let fleet = Fleet::start(FleetOptions { concurrency: LIMIT, ..FleetOptions::default() }).await;
    let targets = [fleet.gateways[0].admin(), fleet.workers[0].admin()];
    let prometheus = Prometheus::start(executable, &targets).await;
    let began = SystemTime::now();
    let load =
        LedgerLoad::start(&GatewayRotation::new(vec![fleet.client()]), &mut SeededRandom::new());
    let failing = Tasks::new().spawn(send_rejected(fleet.client()));
    // After this time the window is full, and even its first scrape was made under load.
    let full = WINDOW + Duration::from_secs(2);
    eventually_some("a window full of load", full * 3, async || {
        let scraped = prometheus.value("max(timestamp(fjord_nats_connected))", None).await?;
        let start = began.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        (scraped > (start + full).as_secs_f64()).then_some(())
    })
    .await;
    let moment = SystemTime::now();
    let at = async |expression: &str| {
        let found = prometheus.value(expression, Some(moment)).await;
        found.unwrap_or_else(|| panic!("{expression} has no value"))
    };
    let rate = at("sum(rate(fjord_gateway_requests_total{endpoint=~'ledger-.*'}[10s]))").await;
    let full = at("min(rate(fjord_worker_saturated_seconds_total{queue=~'ledger-.*'}[10s]))").await;
    let idle = at("sum(rate(fjord_worker_saturated_seconds_total{queue='large'}[10s]))").await;
    let used = at("sum(rate(fjord_worker_slot_seconds_total{queue=~'ledger-.*'}[10s]))").await;
    let waiting = at("sum(avg_over_time(fjord_gateway_requests_waiting{queue=~'ledger-.*'}[10s]))")
        .await
        + at("sum(avg_over_time(fjord_worker_waiting{queue=~'ledger-.*'}[10s]))").await;
    failing.await.expect("every response was a 500");
    let answers = load.stop().await;

    let in_window = |answer: &&LedgerAnswer| answer.at <= moment && answer.at > moment - WINDOW;
    let seen: Vec<LedgerAnswer> = answers.iter().filter(in_window).cloned().collect();
    let throughput = number(seen.len()) / WINDOW.as_secs_f64();
    assert_near("throughput, 1/s", rate, throughput, RATE_TOLERANCE);
    // This is the average number of concurrent requests, by Little's law. Requests in excess of the number of
    // slots waited.
    let concurrent =
        seen.iter().map(|answer| answer.took.as_secs_f64()).sum::<f64>() / WINDOW.as_secs_f64();
    let slots = number(2 * LIMIT);
    println!(
        "saturation: full for {full:.3} of the time, {used:.2} of {slots} slots in use, {waiting:.1} requests waiting"
    );
    assert!(concurrent > slots, "the generator does not saturate the slots: {concurrent}");
    assert!(full > 0.7 && used > 0.7 * slots, "both queues are saturated");
    assert!(idle < 0.01, "an idle queue is not saturated");
    // Requests in transit between the roles are neither waiting nor running. On a busy machine, there are many
    // such requests.
    assert_near("waiting and running", waiting + used, concurrent, 0.5);

    // The totals are exact once the last request is included in a scrape.
    let total = number(answers.len() + REFUSED);
    let counted = "sum(fjord_gateway_requests_total)";
    eventually_some("every request is scraped", SOON, async || {
        let count = prometheus.value(counted, None).await?;
        assert!(count < total + 0.5, "{count} of {total}");
        (count > total - 0.5).then_some(())
    })
    .await;
    let now = async |expression: &str| prometheus.value(expression, None).await.expect("a value");
    let errors =
        now(&format!("sum(fjord_gateway_requests_total{{status=~'5..'}}) / {counted}")).await;
    let failed = answers.iter().filter(|answer| answer.status >= 500).count() + REFUSED;
    assert_near("error ratio", errors, number(failed) / total, 1e-6);
    let p99 = now(
        "histogram_quantile(0.99, sum by (le) (fjord_gateway_request_duration_seconds_bucket{endpoint=~'ledger-.*'}))",
    )
    .await;
    let experienced = quantile(&answers, 0.99);
    println!("p99, s: Prometheus {p99:.4}, load generator {experienced:.4}");
    assert!(are_close(p99, experienced), "p99: {p99} is not near {experienced}");
    let (bad, good) = prometheus.rules().await.expect("the rules");
    assert!(bad.is_empty() && good >= 34, "{good} rules were evaluated; these failed: {bad:?}");
}
