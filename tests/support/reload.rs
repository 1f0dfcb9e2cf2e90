//! Reloads the processes in a fleet by signal, and waits until they serve the new configuration.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::client::{get_json, get_text};
use super::eventually::eventually_some;
use super::fjord_process::FjordProcess;

/// The time limit for a reload, with a margin for a busy machine.
const RELOAD_LIMIT: Duration = Duration::from_mins(1);

/// Sends SIGHUP, and waits until the process has counted a reload with this result.
pub(crate) async fn signal(process: &mut FjordProcess, result: &str) {
    let before =
        eventually_some("the metrics", RELOAD_LIMIT, async || reloads(process, result).await);
    let before = before.await;
    process.process.signal(Signal::HUP);
    eventually_some(format!("a reload that is {result}"), RELOAD_LIMIT, async || {
        (reloads(process, result).await? > before).then_some(())
    })
    .await;
}

/// Reloads a worker, and waits until all of its queues serve the new configuration.
pub(crate) async fn worker(process: &mut FjordProcess) {
    signal(process, "ok").await;
    let url = format!("http://{}/status", process.admin());
    eventually_some("the queues serve the reloaded configuration", RELOAD_LIMIT, async || {
        get_json(&url).await?["pending"].as_object()?.is_empty().then_some(())
    })
    .await;
}

/// Returns the number of reloads with this result, or `None` if the process does not answer in
/// time.
async fn reloads(process: &FjordProcess, result: &str) -> Option<u64> {
    let text = get_text(&format!("http://{}/metrics", process.admin())).await?;
    let start = format!(r#"fjord_config_reloads_total{{result="{result}"}} "#);
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    Some(value.map_or(0, |value| value.parse().expect("a counter is an integer")))
}

/// Returns the `/status` document of a process.
pub(crate) async fn status(process: &FjordProcess) -> serde_json::Value {
    let url = format!("http://{}/status", process.admin());
    get_json(&url).await.expect("the process answers with its status")
}

/// Returns the names of the queues of a worker.
pub(crate) async fn queues(process: &FjordProcess) -> Vec<String> {
    let status = status(process).await;
    status["queues"].as_object().expect("queues").keys().cloned().collect()
}

/// Replaces text in the configuration file of a process.
pub(crate) fn edit(process: &FjordProcess, from: &str, to: &str) {
    let file = process.directory().join(format!("{}.toml", process.role()));
    let text = fs::read_to_string(&file).expect("the configuration can be read");
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(file, text.replace(from, to)).expect("the file can be written");
}
