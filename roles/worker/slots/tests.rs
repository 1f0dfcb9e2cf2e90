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
    Waiter { since, reply: Some(subject(n)), work: n }
}

#[test]
fn the_limit_is_exact_and_the_refused_are_offered_slots_in_order() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Take);
    for n in 2..=4 {
        assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
    }
    let offer = slots.finish(now, None).offer.expect("somebody was refused");
    assert_eq!(offer.to, subject(2));
    assert_eq!(
        slots.arrive(Some(&subject(5))),
        Verdict::Refuse(Reason::Busy),
        "a kept slot is taken"
    );
    assert_eq!(slots.accept(offer.id, waiter(2, now)), Accepted::Take(2));
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.finish(now, None).offer.map(|offer| offer.to), Some(subject(3)));
}

#[test]
fn the_memory_of_the_refused_is_bounded_and_has_nobody_twice() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    for n in [1, 1, 2, 3] {
        assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
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
    assert_eq!(slots.arrive(None), Verdict::Take);
    assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
    let offer = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.next_lapse(), Some(now + OFFER_TIMEOUT));
    assert_eq!(slots.lapse(now).count, 0);
    assert_eq!(slots.lapse(now + OFFER_TIMEOUT).count, 1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    let late = slots.accept(offer.id, waiter(1, now));
    assert_eq!(late, Accepted::Refuse(Reason::Busy, 1));
    assert_eq!(slots.running(), 1);
}

#[test]
fn a_slot_offered_ahead_waits_for_a_call_to_end_and_the_limit_stays_exact() {
    let now = Instant::now();
    let mut slots = slots(1);
    slots.set_ahead(1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    for n in 1..=2 {
        assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
    }
    let first = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.accept(first.id, waiter(1, now)), Accepted::Take(1));
    let ahead = slots.offer_ahead(now).expect("one more than there are slots");
    assert_eq!(ahead.to, subject(2));
    assert_eq!(slots.offer_ahead(now), None);
    assert_eq!(slots.accept(ahead.id, waiter(2, now)), Accepted::Waits);
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Busy));
    assert_eq!(slots.finish(now, None).starts, Some(waiter(2, now)));
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.finish(now, None), NOTHING);
    assert_eq!(slots.running(), 0);
}

/// One call that runs, and one request that waits for its end.
fn one_waits(now: Instant) -> Slots<u32> {
    let mut slots = slots(1);
    slots.set_ahead(1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
    let ahead = slots.offer_ahead(now).expect("one more than there are slots");
    assert_eq!(slots.accept(ahead.id, waiter(1, now)), Accepted::Waits);
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
    assert_eq!(slots.arrive(Some(&subject(2))), Verdict::Refuse(Reason::Busy));
    let late = now + OFFER_TIMEOUT;
    assert_eq!(slots.next_lapse(), Some(late));
    assert_eq!(slots.lapse(late - Duration::from_millis(1)).turned_away, []);
    assert_eq!(
        slots.lapse(late),
        Lapsed { count: 0, offers: vec![], turned_away: vec![waiter(1, now)] }
    );
    assert_eq!(slots.offer_ahead(late), None, "calls are long here");
    let next = slots.finish(late, None);
    assert_eq!(next.starts, None);
    assert_eq!(next.offer.map(|offer| offer.to), Some(subject(1)));
}

#[test]
fn who_waits_at_a_served_gateway_is_offered_what_nobody_here_was_refused() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    let next = slots.finish(now, Some(subject(7)));
    let offer = next.offer.expect("others wait there");
    assert_eq!(offer.to, subject(7));
    assert_eq!(slots.accept(offer.id, waiter(8, now)), Accepted::Take(8));
    assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
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
    assert_eq!(slots.arrive(None), Verdict::Take);
}

#[test]
fn draining_and_a_lost_backend_refuse_everything() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.arrive(None), Verdict::Take);
    assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
    assert_eq!(slots.unavailable(), []);
    assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Unavailable));
    assert_eq!(slots.finish(now, None), NOTHING);
    slots.available();
    assert_eq!(slots.drain(), []);
    assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Draining));
}
