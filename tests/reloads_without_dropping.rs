//! Promise: SIGHUP takes a new catalogue and new limits while requests go on; a broken file changes nothing and
//! says so.

use std::fs;

use fjord::lifecycle::Tasks;
use rustix::process::Signal;

use super::support::certs::Leaf;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions};

const ADDED: &str = r#"{ "added": { "route": "GET /v1/added", "handler": "echo", "queue": "echo",
    "result": "json", "auth": "public" } }"#;

async fn reloads(fleet: &mut Fleet, result: &str) {
    let figure = format!(r#"fjord_config_reloads_total{{result="{result}"}}"#);
    let before = fleet.gateways[0].figure(&figure).await;
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some(format!("a reload that is {result}"), SOON, async || {
        (fleet.gateways[0].figure(&figure).await > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_at_a_signal_and_a_broken_one_is_counted() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let certificate = fleet.certs.server.certificate.clone();
    let reloads = async |fleet: &Fleet, result: &str| {
        let figure = format!(r#"fjord_tls_reloads_total{{result="{result}"}}"#);
        fleet.gateways[0].figure(&figure).await
    };
    let ends = format!(
        r#"fjord_tls_certificate_expiry_timestamp_seconds{{file="{}"}}"#,
        certificate.display()
    );
    let first = fleet.gateways[0].figure(&ends).await;
    assert!(first > 1.7e9, "the end of the certificate is told: {first}");

    fs::write(&certificate, "rubbish").unwrap();
    let mut fleet = fleet;
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the broken one is refused", SOON, async || {
        (reloads(&fleet, "failed").await > 0.5).then_some(())
    })
    .await;
    // A new connection gets the old one.
    fleet.client().get("/v1/echo/a").await.is(200);
    assert!(fleet.gateways[0].process.log().contains(certificate.to_str().unwrap()));

    let before = reloads(&fleet, "ok").await;
    fleet.certs.issue("server", Leaf::LOCAL);
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the new one is taken", SOON, async || {
        (reloads(&fleet, "ok").await > before).then_some(())
    })
    .await;
    fleet.client().get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_filter_is_taken_by_both_roles() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(!node.process.log().contains(r#""level":"DEBUG""#), "it begins with info");
        let file = node.directory().join(format!("{}.toml", node.role()));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("filter = 'info'", "filter = 'debug'")).unwrap();
        node.process.signal(Signal::HUP);
        eventually_some("it logs more", SOON, async || {
            client.get("/v1/echo/a").await.is(200);
            node.process.log().contains(r#""level":"DEBUG""#).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_catalogue_is_taken_and_a_broken_one_is_not() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let file = fleet.catalogue().join("added.json");
    client.get("/v1/added").await.is_problem(404, "no-route");

    let slow = client.clone();
    let slow = Tasks::new().spawn(async move { slow.get("/v1/slow?ms=1000").await });
    fs::write(&file, ADDED).unwrap();
    reloads(&mut fleet, "ok").await;
    // The worker has the catalogue that it started with: it says so, and the gateway passes it on.
    client.get("/v1/added").await.is(500);
    fleet.workers[0].restart();
    fleet.workers[0].ready().await;
    client.get("/v1/added").await.is(200);
    assert!(matches!(slow.await.unwrap().status.as_u16(), 200 | 504), "it was answered");

    fs::write(&file, ADDED.replace("\"route\"", "\"rout\"")).unwrap();
    reloads(&mut fleet, "failed").await;
    client.get("/v1/added").await.is(200);
    let log = fleet.gateways[0].process.log();
    let line = log.lines().find(|line| line.contains("refused, the old one stays")).unwrap();
    for word in ["added.json", "added", "rout"] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_requests_are_placed_and_who_sees_their_timing_is_taken() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    // Larger than a message of NATS: it streams.
    let large = client.get("/v1/large?rows=100000").await;
    assert_eq!(large.is(200).header("server-timing"), "");
    let file = fleet.gateways[0].directory().join("gateway.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("[gateway]\n", "[gateway]\nserver_timing_scope = '*'\n");
    fs::write(
        &file,
        format!("{text}[gateway.session]\nwindow_parts = 0\nanswer_bytes_max = '1MiB'\n"),
    )
    .unwrap();
    reloads(&mut fleet, "ok").await;
    // Now its parts are put together, and it is too large for that.
    let large = client.get("/v1/large?rows=100000").await;
    large.is_problem(502, "bad-answer");
    assert!(large.header("server-timing").contains("worker;dur="), "{:?}", large.headers);
}
