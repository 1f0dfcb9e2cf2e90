//! Promise: `/` on the admin listener is a page that shows the fleet live, without Prometheus or Grafana, and names its
//! problems. The page requests nothing from other hosts, and works below a path that a proxy removes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::fleet_status::status_command::status;
use super::support::browser::Browser;
use super::support::caller_pool::CallerPool;
use super::support::client::get_page_data;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;
use super::support::prefix_proxy::PrefixProxy;
use super::support::simulated_fleet::{self, SimulatedFleet};
use super::support::target_directory;

/// JavaScript functions for the steps of a test.
const FUNCTIONS: &str = r#"
    const all = (selector) => [...document.querySelectorAll(selector)];
    const text = (selector) => document.querySelector(selector)?.innerText ?? "";
    const rows = (table) => all(`#${table} tbody tr`).map((row) => row.innerText);
    const search = (id, words) => {
        const field = document.getElementById(id);
        field.value = words;
        field.dispatchEvent(new Event("input", { bubbles: true }));
    };
"#;

async fn run(browser: &Browser, script: &str) -> Value {
    browser.run(&format!("{FUNCTIONS}{script}")).await
}

#[track_caller]
fn until<'a>(browser: &'a Browser, script: &str) -> impl Future<Output = Value> + use<'a> {
    let script = format!("{FUNCTIONS}{script}");
    async move { browser.until(&script).await }
}

/// Saves screenshots of the page in both color schemes.
async fn take_pictures(browser: &Browser, name: &str) {
    let directory = target_directory().join("fleet-page");
    fs::create_dir_all(&directory).expect("the directory can be created");
    let file = |scheme: &str| -> PathBuf { directory.join(format!("{name}-{scheme}.png")) };
    for scheme in ["dark", "light"] {
        browser.prefer_color_scheme(scheme).await;
        let expected = if scheme == "dark" { "rgb(18, 22, 28)" } else { "rgb(246, 247, 249)" };
        let is_applied =
            format!("return getComputedStyle(document.body).backgroundColor === '{expected}';");
        until(browser, &is_applied).await;
        browser.screenshot_of_page(&file(scheme)).await;
    }
}

fn url(process: &FjordProcess) -> String {
    format!("http://{}/", process.admin())
}

/// Checks that the page requested nothing from other hosts, and that the browser reported no error.
async fn is_clean(browser: &Browser) {
    let hosts = "return [...new Set(performance.getEntriesByType('resource').map((it) => new URL(it.name).origin))];";
    assert_eq!(run(browser, hosts).await, json!([run(browser, "return location.origin;").await]));
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_the_fleet_live_with_its_bottleneck() {
    let Some(browser) = Browser::start("the page that shows the fleet").await else { return };
    let options = FleetOptions { workers: 2, concurrency: 2, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let clients = [fleet.client()];
    let full = CallerPool::start(&clients, "/v1/slow?ms=200", 200, 12);
    let easy = CallerPool::start(&clients, "/v1/echo/1", 200, 1);
    let late = CallerPool::start(&clients, "/v1/strict?ms=5000", 504, 1);
    browser.open(&url(&fleet.gateways[0])).await;
    let start = "The bottleneck is queue slow: all 4 slots of its 2 workers were in use ";
    until(&browser, &format!("return text('#bottleneck').startsWith('{start}');")).await;
    let output = status(fleet.gateways[0].directory(), &["--json", "--interval", "2"]).output();
    let view: Value = serde_json::from_slice(&output.expect("fjord runs").stdout).expect("JSON");
    assert!(view["bottleneck"]["sentence"].as_str().is_some_and(|text| text.starts_with(start)));

    let processes = run(&browser, "return rows('processes');").await;
    assert_eq!(processes.as_array().map(Vec::len), Some(3), "{processes}");
    for process in view["processes"].as_array().expect("processes") {
        let text = |key: &str| process[key].as_str().unwrap_or_default().to_owned();
        let (id, version) = (text("id"), text("version"));
        let parts =
            [text("role"), text("host"), id.chars().take(8).collect(), version, "ready".to_owned()];
        let shown = processes.as_array().unwrap().iter().filter_map(Value::as_str);
        let matching = shown.filter(|row| parts.iter().all(|part| row.contains(part.as_str())));
        assert_eq!(matching.count(), 1, "{parts:?}: {processes}");
    }
    for unit in ["MB", " %", "/ 10,000", " ms"] {
        let shown = processes.as_array().unwrap().iter().any(|row| row.to_string().contains(unit));
        assert!(shown, "{unit}: {processes}");
    }
    until(&browser, "return rows('queues').some((row) => row.includes('sql_timeout'));").await;
    // The charts have values that a screen reader can read.
    let labels = "const labels = all('#charts [role=img]').map((chart) => chart.ariaLabel);
        return all('#charts canvas').length === 4 && labels.every((label) => /now [0-9]/.test(label)) && labels;";
    let labels = until(&browser, labels).await;
    assert!(labels[0].as_str().is_some_and(|label| label.contains("Requests: now ")), "{labels}");
    until(&browser, "return /Waiting: now [1-9]/.test(all('#charts [role=img]')[3].ariaLabel);")
        .await;
    take_pictures(&browser, "three-processes").await;

    // The page shows the charts of one queue.
    run(&browser, "all('#queues td button').find((it) => it.innerText === 'echo').click();").await;
    until(&browser, "return document.getElementById('queue').value === 'echo';").await;
    until(&browser, "return /now 0,/.test(all('#charts [role=img]')[2].ariaLabel);").await;
    let pressed = "return all('#queues [aria-pressed=true]').map((it) => it.innerText);";
    assert_eq!(run(&browser, pressed).await, json!(["echo"]));
    // A click on a heading sorts by its column, and the heading shows the order.
    run(&browser, "all('#queues th button').find((it) => it.innerText === 'Queue').click();").await;
    let order = run(&browser, "return all('#queues td.name').map((it) => it.innerText);").await;
    let names: Vec<&str> = order.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.len() > 3 && names.is_sorted(), "{names:?}");
    let sorted = run(&browser, "return all('#queues [aria-sort]').map((it) => it.ariaSort);").await;
    assert_eq!(sorted, json!(["ascending"]));
    is_clean(&browser).await;
    for callers in [full, easy, late] {
        callers.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_who_does_not_reply_and_that_its_data_is_old() {
    let Some(browser) = Browser::start("the page of a broken fleet").await else { return };
    let mut fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    browser.open(&url(&fleet.gateways[0])).await;
    until(&browser, "return rows('processes').length === 3;").await;
    assert_eq!(run(&browser, "return text('#notices');").await, "");

    fleet.workers[1].process.pause();
    let silent = "return text('#notices').includes('1 process does not reply: worker ')
        && rows('processes').filter((row) => /no reply for/.test(row)).length === 1;";
    until(&browser, silent).await;
    take_pictures(&browser, "missing-worker").await;
    fleet.workers[1].process.resume();
    until(&browser, "return text('#notices') === '';").await;

    fleet.nats.servers[0].kill();
    until(&browser, "return text('#notices').includes('not connected to NATS');").await;
    until(&browser, "return text('#notices').includes('The data is old');").await;
    let state = "return document.getElementById('updated').dataset.state;";
    assert_eq!(run(&browser, state).await, "old");
    let kept = run(&browser, "return rows('processes').length;").await;
    assert_eq!(kept, 3, "the last data stays");
    take_pictures(&browser, "without-nats").await;
    fleet.nats.servers[0].restart().await;
    until(&browser, "return text('#notices') === '';").await;
    until(&browser, "return document.getElementById('updated').dataset.state === 'live';").await;

    fleet.gateways[0].process.kill();
    until(&browser, "return text('#notices').includes('This process does not answer');").await;
    assert_eq!(run(&browser, "return rows('processes').length;").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_processes_stay_readable_and_their_texts_are_escaped() {
    let Some(browser) = Browser::start("the page of a large fleet").await else { return };
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let simulated = SimulatedFleet::start(&fleet.nats.urls()[0], 198).await;
    browser.open(&url(&fleet.gateways[0])).await;
    until(&browser, "return rows('processes').length === 200;").await;
    let totals = run(&browser, "return text('#totals');").await;
    let totals = totals.as_str().expect("text");
    assert!(totals.contains("Gateways\n21") && totals.contains("Workers\n179"), "{totals}");
    until(&browser, "return text('#bottleneck').startsWith('The bottleneck is queue ');").await;

    // Text from other processes is shown verbatim.
    let hostile = simulated_fleet::HOSTILE;
    assert_eq!(run(&browser, "return all('main img, main script, main b').length;").await, 0);
    assert_eq!(run(&browser, "return window.injected ?? null;").await, Value::Null);
    let shown = run(&browser, "return [rows('processes'), rows('queues')].flat().join();").await;
    assert!(shown.as_str().is_some_and(|text| text.matches(hostile).count() >= 2), "{shown}");

    // Processes that are not ready come first.
    let first = run(&browser, "return rows('processes')[0];").await;
    assert!(first.as_str().is_some_and(|row| row.contains("not connected")), "{first}");
    run(&browser, "search('processes-search', 'worker host-017');").await;
    let found = run(&browser, "return rows('processes');").await;
    let found = found.as_array().expect("rows");
    assert!((1..10).contains(&found.len()), "{found:?}");
    assert!(found.iter().all(|row| row.to_string().contains("host-017")), "{found:?}");
    run(&browser, "search('processes-search', '');").await;
    until(
        &browser,
        "return all('#charts [role=img]').every((it) => /now [0-9]/.test(it.ariaLabel));",
    )
    .await;
    take_pictures(&browser, "two-hundred-processes").await;
    is_clean(&browser).await;

    let size = "return performance.getEntriesByType('resource')
        .filter((it) => it.name.endsWith('fleet.json')).at(-1).encodedBodySize;";
    let bytes = run(&browser, size).await;
    assert!(bytes.as_u64().is_some_and(|bytes| bytes < 256 << 10), "{bytes} bytes");
    println!("{} queries, {bytes} bytes of data", simulated.queries());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_below_a_path_that_a_proxy_removes() {
    let Some(browser) = Browser::start("the page behind a proxy").await else { return };
    let fleet = Fleet::start(FleetOptions::default()).await;
    let proxy = PrefixProxy::bind().await;
    let url = format!("http://{}/fleet-1/", proxy.address());
    let steps = async {
        browser.open(&url).await;
        until(&browser, "return rows('processes').length === 2;").await;
    };
    tokio::select! {
        () = proxy.serve_plain(fleet.gateways[0].admin(), "fleet-1") => unreachable!("it never returns"),
        () = steps => {}
    }
    let outside =
        "return performance.getEntriesByType('resource').map((it) => new URL(it.name).pathname)
                     .filter((path) => !path.startsWith('/fleet-1/'));";
    assert_eq!(run(&browser, outside).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_process_whose_page_is_open_queries_the_fleet() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let simulated = SimulatedFleet::start(&fleet.nats.urls()[0], 1).await;
    let data = async |process: &FjordProcess| get_page_data(process).await.expect("JSON");
    let processes = async |process: &FjordProcess, number: usize| {
        eventually_some(format!("{number} processes"), SOON, async || {
            let data = data(process).await;
            (data["processes"].as_array()?.len() == number).then_some(data)
        })
        .await
    };
    // The page of a worker shows only that worker.
    let own = processes(&fleet.workers[0], 1).await;
    assert_eq!((&own["covers_fleet"], &own["process"]["role"]), (&json!(false), &json!("worker")));
    assert_eq!(simulated.queries(), 0, "nobody has opened the page of the gateway");
    let all = processes(&fleet.gateways[0], 3).await;
    assert_eq!(all["covers_fleet"], true);
    let queries = simulated.queries();
    assert!((2..=4).contains(&queries), "{queries} queries");
    // Many readers of the page cause no more queries than one reader.
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        data(&fleet.gateways[0]).await;
    }
    assert!(simulated.queries() <= queries + 2, "{} queries", simulated.queries());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_neither_read_the_data_nor_make_the_process_query_the_fleet() {
    let Some(browser) = Browser::start("the page's data for other sites").await else { return };
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, ..FleetOptions::default() }).await;
    let simulated = SimulatedFleet::start(&fleet.nats.urls()[0], 1).await;
    let data = format!("{}fleet.json", url(&fleet.gateways[0]));
    // This document of another origin has no content security policy. Such a policy would refuse the requests as well.
    browser.open(&format!("{}metrics", url(&fleet.workers[0]))).await;
    let results = format!(
        "const attempt = (options) => fetch('{data}', options).then((answer) => answer.type, (error) => error.name);
         return Promise.all([{{}}, {{ mode: 'no-cors' }}, {{ headers: {{ 'Fjord-Page': '1' }} }}].map(attempt));"
    );
    // Without CORS, the status of an answer is hidden. If an attempt caused a query, the query would be sent
    // immediately.
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < end {
        assert_eq!(run(&browser, &results).await, json!(["TypeError", "opaque", "TypeError"]));
    }
    assert_eq!(simulated.queries(), 0, "the fleet was queried");
    // Requests of the page itself succeed.
    browser.open(&url(&fleet.gateways[0])).await;
    until(&browser, "return rows('processes').length === 3;").await;
    assert!(simulated.queries() > 0);
}
