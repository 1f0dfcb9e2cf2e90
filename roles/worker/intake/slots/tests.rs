//! Every way of a request through the slots of a queue.

use super::*;

const OFFER_TIMEOUT: Duration = Duration::from_millis(250);

fn subject(n: u32) -> Subject {
    Subject::new(&format!("inbox.{n}")).unwrap()
}

const NOTHING: Next<u32> = Next { starts: None, offer: None };

fn slots(limit: usize) -> Slots<u32> {
    Slots::new(limit, 2, OFFER_TIMEOUT)
}

fn waiter(n: u32, since: Instant) -> Waiter<u32> {
    Waiter { since, reply: Some(subject(n)), bytes: 1, claims: false, work: n }
}

/// From nobody: it is never remembered.
fn nobody(since: Instant) -> Waiter<u32> {
    Waiter { reply: None, ..waiter(0, since) }
}

fn claims(n: u32, since: Instant) -> Waiter<u32> {
    Waiter { claims: true, ..waiter(n, since) }
}

/// Calls so short that one message may wait beyond one slot.
fn short_calls(slots: &mut Slots<u32>) {
    slots.pace.record_call(Duration::from_millis(2));
    assert_eq!(slots.pace.backlog(1), 1);
}

#[test]
fn the_limit_is_exact_and_the_refused_are_offered_slots_in_order() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Take(1));
    for n in 2..=4 {
        assert_eq!(slots.arrive(waiter(n, now)), Verdict::Refuse(Reason::Busy, n));
    }
    let offer = slots.finish(now, None).offer.expect("somebody was refused");
    assert_eq!(offer.to, subject(2));
    let sixth = slots.arrive(waiter(5, now));
    assert_eq!(sixth, Verdict::Refuse(Reason::Busy, 5), "a kept slot is taken");
    assert_eq!(slots.accept(offer.id, waiter(2, now)), Verdict::Take(2));
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.finish(now, None).offer.map(|offer| offer.to), Some(subject(3)));
}

#[test]
fn the_memory_of_the_refused_is_bounded_and_has_nobody_twice() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    for n in [1, 1, 2, 3] {
        assert_eq!(slots.arrive(waiter(n, now)), Verdict::Refuse(Reason::Busy, n));
    }
    let first = slots.finish(now, None).offer.unwrap();
    assert_eq!(first.to, subject(1));
    let second = slots.decline(first.id, now).unwrap();
    assert_eq!(second.to, subject(2));
    assert_eq!(slots.decline(second.id, now), None, "the third found no room");
}

#[test]
fn an_offer_that_lapsed_frees_its_slot_and_cannot_be_accepted_beyond_the_limit() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Refuse(Reason::Busy, 1));
    let offer = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.next_lapse(), Some(now + OFFER_TIMEOUT));
    assert_eq!(slots.lapse(now).count, 0);
    assert_eq!(slots.lapse(now + OFFER_TIMEOUT).count, 1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    let late = slots.accept(offer.id, waiter(1, now));
    assert_eq!(late, Verdict::Refuse(Reason::Busy, 1));
    assert_eq!(slots.running(), 1);
}

#[test]
fn a_backlog_waits_in_order_and_the_limit_stays_exact() {
    let now = Instant::now();
    let mut slots = slots(1);
    short_calls(&mut slots);
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Take(1));
    assert_eq!(slots.arrive(waiter(2, now)), Verdict::Waits);
    assert_eq!(slots.running(), 1);
    for n in 3..=4 {
        assert_eq!(slots.arrive(waiter(n, now)), Verdict::Refuse(Reason::Busy, n));
    }
    let next = slots.finish(now, None);
    assert_eq!(next.starts, Some(waiter(2, now)));
    let ahead = next.offer.expect("there is room behind the second");
    assert_eq!(ahead.to, subject(3));
    assert_eq!(slots.offer_more(now), None, "and for one only");
    assert_eq!(slots.arrive(nobody(now)), Verdict::Refuse(Reason::Busy, 0), "it is promised");
    assert_eq!(slots.accept(ahead.id, waiter(3, now)), Verdict::Waits);
    assert_eq!((slots.running(), slots.waiting()), (1, 1));
    assert_eq!(slots.finish(now, None).starts, Some(waiter(3, now)));
    assert_eq!(slots.finish(now, None).starts, None);
    assert_eq!(slots.running(), 0);
}

#[test]
fn a_backlog_is_bounded_in_bytes() {
    let now = Instant::now();
    let mut slots = slots(1);
    slots.pace.record_call(Duration::from_micros(1));
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    let large = || Waiter { bytes: BACKLOG_BYTES_MAX / 2, ..nobody(now) };
    assert_eq!(slots.arrive(large()), Verdict::Waits);
    assert_eq!(slots.arrive(Waiter { claims: true, ..large() }), Verdict::Claim(0));
    assert_eq!(slots.arrive(nobody(now)), Verdict::Refuse(Reason::Busy, 0));
    assert_eq!(slots.not_granted(BACKLOG_BYTES_MAX / 2, now), None);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Waits);
}

#[test]
fn consent_is_asked_for_ahead_of_the_slot() {
    let now = Instant::now();
    let mut slots = slots(1);
    short_calls(&mut slots);
    assert_eq!(slots.arrive(claims(1, now)), Verdict::Claim(1));
    assert_eq!(slots.arrive(claims(2, now)), Verdict::Claim(2));
    assert_eq!(slots.running(), 0, "a slot is for calls");
    assert_eq!(slots.arrive(claims(3, now)), Verdict::Refuse(Reason::Busy, 3));
    assert_eq!(slots.granted(claims(2, now)), Verdict::Take(2), "who has it first runs first");
    assert_eq!(slots.granted(claims(1, now)), Verdict::Waits);
    let next = slots.finish(now, None);
    assert_eq!(next.starts, Some(claims(1, now)));
    let offer = next.offer.expect("there is room for the third");
    assert_eq!(slots.decline(offer.id, now), None);
    slots.finish(now, None);
    assert_eq!(slots.arrive(claims(4, now)), Verdict::Claim(4));
    assert_eq!(slots.arrive(claims(5, now)), Verdict::Claim(5));
    assert_eq!(slots.arrive(claims(6, now)), Verdict::Refuse(Reason::Busy, 6));
    assert_eq!(slots.not_granted(1, now).map(|offer| offer.to), Some(subject(6)));
    slots.drain();
    let late = slots.granted(claims(5, now));
    assert_eq!(late, Verdict::Refuse(Reason::Draining, 5), "it never starts");
    assert_eq!(slots.promised(), 1, "nothing but the offer");
}

#[test]
fn an_answer_to_an_offer_tells_the_round_trip_also_when_it_is_late() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Refuse(Reason::Busy, 1));
    let offer = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.lapse(now + OFFER_TIMEOUT).count, 1);
    let late = now + Duration::from_millis(800);
    assert_eq!(slots.accept(offer.id, waiter(1, late)), Verdict::Take(1), "any free slot will do");
    assert_eq!(slots.pace.round_trip(), Duration::from_millis(800));
    assert_eq!(slots.pace.offer_timeout(), Duration::from_millis(2400));
}

/// One call that runs, and one request that waits for its end.
fn one_waits(now: Instant) -> Slots<u32> {
    let mut slots = slots(1);
    short_calls(&mut slots);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Waits);
    slots
}

#[test]
fn what_waits_for_a_slot_is_not_started_while_draining() {
    let now = Instant::now();
    let mut slots = one_waits(now);
    assert_eq!(slots.drain(), [waiter(1, now)]);
    assert_eq!(slots.finish(now, None), NOTHING);
    assert_eq!(slots.running(), 0);
}

#[test]
fn what_waits_behind_a_long_call_is_let_go_and_offered_the_next_slot_first() {
    let now = Instant::now();
    let mut slots = one_waits(now);
    assert_eq!(slots.arrive(waiter(2, now)), Verdict::Refuse(Reason::Busy, 2));
    let late = now + slots.pace.patience();
    assert_eq!(slots.next_lapse(), Some(late));
    assert_eq!(slots.lapse(late - Duration::from_millis(1)).turned_away, []);
    assert_eq!(
        slots.lapse(late),
        Lapsed { count: 0, offers: vec![], turned_away: vec![waiter(1, now)] }
    );
    assert_eq!(slots.offer_more(late), None, "calls are long here");
    let next = slots.finish(late, None);
    assert_eq!(next.starts, None);
    assert_eq!(next.offer.map(|offer| offer.to), Some(subject(1)));
}

#[test]
fn a_higher_limit_starts_what_waits() {
    let now = Instant::now();
    let mut slots = one_waits(now);
    assert_eq!(slots.start_next(), None);
    slots.set_limit(2);
    assert_eq!(slots.start_next(), Some(waiter(1, now)));
    assert_eq!((slots.running(), slots.start_next()), (2, None));
}

#[test]
fn who_waits_at_a_served_gateway_is_offered_what_nobody_here_was_refused() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    let next = slots.finish(now, Some(subject(7)));
    let offer = next.offer.expect("others wait there");
    assert_eq!(offer.to, subject(7));
    assert_eq!(slots.accept(offer.id, waiter(8, now)), Verdict::Take(8));
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Refuse(Reason::Busy, 1));
    let next = slots.finish(now, Some(subject(8)));
    assert_eq!(next.offer.map(|offer| offer.to), Some(subject(1)));
    slots.drain();
    assert_eq!(slots.refused, [], "a drain remembers nobody");
}

#[test]
fn a_cancelled_request_waits_no_longer() {
    let now = Instant::now();
    let mut slots = one_waits(now);
    assert_eq!(slots.cancel(&subject(2)), None);
    assert_eq!(slots.cancel(&subject(1)), Some(waiter(1, now)));
    assert_eq!(slots.finish(now, None), NOTHING);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
}

#[test]
fn draining_and_a_lost_backend_refuse_everything() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Take(0));
    assert_eq!(slots.arrive(waiter(1, now)), Verdict::Refuse(Reason::Busy, 1));
    assert_eq!(slots.unavailable(), []);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Refuse(Reason::Unavailable, 0));
    assert_eq!(slots.finish(now, None), NOTHING);
    slots.available();
    assert_eq!(slots.drain(), []);
    assert_eq!(slots.arrive(nobody(now)), Verdict::Refuse(Reason::Draining, 0));
}
