//! Finds workers that receive no requests although the other workers of their queue do.

use serde::Serialize;

use super::FleetView;
use super::activity::{ProcessView, WorkerQueueView};
use crate::telemetry::count_as_f64;

/// The minimum number of calls per worker of the queue. NATS chooses workers at random, so the probability that it
/// never chooses a particular worker in this many calls is less than one in a billion.
const CALLS_PER_WORKER: f64 = 21.0;

/// A worker that received no requests for a queue that it serves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IdleWorker<'a> {
    pub(crate) id: &'a str,
    pub(crate) host: &'a str,
    pub(crate) queue: &'a str,
    /// The number of calls that the queue's other workers executed during the same time.
    pub(crate) calls_elsewhere: f64,
}

/// Returns the workers that received no request for one of their queues although NATS should have chosen them, in the
/// order of the view.
pub(crate) fn idle_workers(view: &FleetView) -> Vec<IdleWorker<'_>> {
    let idle = |process: &'_ ProcessView, served: &'_ WorkerQueueView| {
        let queue = view.queues.iter().find(|queue| queue.name == served.name)?;
        let calls = queue.rates.calls_per_second * view.window_seconds;
        let is_open = served.is_served && !served.is_paused && served.running == 0;
        // A worker that has only just started has no earlier report.
        let is_old = process.uptime_seconds > view.window_seconds;
        let is_idle = is_open
            && is_old
            && served.rates.calls_per_second == 0.0
            && calls >= CALLS_PER_WORKER * count_as_f64(queue.workers);
        is_idle.then_some(calls)
    };
    let processes = view.processes.iter();
    let pairs = processes.flat_map(|process| process.queues.iter().map(move |one| (process, one)));
    let found = pairs.filter_map(|(process, served)| {
        Some(IdleWorker {
            id: &process.id,
            host: &process.host,
            queue: &served.name,
            calls_elsewhere: idle(process, served)?,
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::activity::QueueView;
    use super::super::rates::CallRates;
    use super::super::{Baseline, FleetSnapshot, FleetView};
    use super::*;

    fn served(calls_per_second: f64) -> WorkerQueueView {
        let rates = CallRates { calls_per_second, ..CallRates::default() };
        WorkerQueueView {
            name: "a".to_owned(),
            is_served: true,
            rates,
            ..WorkerQueueView::default()
        }
    }

    fn worker(id: &str, queue: WorkerQueueView) -> ProcessView {
        let (id, queues) = (id.to_owned(), vec![queue]);
        ProcessView { id, queues, uptime_seconds: 60.0, ..ProcessView::default() }
    }

    fn found(last: ProcessView, calls_per_second: f64) -> Vec<String> {
        let none = FleetSnapshot { reports: Vec::new(), is_cut_off: false, servers: Vec::new() };
        let queue = QueueView {
            name: "a".to_owned(),
            workers: 2,
            rates: served(calls_per_second).rates,
            ..QueueView::default()
        };
        let processes = vec![worker("w1", served(calls_per_second)), last];
        let view = FleetView {
            window_seconds: 2.0,
            processes,
            queues: vec![queue],
            ..FleetView::since(&Baseline::new(Duration::ZERO), &none)
        };
        idle_workers(&view).iter().map(|idle| idle.id.to_owned()).collect()
    }

    #[test]
    fn a_worker_without_requests_is_found_if_it_must_have_received_some() {
        let none = Vec::<String>::new();
        assert_eq!(found(worker("w2", served(0.0)), 22.0), ["w2"]);
        assert_eq!(found(worker("w2", served(0.0)), 20.0), none, "it may be chance");
        assert_eq!(found(worker("w2", served(0.5)), 22.0), none);
        let running = WorkerQueueView { running: 1, ..served(0.0) };
        let paused = WorkerQueueView { is_paused: true, ..served(0.0) };
        let unserved = WorkerQueueView { is_served: false, ..served(0.0) };
        for queue in [running, paused, unserved] {
            assert_eq!(found(worker("w2", queue), 22.0), none);
        }
        let new = ProcessView { uptime_seconds: 1.0, ..worker("w2", served(0.0)) };
        assert_eq!(found(new, 22.0), none);
    }
}
