//! One round measures every target at every concurrency, and then measures every target at a fixed
//! rate.

use std::collections::BTreeMap;

use super::https_client::BenchHttp;
use super::processes::{BenchProcesses, BenchTarget};
use super::report::BenchReport;
use super::{IDLE, MIDDLE, Plan, process_usage};

/// The arrival rate as a share of fjord's capacity.
const LOAD: f64 = 0.4;

/// Measures capacity in a closed loop.
pub(crate) async fn closed(processes: &BenchProcesses, plan: &Plan, report: &mut BenchReport) {
    for &concurrency in &plan.concurrency {
        for target in processes.targets() {
            let sample = processes.ask(target, concurrency, plan.seconds, None).await;
            report.closed.entry((concurrency, target)).or_default().push(sample);
        }
    }
}

/// Measures the latency of every target at the same rate, which the first round determines.
pub(crate) async fn open(processes: &BenchProcesses, plan: &Plan, report: &mut BenchReport) {
    if !plan.concurrency.contains(&MIDDLE) {
        return;
    }
    let capacity = [BenchHttp::H1, BenchHttp::H2]
        .map(|http| report.capacity(BenchTarget::Fjord(http), MIDDLE));
    let rate = *report.rate.get_or_insert_with(|| {
        let least = capacity.into_iter().fold(f64::INFINITY, f64::min);
        (least * LOAD / 100.0).ceil() * 100.0
    });
    for target in processes.targets() {
        let sample = processes.ask(target, MIDDLE, plan.seconds, Some(rate)).await;
        report.open.entry(target).or_default().push(sample);
    }
}

/// Measures the resident memory of the gateway and of the HTTPS reference server, without
/// connections and with each number of idle connections. Also measures the resident memory of the
/// worker.
pub(crate) async fn idle(processes: &BenchProcesses, plan: &Plan) -> BTreeMap<String, Vec<f64>> {
    let mut found = BTreeMap::new();
    for (name, target) in [
        ("gateway", BenchTarget::Fjord(BenchHttp::H1)),
        ("https", BenchTarget::Https(BenchHttp::H1)),
    ] {
        let pid = processes.pids(target).first().copied().expect("the target has a process");
        let mut figures = vec![process_usage::resident_kib(pid)];
        for number in IDLE.into_iter().filter(|_| plan.idle) {
            let idle = processes.hold_idle(target, number).await;
            figures.push(process_usage::resident_kib(pid));
            drop(idle);
        }
        found.insert(name.to_owned(), figures);
    }
    let worker = processes
        .pids(BenchTarget::Fjord(BenchHttp::H1))
        .get(1)
        .copied()
        .expect("the worker has a process");
    found.insert("worker".to_owned(), vec![process_usage::resident_kib(worker)]);
    found
}
