//! The page of the admin listener and `fjord status` show the changes that operators have made.

use serde_json::Value;

use super::{document, fleet, run, text};
use crate::support::browser::Browser;

/// Returns the cells in the row of a queue.
fn cells(queue: &str) -> String {
    format!(
        "const rows = [...document.querySelectorAll('#queues tbody tr')];
         const row = rows.find((row) => row.cells[0].innerText === '{queue}');
         return row ? [...row.cells].map((cell) => cell.innerText) : null;"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_queues_and_changed_limits_are_shown() {
    let fleet = fleet(1, 2).await;
    let view = document(&run(&fleet, &["status", "--json", "--interval", "1"]).await);
    let worker = view["processes"].as_array().unwrap().iter().find(|it| it["role"] == "worker");
    let id = worker.and_then(|worker| worker["id"].as_str()).expect("a worker").to_owned();
    let limits = worker.map(|worker| worker["queues"].as_array().unwrap().iter());
    let mut limits = limits.expect("queues");
    let configured = limits.find(|queue| queue["name"] == "slow").unwrap()["limit"].as_u64();
    let configured = configured.expect("a limit");
    for command in
        [["queue", "pause", "echo", "--on", &id].as_slice(), &["queue", "limit", "slow", "1"]]
    {
        let output = run(&fleet, command).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let sum = 2 * configured;
    let page = text(&run(&fleet, &["status", "--interval", "1"]).await.stdout);
    let line = |start: &str| page.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert!(line("echo ").contains("2 (1 paused)"), "{page}");
    assert!(line("slow ").contains(&format!("0/2 (configured {sum})")), "{page}");

    let Some(browser) = Browser::start("pauses and limits on the page").await else { return };
    browser.open(&format!("http://{}/", fleet.gateways[0].admin())).await;
    let shown = async |queue: &str, column: usize, expected: &str| {
        let script = cells(queue);
        let until = format!(
            "const cells = (() => {{ {script} }})(); return cells && cells[{column}] === '{expected}';"
        );
        browser.until(&until).await;
    };
    shown("echo", 1, "2 (1 paused)").await;
    shown("slow", 2, &format!("0 / 2 (configured {sum})")).await;
    let notices = browser.run("return document.getElementById('notices').innerText;").await;
    let notices = notices.as_str().expect("text");
    assert!(notices.contains("Paused by an operator: echo in 1 of 2 workers."), "{notices}");
    let limit = format!("Limit changed by an operator: slow has 2 slots (configured {sum}).");
    assert!(notices.contains(&limit), "{notices}");
    // The state of each worker lists its own changes.
    let states =
        "return [...document.querySelectorAll('#processes tbody tr')].map((row) => row.innerText);";
    let states: Vec<String> = match browser.run(states).await {
        Value::Array(rows) => rows.iter().map(ToString::to_string).collect(),
        other => panic!("no rows: {other}"),
    };
    let limit = format!("queue slow: limit 1 (configured {configured})");
    assert_eq!(states.iter().filter(|row| row.contains(&limit)).count(), 2, "{states:?}");
    let paused = states.iter().filter(|row| row.contains("paused by grace@")).count();
    assert_eq!(paused, 1, "{states:?}");

    for command in
        [["queue", "resume", "echo"].as_slice(), &["queue", "limit", "slow", "configured"]]
    {
        assert_eq!(run(&fleet, command).await.status.code(), Some(0));
    }
    browser.until("return document.getElementById('notices').innerText === '';").await;
    shown("slow", 2, &format!("0 / {sum}")).await;
}
