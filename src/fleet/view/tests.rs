//! Tests which rates are known.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::fleet::report::{
    DatabaseReport, DeliveryReport, DemandReport, QueueReport, SlotsReport,
};
use crate::telemetry::Distribution;

/// A queue's name, its number of calls since the process started, and its seconds of slot time.
type Counters = (&'static str, u64, f64);

fn times(count: u64) -> Distribution {
    Distribution {
        count,
        seconds: crate::telemetry::count_as_f64(count),
        buckets: vec![(1.0, count)],
    }
}

fn report(role: &str, id: &str, uptime_seconds: f64, queues: &[Counters]) -> Report {
    let queue = |&(name, calls, used_seconds): &Counters| {
        let slots =
            SlotsReport { limit: 4, used_seconds, is_served: true, ..SlotsReport::default() };
        let demand = DemandReport { arrivals: calls, ..DemandReport::default() };
        let is_worker = role == "worker";
        QueueReport {
            name: name.to_owned(),
            calls,
            times: times(calls),
            slots: is_worker.then_some(slots),
            demand: (!is_worker).then_some(demand),
            ..QueueReport::default()
        }
    };
    let database = DatabaseReport { name: "db".to_owned(), is_up: true, waits: times(100) };
    Report {
        role: role.to_owned(),
        id: id.to_owned(),
        uptime_seconds,
        cpu_seconds: Some(uptime_seconds),
        queues: queues.iter().map(queue).collect(),
        databases: vec![database],
        ..Report::default()
    }
}

fn snapshot(reports: impl IntoIterator<Item = Report>) -> FleetSnapshot {
    let reports = reports.into_iter().collect();
    FleetSnapshot { reports, is_cut_off: false, servers: Vec::new() }
}

fn view(
    earlier: impl IntoIterator<Item = Report>,
    later: impl IntoIterator<Item = Report>,
) -> FleetView {
    let mut baseline = Baseline::new(Duration::from_mins(1));
    baseline.update(Instant::now(), snapshot(earlier));
    FleetView::since(&baseline, &snapshot(later))
}

fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

/// Asserts that a value in a row is unknown.
#[track_caller]
fn is_unknown(row: &impl Serialize, keys: &[&str]) {
    let row = json(row);
    for key in keys {
        assert!(row.get(key).is_some_and(serde_json::Value::is_null), "{key} is known: {row}");
    }
}

const RATES: [&str; 4] = ["calls_per_second", "errors_per_second", "p50_seconds", "p99_seconds"];

#[test]
fn a_process_without_an_earlier_report_has_no_rates() {
    let new = report("worker", "w1", 1_000.0, &[("a", 50_000, 3_000.0)]);
    let view = view([], [new]);
    let process = &view.processes[0];
    assert!(process.is_partial);
    is_unknown(process, &RATES);
    is_unknown(process, &["cpu_cores"]);
    is_unknown(&process.databases[0], &["wait_seconds"]);
    is_unknown(&process.queues[0], &RATES);
    is_unknown(&process.queues[0], &["utilization", "saturated"]);
    is_unknown(&view.queues[0], &RATES);
    let shares =
        ["utilization", "saturated", "arrivals_per_second", "failed_per_second", "slots_needed"];
    is_unknown(&view.queues[0], &shares);
    is_unknown(&view.pools[0], &["load", "workers_needed", "workers_free"]);
    assert!(view.bottleneck.sentence.starts_with("No bottleneck is known yet"), "{view:?}");
    is_unknown(&view, &["window_seconds"]);
}

#[test]
fn a_process_whose_earlier_report_was_truncated_has_no_rates() {
    let truncated =
        Report { queues: Vec::new(), is_truncated: true, ..report("worker", "w1", 990.0, &[]) };
    let now = report("worker", "w1", 1_000.0, &[("a", 50_000, 3_000.0)]);
    let complete = view([truncated], [now.clone()]);
    is_unknown(&complete.processes[0], &RATES);
    is_unknown(&complete.queues[0], &RATES);
    // If the last report contains no queues, the rates are not reported as 0.
    let earlier = report("worker", "w1", 990.0, &[("a", 50_000, 3_000.0)]);
    let truncated = Report { queues: Vec::new(), is_truncated: true, ..now };
    let incomplete = view([earlier], [truncated]);
    is_unknown(&incomplete.processes[0], &RATES);
}

#[test]
fn queues_that_a_report_omits_are_partial_and_the_others_have_rates() {
    let both = |role, id: &str, seconds, calls: u64| {
        report(role, id, seconds, &[("a", calls, 0.0), ("b", calls, 0.0)])
    };
    let without_b = |seconds, calls| {
        let mut short = both("gateway", "g2", seconds, calls);
        short.queues.truncate(1);
        Report { is_truncated: true, queues_omitted: 1, ..short }
    };
    let earlier = [both("gateway", "g1", 10.0, 100), without_b(10.0, 100)];
    let later = [both("gateway", "g1", 20.0, 200), without_b(20.0, 200)];
    let view = view(earlier, later);
    let [a, b] = &view.queues[..] else { panic!("{view:?}") };
    assert_eq!((a.arrivals_per_second, a.is_partial), (20.0, false));
    assert_eq!((b.arrivals_per_second, b.is_partial), (10.0, false));
    assert_eq!([a, b].map(|queue| queue.diagnosis.may_lack_gateways), [false, true]);
    assert!(![a, b].iter().any(|queue| queue.diagnosis.may_lack_workers));
    is_unknown(&view.processes[1], &RATES);
    assert_eq!(view.processes[1].queues_omitted, 1);
}

#[test]
fn a_call_that_does_not_end_is_found_although_another_gateway_omits_its_queue() {
    let gateway = |seconds| {
        let mut gateway = report("gateway", "g1", seconds, &[("a", 5, 0.0)]);
        gateway.queues[0].delivery = Some(DeliveryReport {
            accepted: 1,
            accepted_seconds: seconds,
            accepted_session_seconds: 60.0,
            answered: 5,
            answered_p99_seconds: 1.0,
            ..DeliveryReport::default()
        });
        gateway
    };
    let other = |seconds| {
        let queues = [("b", 9, 0.0)];
        Report { is_truncated: true, ..report("gateway", "g2", seconds, &queues) }
    };
    let fleet = |seconds, calls| {
        [gateway(seconds), other(seconds), report("worker", "w1", seconds, &[("a", calls, 0.0)])]
    };
    let hanging = view(fleet(10.0, 5), fleet(20.0, 5));
    let start = "The bottleneck is queue a: its calls do not end.";
    assert!(hanging.bottleneck.sentence.starts_with(start), "{:?}", hanging.bottleneck);
    // The other gateway may have received the answers of these calls.
    let ending = view(fleet(10.0, 5), fleet(20.0, 6));
    let start = "There is no bottleneck among the reported queues: ";
    assert!(ending.bottleneck.sentence.starts_with(start), "{:?}", ending.bottleneck);
    // The other gateway may have received answers of a worker whose report omits the queue.
    let [earlier, later] = [10.0, 20.0].map(|seconds| {
        let [one, other, worker] = fleet(seconds, 5);
        let omitting = report("worker", "w2", seconds, &[("b", 9, 0.0)]);
        [one, other, worker, Report { is_truncated: true, ..omitting }]
    });
    let unknown = view(earlier, later);
    let start = "No bottleneck is known: not all queues fit";
    assert!(unknown.bottleneck.sentence.starts_with(start), "{:?}", unknown.bottleneck);
}

#[test]
fn a_queue_that_is_new_or_that_has_started_again_has_no_rates() {
    let earlier = report("worker", "w1", 990.0, &[("a", 100, 10.0), ("b", 900, 10.0)]);
    let now = report("worker", "w1", 1_000.0, &[("a", 150, 30.0), ("b", 5, 0.1), ("c", 7, 0.1)]);
    let view = view([earlier], [now]);
    let [a, b, c] = &view.queues[..] else { panic!("{view:?}") };
    assert_eq!((a.rates.calls_per_second, a.utilization), (5.0, 0.5));
    assert!(!a.is_partial && b.is_partial && c.is_partial);
    is_unknown(b, &RATES);
    is_unknown(c, &RATES);
    let process = &view.processes[0];
    assert_eq!((process.rates.calls_per_second, process.is_partial), (5.0, true));
    is_unknown(&view.pools[0], &["load"]);
}

#[test]
fn a_new_process_does_not_change_the_rates_of_the_others() {
    let earlier = [
        report("gateway", "g1", 10.0, &[("a", 100, 0.0)]),
        report("worker", "w1", 10.0, &[("a", 100, 10.0)]),
    ];
    let later = [
        report("gateway", "g1", 20.0, &[("a", 200, 0.0)]),
        report("gateway", "g2", 9_999.0, &[("a", 99_999, 0.0)]),
        report("worker", "w1", 20.0, &[("a", 200, 30.0)]),
        report("worker", "w2", 9_999.0, &[("a", 99_999, 0.0)]),
    ];
    let view = view(earlier, later);
    let queue = &view.queues[0];
    assert_eq!((queue.arrivals_per_second, queue.rates.calls_per_second), (10.0, 10.0));
    // The slots of the new worker are counted, but their utilization is unknown.
    assert_eq!((queue.workers, queue.limit, queue.utilization), (2, 8, 0.5));
    assert!(queue.is_partial);
    assert_eq!(view.pools[0].load, Some(10.0 / 8.0), "calls take 1 s");
}

#[test]
fn the_requests_that_were_given_no_queue_belong_only_to_their_gateway() {
    let with = |seconds, calls, without| Report {
        without_queue: QueueReport { calls: without, errors: 0, ..QueueReport::default() },
        ..report("gateway", "g1", seconds, &[("a", calls, 0.0)])
    };
    let view = view([with(10.0, 100, 1_000)], [with(20.0, 200, 1_500)]);
    let rates = (view.processes[0].rates.calls_per_second, view.queues[0].arrivals_per_second);
    assert_eq!(rates, (60.0, 10.0));
}
