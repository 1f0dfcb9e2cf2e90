//! Tests the decisions for sequences of requests, calls and offers.

use super::*;

const OFFER_TIMEOUT: Duration = Duration::from_millis(250);

fn subject(n: u32) -> Subject {
    Subject::new(&format!("inbox.{n}")).unwrap()
}

const NOTHING: FreedSlot<u32> = FreedSlot { start: None, offer: None };

fn slots(limit: usize) -> Slots<u32> {
    Slots::new(limit, 2, OFFER_TIMEOUT)
}

fn request(n: u32, since: Instant) -> SlotRequest<u32> {
    SlotRequest { since, reply: Some(subject(n)), bytes: 1, needs_consent: false, work: n }
}

/// Returns a request without a reply subject, whose caller is never remembered.
fn anonymous(since: Instant) -> SlotRequest<u32> {
    SlotRequest { reply: None, ..request(0, since) }
}

fn at_most_once(n: u32, since: Instant) -> SlotRequest<u32> {
    SlotRequest { needs_consent: true, ..request(n, since) }
}

/// Records a call that is short enough for a backlog of one request.
fn record_short_call(slots: &mut Slots<u32>) {
    slots.latency.record_call(Duration::from_millis(2));
    assert_eq!(slots.latency.backlog_max(1), 1);
}

#[test]
fn the_limit_is_exact_and_refused_callers_are_offered_slots_in_order() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Run(1));
    for n in 2..=4 {
        assert_eq!(
            slots.request_slot(request(n, now)),
            SlotDecision::Refuse(RefusalReason::Busy, n)
        );
    }
    let offer = slots.finish(now, None).offer.expect("a caller was refused");
    assert_eq!(offer.to, subject(2));
    let fifth = slots.request_slot(request(5, now));
    assert_eq!(fifth, SlotDecision::Refuse(RefusalReason::Busy, 5), "a reserved slot is not free");
    assert_eq!(slots.accept(offer.id, request(2, now)), SlotDecision::Run(2));
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.finish(now, None).offer.map(|offer| offer.to), Some(subject(3)));
}

#[test]
fn the_list_of_refused_callers_is_bounded_and_has_each_caller_once() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    for n in [1, 1, 2, 3] {
        assert_eq!(
            slots.request_slot(request(n, now)),
            SlotDecision::Refuse(RefusalReason::Busy, n)
        );
    }
    let first = slots.finish(now, None).offer.unwrap();
    assert_eq!(first.to, subject(1));
    let second = slots.decline(first.id, now).unwrap();
    assert_eq!(second.to, subject(2));
    assert_eq!(slots.decline(second.id, now), None, "there was no room for the third caller");
}

#[test]
fn an_expired_offer_frees_its_slot_and_cannot_be_accepted_beyond_the_limit() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Refuse(RefusalReason::Busy, 1));
    let offer = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.next_expiry(), Some(now + OFFER_TIMEOUT));
    assert_eq!(slots.expire(now).offers_expired, 0);
    assert_eq!(slots.expire(now + OFFER_TIMEOUT).offers_expired, 1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    let late = slots.accept(offer.id, request(1, now));
    assert_eq!(late, SlotDecision::Refuse(RefusalReason::Busy, 1));
    assert_eq!(slots.running(), 1);
}

#[test]
fn the_backlog_keeps_its_order_and_the_limit_stays_exact() {
    let now = Instant::now();
    let mut slots = slots(1);
    record_short_call(&mut slots);
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Run(1));
    assert_eq!(slots.request_slot(request(2, now)), SlotDecision::Wait);
    assert_eq!(slots.running(), 1);
    for n in 3..=4 {
        assert_eq!(
            slots.request_slot(request(n, now)),
            SlotDecision::Refuse(RefusalReason::Busy, n)
        );
    }
    let freed = slots.finish(now, None);
    assert_eq!(freed.start, Some(request(2, now)));
    let ahead = freed.offer.expect("the backlog has room for one request");
    assert_eq!(ahead.to, subject(3));
    assert_eq!(slots.offer(now), None, "the backlog has room for one request only");
    let refused = slots.request_slot(anonymous(now));
    assert_eq!(
        refused,
        SlotDecision::Refuse(RefusalReason::Busy, 0),
        "the place in the backlog is reserved for the offer"
    );
    assert_eq!(slots.accept(ahead.id, request(3, now)), SlotDecision::Wait);
    assert_eq!((slots.running(), slots.waiting()), (1, 1));
    assert_eq!(slots.finish(now, None).start, Some(request(3, now)));
    assert_eq!(slots.finish(now, None).start, None);
    assert_eq!(slots.running(), 0);
}

#[test]
fn the_backlog_is_bounded_in_bytes() {
    let now = Instant::now();
    let mut slots = slots(1);
    slots.latency.record_call(Duration::from_micros(1));
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    let large = || SlotRequest { bytes: BACKLOG_BYTES_MAX / 2, ..anonymous(now) };
    assert_eq!(slots.request_slot(large()), SlotDecision::Wait);
    let claim = slots.request_slot(SlotRequest { needs_consent: true, ..large() });
    assert_eq!(claim, SlotDecision::Claim(0));
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Refuse(RefusalReason::Busy, 0));
    assert_eq!(slots.consent_denied(BACKLOG_BYTES_MAX / 2, now), None);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Wait);
}

#[test]
fn claims_for_free_slots_are_bounded_in_bytes() {
    let now = Instant::now();
    let mut slots = slots(4);
    let claim = |bytes| SlotRequest { bytes, ..at_most_once(0, now) };
    let busy = SlotDecision::Refuse(RefusalReason::Busy, 0);
    let oversized = BACKLOG_BYTES_MAX + 1;
    assert_eq!(
        slots.request_slot(claim(oversized)),
        SlotDecision::Claim(0),
        "a single one always fits"
    );
    assert_eq!(slots.request_slot(claim(1)), busy);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0), "it occupies no memory");
    assert_eq!(slots.consent_denied(oversized, now).map(|offer| offer.to), Some(subject(0)));
}

#[test]
fn consent_is_requested_before_a_slot_is_free() {
    let now = Instant::now();
    let mut slots = slots(1);
    record_short_call(&mut slots);
    assert_eq!(slots.request_slot(at_most_once(1, now)), SlotDecision::Claim(1));
    assert_eq!(slots.request_slot(at_most_once(2, now)), SlotDecision::Claim(2));
    assert_eq!(slots.running(), 0, "a claim does not use a slot");
    assert_eq!(
        slots.request_slot(at_most_once(3, now)),
        SlotDecision::Refuse(RefusalReason::Busy, 3)
    );
    let first_granted = slots.consent_granted(at_most_once(2, now));
    assert_eq!(first_granted, SlotDecision::Run(2), "the first grant takes the slot");
    assert_eq!(slots.consent_granted(at_most_once(1, now)), SlotDecision::Wait);
    let freed = slots.finish(now, None);
    assert_eq!(freed.start, Some(at_most_once(1, now)));
    let offer = freed.offer.expect("there is room for the third request");
    assert_eq!(slots.decline(offer.id, now), None);
    slots.finish(now, None);
    assert_eq!(slots.request_slot(at_most_once(4, now)), SlotDecision::Claim(4));
    assert_eq!(slots.request_slot(at_most_once(5, now)), SlotDecision::Claim(5));
    assert_eq!(
        slots.request_slot(at_most_once(6, now)),
        SlotDecision::Refuse(RefusalReason::Busy, 6)
    );
    assert_eq!(slots.consent_denied(1, now).map(|offer| offer.to), Some(subject(6)));
    slots.drain();
    let late = slots.consent_granted(at_most_once(5, now));
    assert_eq!(late, SlotDecision::Refuse(RefusalReason::Draining, 5), "the call never starts");
    assert_eq!(slots.occupied(), 1, "only the offer is left");
}

#[test]
fn a_late_answer_to_an_offer_still_measures_the_round_trip() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Refuse(RefusalReason::Busy, 1));
    let offer = slots.finish(now, None).offer.unwrap();
    assert_eq!(slots.expire(now + OFFER_TIMEOUT).offers_expired, 1);
    let late = now + Duration::from_millis(800);
    let accepted = slots.accept(offer.id, request(1, late));
    assert_eq!(accepted, SlotDecision::Run(1), "the request takes any free slot");
    assert_eq!(slots.latency.round_trip(), Duration::from_millis(800));
    assert_eq!(slots.latency.offer_timeout(), Duration::from_millis(2400));
}

#[test]
fn an_offer_expires_before_an_earlier_one_with_a_longer_timeout() {
    let now = Instant::now();
    let mut slots = slots(2);
    for _ in 0..2 {
        assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    }
    for n in 1..=2 {
        assert_eq!(
            slots.request_slot(request(n, now)),
            SlotDecision::Refuse(RefusalReason::Busy, n)
        );
    }
    slots.latency.record_round_trip(Duration::from_secs(1));
    let long = slots.latency.offer_timeout();
    assert!(slots.finish(now, None).offer.is_some());
    slots.latency.record_round_trip(Duration::ZERO);
    let short = slots.latency.offer_timeout();
    assert!(short < long, "{short:?}");
    assert!(slots.finish(now, None).offer.is_some());
    assert_eq!(slots.next_expiry(), Some(now + short));
    assert_eq!(slots.expire(now + short).offers_expired, 1);
    assert_eq!(slots.next_expiry(), Some(now + long));
}

/// Creates slots with one running call and one request in the backlog.
fn with_backlog(now: Instant) -> Slots<u32> {
    let mut slots = slots(1);
    record_short_call(&mut slots);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Wait);
    slots
}

#[test]
fn the_backlog_is_not_started_while_draining() {
    let now = Instant::now();
    let mut slots = with_backlog(now);
    assert_eq!(slots.drain(), [request(1, now)]);
    assert_eq!(slots.finish(now, None), NOTHING);
    assert_eq!(slots.running(), 0);
}

#[test]
fn a_request_behind_a_long_call_is_evicted_and_offered_the_next_slot_first() {
    let now = Instant::now();
    let mut slots = with_backlog(now);
    assert_eq!(slots.request_slot(request(2, now)), SlotDecision::Refuse(RefusalReason::Busy, 2));
    let late = now + slots.latency.backlog_wait_max();
    assert_eq!(slots.next_expiry(), Some(late));
    assert_eq!(slots.expire(late - Duration::from_millis(1)).evicted, []);
    let expected =
        ExpiredWaits { offers_expired: 0, offers: vec![], evicted: vec![request(1, now)] };
    assert_eq!(slots.expire(late), expected);
    assert_eq!(slots.offer(late), None, "calls are long now, so there is no backlog");
    let freed = slots.finish(late, None);
    assert_eq!(freed.start, None);
    assert_eq!(freed.offer.map(|offer| offer.to), Some(subject(1)));
}

#[test]
fn a_higher_limit_starts_the_backlog() {
    let now = Instant::now();
    let mut slots = with_backlog(now);
    assert_eq!(slots.start_next(), None);
    slots.set_limit(2);
    assert_eq!(slots.start_next(), Some(request(1, now)));
    assert_eq!((slots.running(), slots.start_next()), (2, None));
}

#[test]
fn a_slot_that_no_refused_caller_needs_is_offered_to_the_gateway_of_the_call() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    let freed = slots.finish(now, Some(subject(7)));
    let offer = freed.offer.expect("requests wait at that gateway");
    assert_eq!(offer.to, subject(7));
    assert_eq!(slots.accept(offer.id, request(8, now)), SlotDecision::Run(8));
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Refuse(RefusalReason::Busy, 1));
    let freed = slots.finish(now, Some(subject(8)));
    assert_eq!(freed.offer.map(|offer| offer.to), Some(subject(1)));
    slots.drain();
    assert!(!slots.offers.has_refused(), "a drain forgets refused callers");
}

#[test]
fn a_cancelled_request_leaves_the_backlog() {
    let now = Instant::now();
    let mut slots = with_backlog(now);
    assert_eq!(slots.cancel(&subject(2)), None);
    assert_eq!(slots.cancel(&subject(1)), Some(request(1, now)));
    assert_eq!(slots.finish(now, None), NOTHING);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
}

#[test]
fn every_request_is_refused_while_draining_and_without_a_database() {
    let now = Instant::now();
    let mut slots = slots(1);
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    assert_eq!(slots.request_slot(request(1, now)), SlotDecision::Refuse(RefusalReason::Busy, 1));
    assert_eq!(slots.set_unavailable(), []);
    assert_eq!(
        slots.request_slot(anonymous(now)),
        SlotDecision::Refuse(RefusalReason::Unavailable, 0)
    );
    assert_eq!(slots.finish(now, None), NOTHING);
    slots.set_available();
    assert_eq!(slots.drain(), []);
    assert_eq!(
        slots.request_slot(anonymous(now)),
        SlotDecision::Refuse(RefusalReason::Draining, 0)
    );
}

/// A gateway decides the order in which its waiters are served. A gateway with many refused requests must not get all
/// slots.
#[test]
fn gateways_take_turns_and_one_with_fewer_refused_callers_displaces_the_last_of_another() {
    let now = Instant::now();
    let mut slots: Slots<u32> = Slots::new(1, 4, OFFER_TIMEOUT);
    let reply =
        |gateway: &str, n: u32| Subject::new(&format!("in.{gateway}.r.0.{n}.1.99")).unwrap();
    assert_eq!(slots.request_slot(anonymous(now)), SlotDecision::Run(0));
    let callers =
        (1..=5).map(|n| reply("a", n)).chain([reply("b", 6), reply("b", 7), reply("b", 8)]);
    for caller in callers {
        let request = SlotRequest { reply: Some(caller), ..request(0, now) };
        assert_eq!(slots.request_slot(request), SlotDecision::Refuse(RefusalReason::Busy, 0));
    }
    let mut offers = Vec::new();
    let mut offer = slots.finish(now, None).offer;
    while let Some(Offer { id, to }) = offer {
        offers.push(to);
        offer = slots.decline(id, now);
    }
    assert_eq!(offers, [reply("a", 1), reply("b", 6), reply("a", 2), reply("b", 7)]);
}
