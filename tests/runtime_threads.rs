//! Promise: `TOKIO_WORKER_THREADS` sets the number of threads that handle messages and connections.

use std::fs;

use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};

/// Returns the number of runtime threads, including those for blocking operations.
fn runtime_threads(process: &FjordProcess) -> usize {
    let tasks = format!("/proc/{}/task", process.process.pid());
    let tasks = fs::read_dir(tasks).expect("the process is running");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tokio-rt-worker")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_roles_start_the_configured_number_of_threads() {
    let mut counts = Vec::new();
    for threads in ["1", "64"] {
        let environment = vec![("TOKIO_WORKER_THREADS", threads.to_owned())];
        let fleet = Fleet::start(FleetOptions { environment, ..FleetOptions::default() }).await;
        fleet.client().get("/v1/echo/a").await.is(200);
        counts.push([&fleet.gateways[0], &fleet.workers[0]].map(runtime_threads));
    }
    for role in 0..2 {
        let [one, many] = [counts[0][role], counts[1][role]];
        assert!(one < 32 && many >= 64, "{counts:?}");
    }
}
