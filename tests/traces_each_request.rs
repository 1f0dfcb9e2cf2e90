//! Promise: a request that is recorded is one trace, from the client to the procedure, in the words of OpenTelemetry;
//! whatever the collector does, no request feels it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;

use super::support::certs::Certs;
use super::support::client::Client;
use super::support::collector::{Collector, Mood, Taken};
use super::support::eventually::{SOON, eventually, eventually_some};
use super::support::fjord::{Fleet, FleetOptions, Node};
use super::support::ports;

const CANARY: &str = "Canary9153";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A fleet whose traces go to `address`, with further keys.
async fn fleet(address: &str, keys: &str) -> Fleet {
    let scheme = if keys.contains("[traces.tls]") { "https" } else { "http" };
    let traces = format!("[traces]\nendpoint = '{scheme}://{address}'\n{keys}\n");
    let (gateway_toml, worker_toml) = (traces.clone(), traces);
    Fleet::start(FleetOptions { gateway_toml, worker_toml, ..FleetOptions::default() }).await
}

async fn plain_fleet(collector: &Collector, keys: &str) -> Fleet {
    let keys = format!("insecure_plain_text = true\n{keys}");
    fleet(&collector.address.to_string(), &keys).await
}

fn asking(client: &Client, flags: &str) -> Client {
    client.with_header("traceparent", &format!("00-{TRACE}-{SPAN}-{flags}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes it");
        text
    })
}

/// The spans of a trace once there are so many, by their beginning.
async fn spans(collector: &Collector, number: usize) -> Vec<Taken> {
    let mut spans = eventually_some(format!("{number} spans"), SOON, async || {
        let taken = collector.taken();
        (taken.len() >= number).then_some(taken)
    })
    .await;
    spans.sort_by_key(|taken| taken.span.start_time_unix_nano);
    assert_eq!(spans.len(), number, "{spans:#?}");
    spans
}

fn error_of(taken: &Taken) -> Option<String> {
    let status = taken.span.status.clone()?;
    (status.code() == StatusCode::Error).then_some(status.message)
}

/// That each is below the one before it, and lies within it.
fn descend(spans: &[Taken]) {
    /// Two processes read the wall's clock at two moments.
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
    let home = tempfile::tempdir().expect("a directory of its own");
    let certs = Certs::new(home.path());
    let collector = Collector::start(Some(&certs)).await;
    let headers = home.path().join("headers");
    std::fs::write(&headers, "x-collector-key=sesame\nx-tenant=fjord\n").expect("a file");
    let keys = format!(
        "headers_file = '{}'\n[traces.tls]\nca = '{}'",
        headers.display(),
        certs.ca.display()
    );
    let mut fleet = fleet(&collector.address.to_string(), &keys).await;
    let client = asking(&fleet.client(), "01").with_header("x-note", CANARY);
    let client = client.with_header("tracestate", "a=1").with_header("x-request-id", CANARY);
    client.get("/v1/slow?ms=40").await.is(200);
    let found = spans(&collector, 4).await;
    let [server, publish, process, call] = found.as_slice() else { panic!("four") };
    assert_eq!(hex(&server.span.trace_id), TRACE);
    assert_eq!(hex(&server.span.parent_span_id), SPAN, "below the client's");
    descend(&found);
    let told = |taken: &Taken| (taken.service.clone(), taken.span.name.clone(), taken.span.kind());
    let expected = |service: &str, name: &str, kind| (service.to_owned(), name.to_owned(), kind);
    assert_eq!(told(server), expected("fjord-gateway", "GET /v1/slow", SpanKind::Server));
    assert_eq!(told(publish), expected("fjord-gateway", "publish slow", SpanKind::Producer));
    assert_eq!(told(process), expected("fjord-worker", "process slow", SpanKind::Consumer));
    assert_eq!(told(call), expected("fjord-worker", "EXECUTE ledger.slow", SpanKind::Client));
    for (taken, key, value) in [
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
        assert_eq!(taken.attribute(key), value, "{key} of {taken:#?}");
    }
    let took = call.span.end_time_unix_nano - call.span.start_time_unix_nano;
    assert!((40_000_000..1_000_000_000).contains(&took), "{took} ns");
    for taken in &found {
        assert_eq!(taken.headers["x-collector-key"], "sesame");
        assert_eq!(error_of(taken), None);
        assert!(!format!("{:?}", taken.span).contains(CANARY), "{taken:#?}");
    }
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        assert!(!node.process.log().contains("sesame"));
    }
    // What has just ended is exported before the process is gone.
    client.get("/v1/slow?ms=1").await.is(200);
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(node.stop().await.success());
    }
    assert_eq!(collector.taken().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_says_so_and_with_which_word() {
    let collector = Collector::start(None).await;
    let keys = "[worker]\nanswer_bytes_max = '1KiB'";
    let fleet = plain_fleet(&collector, keys).await;
    let client = fleet.client();
    client.get("/v1/large?rows=2000").await.is(502);
    let found = spans(&collector, 4).await;
    descend(&found);
    for taken in &found {
        assert_eq!(error_of(taken).as_deref(), Some("answer_too_large"), "{taken:#?}");
    }
    assert_eq!(found[0].attribute("error.type"), "answer_too_large");
    assert_eq!(found[0].span.parent_span_id, Vec::<u8>::new(), "nobody was before us");

    // A procedure that raises an error of its own: the call has failed, the fleet has not.
    let path = format!("/v1/refuse/{CANARY}?text={CANARY}");
    client.send(Method::POST, &path, &json!({ "body": CANARY })).await.is(500);
    let found = spans(&collector, 8).await.split_off(4);
    descend(&found);
    let words: Vec<_> = found.iter().map(error_of).collect();
    let raised = Some("sql_user".to_owned());
    assert_eq!(words, [raised.clone(), None, None, raised]);
    assert_eq!(found[0].attribute("http.route"), "/v1/refuse/{id}");
    assert!(found.iter().all(|t| !format!("{:?}", t.span).contains(CANARY)), "{found:#?}");

    // What the caller did wrong is no error of ours, and its path is nobody's business.
    client.get(&format!("/v1/{CANARY}")).await.is(404);
    let found = spans(&collector, 9).await;
    let lost = found.last().expect("nine");
    let told = (lost.span.name.as_str(), lost.attribute("fjord.outcome"), error_of(lost));
    assert_eq!(told, ("GET", "no_route".to_owned(), None), "{lost:#?}");
    assert_eq!(lost.attribute("http.route"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_decides_has_its_trace_recorded_or_not() {
    let collector = Collector::start(None).await;
    let keys = "sample_ratio = 0.0\nparent_sampling = 'always'";
    let fleet = plain_fleet(&collector, keys).await;
    let client = fleet.client();
    for _ in 0..20 {
        client.get("/v1/slow?ms=0").await.is(200);
        asking(&client, "00").get("/v1/slow?ms=0").await.is(200);
    }
    asking(&client, "01").get("/v1/slow?ms=0").await.is(200);
    let found = spans(&collector, 4).await;
    assert!(found.iter().all(|taken| hex(&taken.span.trace_id) == TRACE));
}

/// An endpoint for whoever has the key `old-key`.
const GUARDED: (&str, &str) = (
    "guarded.json",
    r#"{ "guarded": { "route": "GET /v1/guarded", "queue": "echo", "handler": "echo", "timeout": "2s",
    "auth": { "methods": ["api-key"] } } }"#,
);
const KEY: &str = "[auth.api_keys.billing]\n\
    sha256 = ['762c08fc17a1cc5f00d248f8b50f2f2f4d17ff2934ac31e64deacb3f5bb3f2ec']\n";

/// How many requests were recorded, of ten in a row by somebody and ten by a caller with a key, all of which want it.
async fn recorded(traces: &str) -> (usize, usize) {
    let collector = Collector::start(None).await;
    let traces = format!(
        "[traces]\nendpoint = 'http://{}'\ninsecure_plain_text = true\n{traces}\n",
        collector.address
    );
    let gateway_toml = format!("{traces}{KEY}");
    let catalogue = Some(GUARDED);
    let options =
        FleetOptions { catalogue, gateway_toml, worker_toml: traces, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let anybody = asking(&fleet.client(), "01");
    for _ in 0..10 {
        anybody.get("/v1/slow?ms=0").await.is(200);
        // A credential that is no good proves nothing.
        anybody.with_header("x-api-key", "wrong").get("/v1/guarded").await.is(401);
        anybody.with_header("x-api-key", "old-key").get("/v1/guarded").await.is(200);
    }
    // What has ended is exported before the process is gone.
    assert!(fleet.gateways[0].stop().await.success());
    let taken = collector.taken();
    let requests = |route: &str, status: &str| {
        let is_it = |taken: &&Taken| {
            taken.attribute("http.route") == route
                && taken.attribute("http.response.status_code") == status
        };
        taken.iter().filter(is_it).count()
    };
    let refused = requests("/v1/guarded", "401");
    (requests("/v1/slow", "200") + refused, requests("/v1/guarded", "200"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_decides_nothing() {
    assert_eq!(recorded("sample_ratio = 0.0").await, (0, 10));
    assert_eq!(recorded("sample_ratio = 0.0\nparent_sampling = 'never'").await, (0, 0));
    assert_eq!(recorded("sample_ratio = 0.0\nparent_sampling = 'always'").await, (20, 10));
}

/// Requests that are recorded, none of which takes long.
async fn nobody_waits(client: &Client, number: usize) {
    for _ in 0..number {
        let began = Instant::now();
        client.get("/v1/slow?ms=0").await.is(200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

async fn spans_of(node: &Node, result: &str) -> f64 {
    node.figure(&format!("fjord_trace_spans_total{{result=\"{result}\"}}")).await
}

fn outages(node: &Node) -> usize {
    node.process.log().matches("traces cannot be exported").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_disturbs_no_request() {
    let collector = Collector::start(None).await;
    let mut fleet = plain_fleet(&collector, "timeout = '300ms'\nspans_max = 16").await;
    let client = fleet.client();
    collector.feels(Mood::Refuses(500));
    nobody_waits(&client, 50).await;
    let gateway = &fleet.gateways[0];
    eventually_some("failed spans are counted", SOON, async || {
        (spans_of(gateway, "failed").await > 0.5).then_some(())
    })
    .await;
    collector.feels(Mood::Stalls);
    let before = collector.exports();
    nobody_waits(&client, 20).await;
    eventually(SOON, Duration::from_millis(10), || collector.exports() > before).await;
    nobody_waits(&client, 100).await;
    assert!(spans_of(gateway, "dropped").await > 100.0, "it holds 16 spans, and no more");
    assert_eq!(outages(gateway), 1, "an outage is told once");
    collector.feels(Mood::Takes);
    eventually_some("the outage is over", Duration::from_secs(30), async || {
        gateway.process.log().contains("traces are exported again").then_some(())
    })
    .await;
    assert!(!collector.taken().is_empty(), "what waited was sent after all");
    assert!(gateway.figure(r#"fjord_trace_exports_total{result="failed"}"#).await > 1.5);
    collector.feels(Mood::Stalls);
    nobody_waits(&client, 5).await;
    let began = Instant::now();
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(node.stop().await.success());
    }
    assert!(began.elapsed() < Duration::from_secs(12), "it waited {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_disturbs_no_request() {
    let fleet = fleet(&format!("127.0.0.1:{}", ports::pick()), "insecure_plain_text = true").await;
    nobody_waits(&fleet.client(), 50).await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        eventually(SOON, Duration::from_millis(10), || outages(node) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_nothing_is_recorded_and_nobody_connects() {
    let collector = Collector::start(None).await;
    let url = format!("http://{}", collector.address);
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.clone()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces")),
        ("OTEL_TRACES_SAMPLER", "always_on".to_owned()),
    ];
    let fleet = Fleet::start(FleetOptions { environment, ..FleetOptions::default() }).await;
    nobody_waits(&asking(&fleet.client(), "01"), 5).await;
    for node in fleet.gateways.iter().chain(&fleet.workers) {
        let figures = format!("http://{}/metrics", node.admin());
        let text = super::support::client::get_text(&figures).await.expect("metrics");
        assert!(!text.contains("fjord_trace_"), "nothing is counted that does not happen");
    }
    // Longer than a span would wait for others.
    super::support::eventually::for_a_while(Duration::from_millis(1500)).await;
    assert_eq!((collector.connections(), collector.taken().len()), (0, 0));
}
