//! Promise: a sampled request is recorded as one trace from the client to the procedure, with OpenTelemetry's attribute
//! names. The collector does not affect any request.

use std::time::{Duration, Instant};

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;

use super::support::certs::Certs;
use super::support::client::Client;
use super::support::eventually::{SOON, eventually, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::hex::hex;
use super::support::ports;
use super::support::trace_collector::{CollectedSpan, CollectorResponse, TraceCollector};

const CANARY: &str = "Canary9153";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Starts a fleet that exports traces to `address`, with additional settings in `[traces]`.
async fn fleet(address: &str, keys: &str) -> Fleet {
    let scheme = if keys.contains("[traces.tls]") { "https" } else { "http" };
    let traces = format!("[traces]\nendpoint = '{scheme}://{address}'\n{keys}\n");
    let (gateway_toml, worker_toml) = (traces.clone(), traces);
    Fleet::start(FleetOptions { gateway_toml, worker_toml, ..FleetOptions::default() }).await
}

async fn plain_fleet(collector: &TraceCollector, keys: &str) -> Fleet {
    let keys = format!("insecure_plain_text = true\n{keys}");
    fleet(&collector.address.to_string(), &keys).await
}

fn with_traceparent(client: &Client, flags: &str) -> Client {
    client.with_header("traceparent", &format!("00-{TRACE}-{SPAN}-{flags}"))
}

/// Waits until the collector has `number` spans, and returns them in the order in which they started.
async fn wait_for_spans(collector: &TraceCollector, number: usize) -> Vec<CollectedSpan> {
    let mut spans = eventually_some(format!("{number} spans"), SOON, async || {
        let spans = collector.spans();
        (spans.len() >= number).then_some(spans)
    })
    .await;
    spans.sort_by_key(|span| span.span.start_time_unix_nano);
    assert_eq!(spans.len(), number, "{spans:#?}");
    spans
}

fn error_of(span: &CollectedSpan) -> Option<String> {
    let status = span.span.status.clone()?;
    (status.code() == StatusCode::Error).then_some(status.message)
}

/// Asserts that each span is a child of the previous one and lies within it.
fn assert_nested(spans: &[CollectedSpan]) {
    /// The tolerance in nanoseconds. It is necessary because two processes read the wall clock at different moments.
    const SLACK: u64 = 5_000_000;
    for (above, below) in spans.iter().zip(spans.iter().skip(1)).map(|(a, b)| (&a.span, &b.span)) {
        assert_eq!(hex(&below.parent_span_id), hex(&above.span_id), "{above:?} {below:?}");
        assert_eq!(hex(&below.trace_id), hex(&above.trace_id));
        assert!(
            below.end_time_unix_nano <= above.end_time_unix_nano + SLACK,
            "{above:?} {below:?}"
        );
        assert!(below.start_time_unix_nano + SLACK >= above.start_time_unix_nano);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_from_the_client_to_the_procedure() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let certs = Certs::new(home.path());
    let collector = TraceCollector::start(Some(&certs)).await;
    let headers = home.path().join("headers");
    std::fs::write(&headers, "x-collector-key=sesame\nx-tenant=fjord\n")
        .expect("the file can be written");
    let keys = format!(
        "headers_file = '{}'\n[traces.tls]\nca = '{}'",
        headers.display(),
        certs.ca.display()
    );
    let mut fleet = fleet(&collector.address.to_string(), &keys).await;
    let client = with_traceparent(&fleet.client(), "01").with_header("x-note", CANARY);
    let client = client.with_header("tracestate", "a=1").with_header("x-request-id", CANARY);
    client.get("/v1/slow?ms=40").await.is(200);
    let spans = wait_for_spans(&collector, 4).await;
    let [server, publish, process, call] = spans.as_slice() else { panic!("four") };
    assert_eq!(hex(&server.span.trace_id), TRACE);
    assert_eq!(hex(&server.span.parent_span_id), SPAN, "a child of the client's span");
    assert_nested(&spans);
    let summary =
        |span: &CollectedSpan| (span.service.clone(), span.span.name.clone(), span.span.kind());
    let expected = |service: &str, name: &str, kind| (service.to_owned(), name.to_owned(), kind);
    assert_eq!(summary(server), expected("fjord-gateway", "GET /v1/slow", SpanKind::Server));
    assert_eq!(summary(publish), expected("fjord-gateway", "publish slow", SpanKind::Producer));
    assert_eq!(summary(process), expected("fjord-worker", "process slow", SpanKind::Consumer));
    assert_eq!(summary(call), expected("fjord-worker", "EXECUTE ledger.slow", SpanKind::Client));
    for (span, key, value) in [
        (server, "http.request.method", "GET"),
        (server, "http.route", "/v1/slow"),
        (server, "http.response.status_code", "200"),
        (server, "url.scheme", "https"),
        (server, "fjord.outcome", "ok"),
        (publish, "messaging.system", "nats"),
        (publish, "messaging.destination.name", "fjord.q.slow"),
        (publish, "fjord.attempt", "1"),
        (publish, "fjord.reply", "final"),
        (process, "messaging.system", "nats"),
        (process, "messaging.consumer.group.name", "slow"),
        (call, "db.system.name", "sqlite"),
        (call, "db.stored_procedure.name", "ledger.slow"),
    ] {
        assert_eq!(span.attribute(key), value, "{key} of {span:#?}");
    }
    let took = call.span.end_time_unix_nano - call.span.start_time_unix_nano;
    assert!((40_000_000..1_000_000_000).contains(&took), "{took} ns");
    for span in &spans {
        assert_eq!(span.headers["x-collector-key"], "sesame");
        assert_eq!(error_of(span), None);
        assert!(!format!("{:?}", span.span).contains(CANARY), "{span:#?}");
    }
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        assert!(!node.process.log().contains("sesame"));
    }
    // A process exports the spans that ended shortly before it stops.
    client.get("/v1/slow?ms=1").await.is(200);
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(node.stop().await.success());
    }
    assert_eq!(collector.spans().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_spans_have_the_outcome_as_their_error() {
    let collector = TraceCollector::start(None).await;
    let keys = "[worker]\nanswer_bytes_max = '1KiB'";
    let fleet = plain_fleet(&collector, keys).await;
    let client = fleet.client();
    client.get("/v1/large?rows=2000").await.is(502);
    let spans = wait_for_spans(&collector, 4).await;
    assert_nested(&spans);
    for span in &spans {
        assert_eq!(error_of(span).as_deref(), Some("answer_too_large"), "{span:#?}");
    }
    assert_eq!(spans[0].attribute("error.type"), "answer_too_large");
    assert_eq!(spans[0].span.parent_span_id, Vec::<u8>::new(), "no parent");

    // If a procedure raises an error, the spans of the request and of the call are marked as errors, but the
    // transport's spans are not.
    let path = format!("/v1/refuse/{CANARY}?text={CANARY}");
    client.send(Method::POST, &path, &json!({ "body": CANARY })).await.is(500);
    let spans = wait_for_spans(&collector, 8).await.split_off(4);
    assert_nested(&spans);
    let words: Vec<_> = spans.iter().map(error_of).collect();
    let raised = Some("sql_user".to_owned());
    assert_eq!(words, [raised.clone(), None, None, raised]);
    assert_eq!(spans[0].attribute("http.route"), "/v1/refuse/{id}");
    assert!(spans.iter().all(|t| !format!("{:?}", t.span).contains(CANARY)), "{spans:#?}");

    // A client error does not make the span an error, and the path of an unknown route is not recorded.
    client.get(&format!("/v1/{CANARY}")).await.is(404);
    let spans = wait_for_spans(&collector, 9).await;
    let lost = spans.last().expect("the trace has nine spans");
    let summary = (lost.span.name.as_str(), lost.attribute("fjord.outcome"), error_of(lost));
    assert_eq!(summary, ("GET", "no_route".to_owned(), None), "{lost:#?}");
    assert_eq!(lost.attribute("http.route"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sampled_flag_of_the_caller_is_respected() {
    let collector = TraceCollector::start(None).await;
    let keys = "sample_ratio = 0.0\nparent_sampling = 'always'";
    let fleet = plain_fleet(&collector, keys).await;
    let client = fleet.client();
    for _ in 0..20 {
        client.get("/v1/slow?ms=0").await.is(200);
        with_traceparent(&client, "00").get("/v1/slow?ms=0").await.is(200);
    }
    with_traceparent(&client, "01").get("/v1/slow?ms=0").await.is(200);
    let spans = wait_for_spans(&collector, 4).await;
    assert!(spans.iter().all(|span| hex(&span.span.trace_id) == TRACE));
}

/// An endpoint that requires the API key `old-key`.
const GUARDED: (&str, &str) = (
    "guarded.json",
    r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
    "auth": { "methods": ["api-key"] } } }"#,
);
const KEY: &str = "[auth.api_keys.billing]\n\
    sha256 = ['762c08fc17a1cc5f00d248f8b50f2f2f4d17ff2934ac31e64deacb3f5bb3f2ec']\n";

/// Sends ten requests without credentials and ten with an API key, all with the sampled flag. Returns the number of
/// requests of each kind that were recorded.
async fn recorded(traces: &str) -> (usize, usize) {
    let collector = TraceCollector::start(None).await;
    let traces = format!(
        "[traces]\nendpoint = 'http://{}'\ninsecure_plain_text = true\n{traces}\n",
        collector.address
    );
    let gateway_toml = format!("{traces}{KEY}");
    let catalogue = Some(GUARDED);
    let options =
        FleetOptions { catalogue, gateway_toml, worker_toml: traces, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let anonymous = with_traceparent(&fleet.client(), "01");
    for _ in 0..10 {
        anonymous.get("/v1/slow?ms=0").await.is(200);
        // A caller with an invalid credential counts as anonymous.
        anonymous.with_header("x-api-key", "wrong").get("/v1/guarded").await.is(401);
        anonymous.with_header("x-api-key", "old-key").get("/v1/guarded").await.is(200);
    }
    // A process exports all ended spans before it stops.
    assert!(fleet.gateways[0].stop().await.success());
    let spans = collector.spans();
    let requests = |route: &str, status: &str| {
        let is_it = |span: &&CollectedSpan| {
            span.attribute("http.route") == route
                && span.attribute("http.response.status_code") == status
        };
        spans.iter().filter(is_it).count()
    };
    let refused = requests("/v1/guarded", "401");
    (requests("/v1/slow", "200") + refused, requests("/v1/guarded", "200"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_caller_cannot_turn_on_sampling() {
    assert_eq!(recorded("sample_ratio = 0.0").await, (0, 10));
    assert_eq!(recorded("sample_ratio = 0.0\nparent_sampling = 'never'").await, (0, 0));
    assert_eq!(recorded("sample_ratio = 0.0\nparent_sampling = 'always'").await, (20, 10));
}

/// Sends `number` requests, and asserts that each is answered quickly.
async fn send_quick_requests(client: &Client, number: usize) {
    for _ in 0..number {
        let began = Instant::now();
        client.get("/v1/slow?ms=0").await.is(200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

async fn spans_of(node: &FjordProcess, result: &str) -> f64 {
    node.metric(&format!("fjord_trace_spans_total{{result=\"{result}\"}}")).await
}

fn outages(node: &FjordProcess) -> usize {
    node.process.log().matches("traces cannot be exported").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_collector_affects_no_request() {
    let collector = TraceCollector::start(None).await;
    let mut fleet = plain_fleet(&collector, "timeout = '300ms'\nspans_max = 16").await;
    let client = fleet.client();
    collector.respond_with(CollectorResponse::Reject(500));
    send_quick_requests(&client, 50).await;
    let gateway = &fleet.gateways[0];
    eventually_some("failed spans are counted", SOON, async || {
        (spans_of(gateway, "failed").await > 0.5).then_some(())
    })
    .await;
    collector.respond_with(CollectorResponse::Never);
    let before = collector.exports();
    send_quick_requests(&client, 20).await;
    eventually(SOON, Duration::from_millis(10), || collector.exports() > before).await;
    send_quick_requests(&client, 100).await;
    assert!(spans_of(gateway, "dropped").await > 100.0, "at most 16 spans are buffered");
    assert_eq!(outages(gateway), 1, "an outage is logged once");
    collector.respond_with(CollectorResponse::Accept);
    eventually_some("the outage is over", Duration::from_secs(30), async || {
        gateway.process.log().contains("traces are exported again").then_some(())
    })
    .await;
    assert!(!collector.spans().is_empty(), "buffered spans are sent after the outage");
    assert!(gateway.metric(r#"fjord_trace_exports_total{result="failed"}"#).await > 1.5);
    collector.respond_with(CollectorResponse::Never);
    send_quick_requests(&client, 5).await;
    let began = Instant::now();
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(node.stop().await.success());
    }
    assert!(began.elapsed() < Duration::from_secs(12), "the drain took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_collector_affects_no_request() {
    let fleet = fleet(&format!("127.0.0.1:{}", ports::pick()), "insecure_plain_text = true").await;
    send_quick_requests(&fleet.client(), 50).await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        eventually(SOON, Duration::from_millis(10), || outages(node) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_nothing_is_recorded_or_sent() {
    let collector = TraceCollector::start(None).await;
    let url = format!("http://{}", collector.address);
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.clone()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces")),
        ("OTEL_TRACES_SAMPLER", "always_on".to_owned()),
    ];
    let fleet = Fleet::start(FleetOptions { environment, ..FleetOptions::default() }).await;
    send_quick_requests(&with_traceparent(&fleet.client(), "01"), 5).await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        let url = format!("http://{}/metrics", node.admin());
        let text = super::support::client::get_text(&url)
            .await
            .expect("the process answers with its metrics");
        assert!(!text.contains("fjord_trace_"), "metrics of traces exist");
    }
    // A batch of spans would be exported in less time than this.
    super::support::eventually::for_a_while(Duration::from_millis(1500)).await;
    assert_eq!((collector.connections(), collector.spans().len()), (0, 0));
}
