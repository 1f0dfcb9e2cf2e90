//! Tests which queues do not make progress, and what is said about them.

use super::super::super::diagnosis::QueueDiagnosis;
use super::super::find;
use super::*;
use crate::fleet::report::{DeliveryReport, OffersReport, QueueReport, SlotsReport};
use crate::telemetry::Distribution;

fn diagnosed(diagnosis: QueueDiagnosis) -> QueueView {
    QueueView { name: "a".to_owned(), workers: 2, limit: 4, diagnosis, ..QueueView::default() }
}

fn bottleneck(queue: QueueView) -> (BottleneckKind, String) {
    let found = find(&[], &[queue], &[]);
    assert!(found.sentence.ends_with('.') && !found.sentence.contains('\n'), "{found:?}");
    (found.kind, found.name)
}

#[track_caller]
fn says(queue: QueueView, sentence: &str) {
    assert_eq!(find(&[], &[queue], &[]).sentence, sentence);
}

#[test]
fn requests_that_do_not_progress_are_a_bottleneck() {
    let named = |kind, name: &str| (kind, name.to_owned());
    let delivery = |unaccepted_seconds, accepted_seconds| QueueReport {
        delivery: Some(DeliveryReport {
            unaccepted: 5,
            unaccepted_seconds,
            accepted: 5,
            accepted_seconds,
            accepted_session_seconds: 60.0,
            answered: 10,
            answered_p99_seconds: 2.0,
            ..DeliveryReport::default()
        }),
        ..QueueReport::default()
    };
    let between = |before: &QueueReport, now: &QueueReport| {
        let mut diagnosis = QueueDiagnosis::default();
        diagnosis.add(now, Some(before));
        bottleneck(diagnosed(diagnosis))
    };
    let (well, not_accepted, slow) = (delivery(0.1, 5.9), delivery(30.0, 0.0), delivery(0.0, 6.1));
    assert_eq!(between(&well, &well), named(BottleneckKind::None, ""));
    assert_eq!(between(&well, &not_accepted), named(BottleneckKind::Stalled, "a"));
    assert_eq!(between(&well, &slow), named(BottleneckKind::Stalled, "a"));
    let mut answered = slow;
    answered.delivery.as_mut().unwrap().answered += 1;
    assert_eq!(between(&well, &answered), named(BottleneckKind::None, ""));
    // No call outlives its session.
    let within = |session: f64, usual: f64, seconds| {
        let mut report = delivery(0.0, seconds);
        let delivery = report.delivery.as_mut().unwrap();
        delivery.accepted_session_seconds = session;
        delivery.answered_p99_seconds = usual;
        between(&report, &report).0
    };
    assert_eq!(within(10.0, 8.0, 8.9), BottleneckKind::None);
    assert_eq!(within(10.0, 8.0, 9.1), BottleneckKind::Stalled);
    assert_eq!(within(2.0, 0.0, 0.9), BottleneckKind::None);
    assert_eq!(within(2.0, 0.0, 1.1), BottleneckKind::Stalled);
    // The usual duration is unknown.
    assert_eq!(within(60.0, 0.0, 9.0), BottleneckKind::None);
    assert_eq!(within(60.0, 0.0, 11.0), BottleneckKind::Stalled);
    assert_eq!(within(0.0, 0.0, 9.0), BottleneckKind::None);
    assert_eq!(within(0.0, 0.0, 11.0), BottleneckKind::Stalled);
}

/// Returns a saturated queue, given the changes between the reports of its gateway and its worker.
fn changed(delivery: &DeliveryReport, [calls, stopped]: [u64; 2], call_seconds: f64) -> QueueView {
    let times = |count, seconds| Distribution { count, seconds, ..Distribution::default() };
    let worker = |calls, stopped, seconds| QueueReport {
        slots: Some(SlotsReport::default()),
        calls,
        stopped,
        times: times(calls, seconds),
        ..QueueReport::default()
    };
    let gateway = |delivery| QueueReport { delivery: Some(delivery), ..QueueReport::default() };
    let before = DeliveryReport {
        timed_out_unaccepted: 7,
        timed_out_unaccepted_seconds: 7.0,
        timed_out_accepted: 7,
        ..DeliveryReport::default()
    };
    let now = DeliveryReport {
        timed_out_unaccepted: 7 + delivery.timed_out_unaccepted,
        timed_out_unaccepted_seconds: 7.0 + delivery.timed_out_unaccepted_seconds,
        timed_out_accepted: 7 + delivery.timed_out_accepted,
        ..delivery.clone()
    };
    let mut diagnosis = QueueDiagnosis::default();
    diagnosis.add(&gateway(now), Some(&gateway(before)));
    let now = worker(50 + calls, 20 + stopped, 30.0 + call_seconds);
    diagnosis.add(&now, Some(&worker(50, 20, 30.0)));
    QueueView { saturated: 1.0, ..diagnosed(diagnosis) }
}

/// Returns the kind of bottleneck that is found for such a queue.
fn after(delivery: &DeliveryReport, calls: [u64; 2], call_seconds: f64) -> BottleneckKind {
    bottleneck(changed(delivery, calls, call_seconds)).0
}

#[test]
fn calls_that_do_not_end_are_found_although_none_is_old() {
    let young = DeliveryReport {
        accepted: 1,
        accepted_seconds: 0.1,
        accepted_session_seconds: 2.0,
        timed_out_accepted: 19,
        ..DeliveryReport::default()
    };
    assert_eq!(after(&young, [19, 19], 2.0), BottleneckKind::Stalled);
    let gone = DeliveryReport { timed_out_accepted: 0, ..young.clone() };
    assert_eq!(after(&gone, [19, 19], 2.0), BottleneckKind::Queue, "the clients disconnected");
    assert_eq!(after(&young, [20, 19], 2.0), BottleneckKind::Queue, "a call ended");
    assert_eq!(after(&young, [0, 0], 0.0), BottleneckKind::Queue, "none was stopped");
    let answered = DeliveryReport { answered: 1, ..young.clone() };
    assert_eq!(after(&answered, [19, 19], 2.0), BottleneckKind::Queue);
    // If the calls together ran for less time than a few calls normally take, it is normal that none has
    // completed.
    let slow = DeliveryReport { answered_p99_seconds: 1.0, ..young };
    assert_eq!(after(&slow, [2, 2], 2.0), BottleneckKind::Queue);
    assert_eq!(after(&slow, [2, 2], 3.1), BottleneckKind::Stalled);
    // The usual duration is not known.
    let unknown = DeliveryReport { answered_p99_seconds: 0.0, ..slow.clone() };
    assert_eq!(after(&unknown, [2, 2], 9.0), BottleneckKind::Queue);
    // No worker had replied, because too little time was left.
    let unaccepted = DeliveryReport {
        timed_out_unaccepted: 19,
        timed_out_unaccepted_seconds: 1.9,
        ..DeliveryReport::default()
    };
    assert_eq!(after(&unaccepted, [19, 19], 2.0), BottleneckKind::Stalled);
    // Calls that were not started neither hang nor end.
    let mut diagnosis = changed(&slow, [3, 3], 6.0).diagnosis;
    let idle = QueueReport { slots: Some(SlotsReport::default()), ..QueueReport::default() };
    let now = QueueReport { calls: 9, not_started: 9, ..idle.clone() };
    diagnosis.add(&now, Some(&idle));
    assert_eq!((diagnosis.calls, diagnosis.stopped, diagnosis.completed), (12, 3, 0));
}

#[test]
fn an_overload_whose_calls_all_run_out_of_time_is_not_called_a_hang() {
    let delivery = |answered_p99_seconds| DeliveryReport {
        accepted: 4,
        accepted_seconds: 2.9,
        accepted_session_seconds: 6.0,
        timed_out_accepted: 12,
        answered_p99_seconds,
        ..DeliveryReport::default()
    };
    let stopped = "Workers completed no call and stopped 12 calls, after 3.00 s on average";
    let rest = "and no answer has been reported since the earlier report; 2 of its workers have replied to this query.";
    let either = "Either its procedures wait in the database or its workers hang, or calls need more time than is left when they \
                  start: then more slots or a longer session help.";
    says(
        changed(&delivery(8.192), [12, 12], 36.0),
        &format!(
            "The bottleneck is queue a: its requests are not answered. {stopped} (99 % of answered calls took up to 8.19 s), \
             {rest} {either}"
        ),
    );
    says(
        changed(&delivery(0.0), [12, 12], 36.0),
        &format!(
            "The bottleneck is queue a: its requests are not answered. {stopped}, {rest} {either}"
        ),
    );
    let database =
        "Its procedures wait in the database, for example for a lock, or its workers hang.";
    let mut young = changed(&delivery(0.5), [12, 12], 36.0);
    young.diagnosis.accepted_seconds = 0.1;
    says(
        young,
        &format!(
            "The bottleneck is queue a: its calls do not end. {stopped} (99 % of answered calls took up to 500 ms), {rest} {database}"
        ),
    );
    // A queue that may only be slow does not hide one that is saturated.
    let slow = QueueView {
        saturated: 0.0,
        ..changed(&DeliveryReport { accepted_seconds: 5.5, ..delivery(0.0) }, [0, 0], 0.0)
    };
    let full = QueueView { name: "b".to_owned(), saturated: 1.0, ..QueueView::default() };
    assert_eq!(find(&[], &[slow.clone(), full], &[]).name, "b");
    assert_eq!(bottleneck(slow.clone()), (BottleneckKind::Stalled, "a".to_owned()));
    let sentence = find(&[], &[slow], &[]).sentence;
    assert!(sentence.contains(" Its calls may only be slow: measure again"), "{sentence}");
    // Calls that waited for a connection in vain do not show how long the stopped calls took.
    let mut waited = changed(&delivery(0.5), [1, 1], 0.3);
    waited.diagnosis.call_times = (10, 50.0);
    assert_eq!(bottleneck(waited).0, BottleneckKind::Queue);
    // Clients that disconnect do not change the evidence.
    let mut old = changed(&delivery(0.5), [3, 3], 1.0);
    old.diagnosis.accepted_seconds = 5.5;
    says(
        old,
        &format!(
            "The bottleneck is queue a: its calls do not end. Workers have accepted 4 requests, the oldest 5.50 s ago (99 % of \
             answered calls took up to 500 ms), {rest} {database}"
        ),
    );
}

#[test]
fn calls_that_are_stopped_while_slots_are_free_are_no_bottleneck() {
    let diagnosis = QueueDiagnosis {
        timed_out_accepted: 9,
        stopped: 9,
        call_times: (9, 9.0),
        ..QueueDiagnosis::default()
    };
    let with = |saturated| QueueView { saturated, ..diagnosed(diagnosis.clone()) };
    assert_eq!(bottleneck(with(0.9)).0, BottleneckKind::Stalled);
    // No other request waits because of these calls.
    assert_eq!(bottleneck(with(0.1)).0, BottleneckKind::None);
}

#[test]
fn requests_that_no_worker_accepts_are_found_although_none_is_old() {
    let delivery = |timed_out_unaccepted, timed_out_unaccepted_seconds, answered| {
        let (timed_out_unaccepted, unaccepted) = (timed_out_unaccepted, 1);
        DeliveryReport {
            unaccepted,
            unaccepted_seconds: 0.1,
            timed_out_unaccepted,
            timed_out_unaccepted_seconds,
            answered,
            ..DeliveryReport::default()
        }
    };
    assert_eq!(after(&delivery(10, 2.0, 0), [0, 0], 0.0), BottleneckKind::Stalled);
    assert_eq!(after(&delivery(10, 2.0, 1), [0, 0], 0.0), BottleneckKind::Queue);
    assert_eq!(after(&delivery(3, 0.01, 0), [0, 0], 0.0), BottleneckKind::Queue, "just sent");
    assert_eq!(after(&delivery(2, 2.0, 0), [0, 0], 0.0), BottleneckKind::Queue, "too few");
    assert_eq!(
        after(&delivery(10, 2.0, 0), [9, 0], 0.0),
        BottleneckKind::Queue,
        "workers complete calls, although too late"
    );
    let mut run_out = changed(&delivery(10, 2.0, 0), [0, 0], 0.0);
    says(
        run_out.clone(),
        "The bottleneck is queue a: 10 requests ran out of time since the earlier report, and no worker had accepted them; 2 of \
         its workers have replied to this query. Workers that have not replied, or a connection to NATS, may be hanging.",
    );
    run_out.diagnosis.may_lack_workers = true;
    says(
        run_out,
        "The bottleneck is queue a: 10 requests ran out of time since the earlier report, and no worker had accepted them; not \
         all workers report whether they serve the queue. Workers or a connection to NATS may be hanging.",
    );
    let mut old = changed(&delivery(10, 2.0, 0), [0, 0], 0.0);
    (old.workers, old.diagnosis.unaccepted_seconds) = (1, 3.0);
    says(
        old,
        "The bottleneck is queue a: no worker has accepted a request that was sent 3.00 s ago; 1 of its workers has replied to \
         this query. Workers that have not replied, or a connection to NATS, may be hanging.",
    );
}

#[test]
fn a_process_without_an_earlier_report_contributes_only_its_current_state() {
    let report = QueueReport {
        delivery: Some(DeliveryReport {
            accepted: 2,
            answered: 7,
            unserved: 9,
            ..DeliveryReport::default()
        }),
        offers: Some(OffersReport { open: 1, made: 8, lapsed: 8, late: 8 }),
        ..QueueReport::default()
    };
    let after = |before: Option<&QueueReport>| {
        let mut diagnosis = QueueDiagnosis::default();
        diagnosis.add(&report, before);
        let QueueDiagnosis {
            accepted,
            answered,
            unserved,
            offered,
            offers_made,
            offers_lapsed,
            ..
        } = diagnosis;
        [accepted, answered, unserved, offered, offers_made, offers_lapsed]
    };
    assert_eq!(after(None), [2, 0, 0, 1, 0, 0]);
    let earlier = QueueReport {
        delivery: Some(DeliveryReport::default()),
        offers: Some(OffersReport::default()),
        ..QueueReport::default()
    };
    // Late offers are a subset of the lapsed ones and must not be counted twice.
    assert_eq!(after(Some(&earlier)), [2, 7, 9, 1, 8, 8]);
}

#[test]
fn workers_that_nats_does_not_find_and_offers_that_lapse_are_a_bottleneck() {
    let unserved = |unserved| QueueDiagnosis { unserved, ..QueueDiagnosis::default() };
    let found = bottleneck(diagnosed(unserved(3)));
    assert_eq!(found, (BottleneckKind::NoWorker, "a".to_owned()));
    assert_eq!(
        bottleneck(diagnosed(unserved(2))).0,
        BottleneckKind::None,
        "workers may have just started"
    );
    let offers = |lapsed| QueueDiagnosis {
        offers_made: 10,
        offers_lapsed: lapsed,
        ..QueueDiagnosis::default()
    };
    let full =
        |diagnosis, utilization| QueueView { utilization, saturated: 1.0, ..diagnosed(diagnosis) };
    let kind = |queue| bottleneck(queue).0;
    assert_eq!(kind(full(offers(6), 0.1)), BottleneckKind::Offers);
    assert_eq!(kind(full(offers(6), 0.9)), BottleneckKind::Queue);
    assert_eq!(kind(full(offers(1), 0.1)), BottleneckKind::Queue);
}
