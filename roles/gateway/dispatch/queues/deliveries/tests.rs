//! Tests the ages of requests, and how requests that end are counted.

use super::*;

#[test]
fn the_age_of_the_oldest_request_in_each_phase_is_known() {
    let all = Arc::new(Deliveries::new(&QueueName::new("deliveries").unwrap()));
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let (brief, long) = (Duration::from_secs(10), Duration::from_mins(1));
    let of = |count, seconds, session_time| {
        let oldest = Duration::from_secs(seconds);
        DeliveryAges { count, oldest, session_time }
    };
    let ages = |count, seconds| of(count, seconds, if count == 0 { Duration::ZERO } else { brief });
    let (mut first, mut second) = (Delivery::new(&all, brief), Delivery::new(&all, brief));
    assert_eq!(all.ages(at(0)), [ages(0, 0), ages(0, 0)]);
    first.set(DeliveryPhase::Unaccepted, at(0));
    second.set(DeliveryPhase::Unaccepted, at(3));
    first.set(DeliveryPhase::Unaccepted, at(4));
    assert_eq!(all.ages(at(5)), [ages(2, 5), ages(0, 0)], "sent again, with the same age");
    first.set(DeliveryPhase::Accepted, at(6));
    assert_eq!(all.ages(at(7)), [ages(1, 4), ages(1, 1)]);
    second.set(DeliveryPhase::Idle, at(8));
    second.set(DeliveryPhase::Unaccepted, at(9));
    assert_eq!(all.ages(at(10)), [ages(1, 1), ages(1, 4)], "refused, and sent again");
    drop((first, second));
    assert_eq!(all.ages(at(11)), [ages(0, 0), ages(0, 0)]);
    let mut third = Delivery::new(&all, long);
    third.set(DeliveryPhase::Accepted, at(12));
    assert_eq!(all.ages(at(13)), [ages(0, 0), of(1, 1, long)]);
    assert_eq!(all.lock().entries.len(), 2, "entries are used again");
}

#[test]
fn the_usual_time_of_an_answer_is_not_changed_by_one_in_a_hundred() {
    let all = Arc::new(Deliveries::new(&QueueName::new("answer-times").unwrap()));
    assert_eq!((all.answered(), all.answer_time_p99()), (0, Duration::ZERO));
    let start = Instant::now() + Duration::from_secs(10);
    let answer = |milliseconds| {
        let mut delivery = Delivery::new(&all, Duration::from_secs(10));
        let end = start + Duration::from_millis(milliseconds);
        delivery.set(DeliveryPhase::Unaccepted, start - Duration::from_secs(9));
        delivery.set(DeliveryPhase::Idle, start - Duration::from_secs(1));
        delivery.set(DeliveryPhase::Unaccepted, start);
        delivery.set(DeliveryPhase::Accepted, end);
        delivery.end(DeliveryEnd::Answered, end);
    };
    answer(u64::MAX >> 20);
    assert_eq!(all.answer_time_p99(), Duration::from_millis(1 << 23), "the last bucket");
    for _ in 0..99 {
        answer(3);
    }
    assert_eq!((all.answered(), all.answer_time_p99()), (100, Duration::from_millis(4)));
    answer(100);
    assert_eq!(all.answer_time_p99(), Duration::from_millis(128));
}

#[test]
fn requests_that_run_out_of_time_are_counted_by_phase() {
    let all = Arc::new(Deliveries::new(&QueueName::new("timed-out").unwrap()));
    let none = TimedOutRequests::default();
    assert_eq!(all.timed_out(), [none; 2]);
    let start = Instant::now();
    let ended = |phases: &[DeliveryPhase], end| {
        let mut delivery = Delivery::new(&all, Duration::from_secs(10));
        for phase in phases {
            delivery.set(*phase, start);
        }
        delivery.end(end, start + Duration::from_millis(100));
    };
    let sent = [DeliveryPhase::Unaccepted];
    let accepted = [DeliveryPhase::Unaccepted, DeliveryPhase::Accepted];
    let refused = [DeliveryPhase::Unaccepted, DeliveryPhase::Idle];
    for phases in [&sent[..], &accepted, &refused, &[]] {
        ended(phases, DeliveryEnd::Answered);
        ended(phases, DeliveryEnd::Other);
    }
    ended(&refused, DeliveryEnd::TimedOut);
    ended(&[], DeliveryEnd::TimedOut);
    assert_eq!((all.timed_out(), all.answered()), ([none; 2], 4));
    let counted = |count: u32| TimedOutRequests {
        count: count.into(),
        time: Duration::from_millis(100) * count,
    };
    ended(&sent, DeliveryEnd::TimedOut);
    assert_eq!(all.timed_out(), [counted(1), none]);
    ended(&accepted, DeliveryEnd::TimedOut);
    // The first reply of a fast worker can already be its report that it stopped the call.
    ended(&sent, DeliveryEnd::Stopped);
    assert_eq!(all.timed_out(), [counted(1), counted(2)]);
    assert_eq!(all.ages(start), [DeliveryAges::default(); 2]);
}
