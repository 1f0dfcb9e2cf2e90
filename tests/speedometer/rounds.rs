//! One round: every target at every concurrency, in turns; then at a fixed rate.

use std::collections::BTreeMap;

use super::https::Http;
use super::report::Report;
use super::stage::{Stage, Target};
use super::{IDLE, MIDDLE, Plan, account};

/// The part of fjord's capacity that requests arrive at.
const LOAD: f64 = 0.4;

/// Capacity: a closed loop.
pub(crate) async fn closed(stage: &Stage, plan: &Plan, report: &mut Report) {
    for &concurrency in &plan.concurrency {
        for target in stage.targets() {
            let sample = stage.ask(target, concurrency, plan.seconds, None).await;
            report.closed.entry((concurrency, target)).or_default().push(sample);
        }
    }
}

/// Latency: all targets at one rate.
pub(crate) async fn open(stage: &Stage, plan: &Plan, report: &mut Report) {
    if !plan.concurrency.contains(&MIDDLE) {
        return;
    }
    let capacity = [Http::H1, Http::H2].map(|http| report.capacity(Target::Fjord(http), MIDDLE));
    let rate = *report.rate.get_or_insert_with(|| {
        let least = capacity.into_iter().fold(f64::INFINITY, f64::min);
        (least * LOAD / 100.0).ceil() * 100.0
    });
    for target in stage.targets() {
        let sample = stage.ask(target, MIDDLE, plan.seconds, Some(rate)).await;
        report.open.entry(target).or_default().push(sample);
    }
}

/// Resident KiB of gateway and bare server: with no connection yet, and with so many idle ones.
pub(crate) async fn idle(stage: &Stage, plan: &Plan) -> BTreeMap<String, Vec<f64>> {
    let mut found = BTreeMap::new();
    for (name, target) in [("gateway", Target::Fjord(Http::H1)), ("https", Target::Https(Http::H1))]
    {
        let pid = stage.pids(target).first().copied().expect("its process");
        let mut figures = vec![account::resident_kib(pid)];
        for number in IDLE.into_iter().filter(|_| plan.idle) {
            let held = stage.hold(target, number).await;
            figures.push(account::resident_kib(pid));
            drop(held);
        }
        found.insert(name.to_owned(), figures);
    }
    let worker = stage.pids(Target::Fjord(Http::H1)).get(1).copied().expect("the worker");
    found.insert("worker".to_owned(), vec![account::resident_kib(worker)]);
    found
}
