//! Promise: SIGHUP applies a new catalogue and new limits without interrupting requests. An invalid file is reported and
//! changes nothing.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use fjord::lifecycle::Tasks;
use rustix::process::Signal;

mod workers;

use super::large_answers::memory::status;
use super::support::certs::Leaf;
use super::support::client::get_text;
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::reload;

const ADDED: &str = r#"{ "added": { "route": "GET /v1/added", "handler": "echo", "queue": "echo",
    "result": "json", "auth": "public" } }"#;

async fn reloads(fleet: &mut Fleet, result: &str) {
    reload::signal(&mut fleet.gateways[0], result).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_a_new_certificate_and_rejects_an_invalid_one() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let certificate = fleet.certs.server.certificate.clone();
    let reloads = async |fleet: &Fleet, result: &str| {
        let metric = format!(r#"fjord_tls_reloads_total{{result="{result}"}}"#);
        fleet.gateways[0].metric(&metric).await
    };
    let ends = format!(
        r#"fjord_tls_certificate_expiry_timestamp_seconds{{file="{}"}}"#,
        certificate.display()
    );
    let first = fleet.gateways[0].metric(&ends).await;
    assert!(first > 1.7e9, "the certificate's expiry is reported: {first}");

    fs::write(&certificate, "rubbish").unwrap();
    let mut fleet = fleet;
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the invalid certificate is rejected", SOON, async || {
        (reloads(&fleet, "failed").await > 0.5).then_some(())
    })
    .await;
    // New connections still get the old certificate.
    fleet.client().get("/v1/echo/a").await.is(200);
    assert!(fleet.gateways[0].process.log().contains(certificate.to_str().unwrap()));

    let before = reloads(&fleet, "ok").await;
    fleet.certs.issue("server", Leaf::LOCAL);
    fleet.gateways[0].process.signal(Signal::HUP);
    eventually_some("the new certificate is used", SOON, async || {
        (reloads(&fleet, "ok").await > before).then_some(())
    })
    .await;
    fleet.client().get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_a_new_log_filter_in_both_roles() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        assert!(!node.process.log().contains(r#""level":"DEBUG""#), "the level is info at first");
        let file = node.directory().join(format!("{}.toml", node.role()));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("filter = 'info'", "filter = 'debug'")).unwrap();
        node.process.signal(Signal::HUP);
        eventually_some("debug lines are logged", SOON, async || {
            client.get("/v1/echo/a").await.is(200);
            node.process.log().contains(r#""level":"DEBUG""#).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_a_new_catalogue_and_rejects_an_invalid_one() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let file = fleet.catalogue().join("added.json");
    client.get("/v1/added").await.is_problem(404, "no-route");

    let slow = client.clone();
    let slow = Tasks::new().spawn(async move { slow.get("/v1/slow?ms=1000").await });
    fs::write(&file, ADDED).unwrap();
    reloads(&mut fleet, "ok").await;
    // The worker still uses its old catalogue, so it rejects the request, and the gateway forwards the error.
    client.get("/v1/added").await.is(500);
    reload::worker(&mut fleet.workers[0]).await;
    client.get("/v1/added").await.is(200);
    assert!(matches!(slow.await.unwrap().status.as_u16(), 200 | 504), "the request was answered");

    fs::write(&file, ADDED.replace("\"route\"", "\"rout\"")).unwrap();
    reloads(&mut fleet, "failed").await;
    client.get("/v1/added").await.is(200);
    let log = fleet.gateways[0].process.log();
    let line = log.lines().find(|line| line.contains("the new configuration is invalid")).unwrap();
    for word in ["added.json", "added", "rout"] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_registers_the_metrics_of_new_queues() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let added = ADDED.replace(r#""queue": "echo""#, r#""queue": "fresh""#);
    fs::write(fleet.catalogue().join("added.json"), added).unwrap();
    reloads(&mut fleet, "ok").await;
    let metrics = format!("http://{}/metrics", fleet.gateways[0].admin());
    let metrics = get_text(&metrics).await.expect("metrics");
    let arrivals = r#"fjord_gateway_queue_arrivals_total{queue="fresh"} 0"#;
    assert!(metrics.lines().any(|line| line == arrivals), "a rate counts the first request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_session_settings_and_server_timing() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    // The answer is larger than two parts, so it is streamed.
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
    // The gateway now assembles the parts, and the answer exceeds its limit.
    let large = client.get("/v1/large?rows=100000").await;
    large.is_problem(502, "bad-answer");
    assert!(large.header("server-timing").contains("worker;dur="), "{:?}", large.headers);
}

/// Returns a catalogue with this number of endpoints and patterns.
fn many_endpoints(count: usize) -> String {
    let mut text = String::from("{");
    for n in 0..count {
        let comma = if n == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma} "many-{n}": {{ "route": "GET /v1/many/{n}/{{id}}", "handler": "echo", "auth": "public",
                "parameters": {{ "id": {{ "in": "path", "type": "string", "pattern": "^[A-Z0-9]{{1,15}}$" }},
                    "day": {{ "in": "query", "type": "date" }} }} }}"#
        )
        .expect("text");
    }
    text + "}"
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_do_not_make_a_gateway_grow() {
    const ENDPOINTS: usize = 500;
    const RELOADS: usize = 50;
    // If one in five reloads left its catalogue behind, the growth would exceed this value.
    const GROWTH_MAX: u64 = 16 << 20;
    let mut fleet = Fleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    fs::write(fleet.catalogue().join("many.json"), many_endpoints(ENDPOINTS)).unwrap();
    for _ in 0..5 {
        reloads(&mut fleet, "ok").await;
    }
    let before = status(&fleet.gateways[0], "VmRSS");
    for _ in 0..RELOADS {
        reloads(&mut fleet, "ok").await;
    }
    // The process returns free memory to the kernel only when it is idle.
    let what = format!("less than {GROWTH_MAX} B more than {before} B");
    let after = eventually_some(what, Duration::from_secs(30), async || {
        let after = status(&fleet.gateways[0], "VmRSS");
        (after < before + GROWTH_MAX).then_some(after)
    })
    .await;
    println!("RSS of a gateway before and after {RELOADS} reloads: {before} and {after} B");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_start_does_not_end_the_process() {
    let mut fleet = Fleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    // The process waits at startup until something is written to the pipe.
    let (pipe, added) = (fleet.catalogue().join("added.json"), fleet.catalogue().join("added.new"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a pipe");
    fleet.gateways[0].restart();
    let opened = pipe.clone();
    let open = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(opened));
    let mut writer =
        tokio::time::timeout(SOON, open).await.expect("the start reads it").unwrap().unwrap();
    fleet.gateways[0].process.signal(Signal::HUP);
    // The reload that follows the start reads a file again.
    fs::write(&added, ADDED).unwrap();
    fs::rename(&added, &pipe).unwrap();
    writer.write_all(b"{}").unwrap();
    drop(writer);
    fleet.gateways[0].ready().await;
    eventually_some("the reload", SOON, async || {
        let reloads = r#"fjord_config_reloads_total{result="ok"}"#;
        (fleet.gateways[0].metric(reloads).await > 0.5).then_some(())
    })
    .await;
    fleet.client().get("/v1/added?unknown=1").await.is(400);
}
