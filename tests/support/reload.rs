//! Reloads the processes of a fleet by signal, and waits until they serve the new configuration.

use std::fs;

use rustix::process::Signal;

use super::client::get_json;
use super::eventually::{SOON, eventually_some};
use super::fleet::FjordProcess;

/// Sends SIGHUP, and waits until the process has counted a reload with this result.
pub(crate) async fn signal(process: &mut FjordProcess, result: &str) {
    let metric = format!(r#"fjord_config_reloads_total{{result="{result}"}}"#);
    let before = process.metric(&metric).await;
    process.process.signal(Signal::HUP);
    eventually_some(format!("a reload that is {result}"), SOON, async || {
        (process.metric(&metric).await > before).then_some(())
    })
    .await;
}

/// Reloads a worker, and waits until all of its queues serve the new configuration.
pub(crate) async fn worker(process: &mut FjordProcess) {
    signal(process, "ok").await;
    eventually_some("the queues serve the reloaded configuration", SOON, async || {
        let status = status(process).await;
        status["pending"].as_object()?.is_empty().then_some(())
    })
    .await;
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
