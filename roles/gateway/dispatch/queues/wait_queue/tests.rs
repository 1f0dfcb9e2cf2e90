//! Tests the wait queue.

mod overload;

use std::net::Ipv4Addr;

use super::*;
use crate::roles::gateway::client::ClientNetwork;

const MANY: usize = 100;

fn queue() -> WaitQueue {
    WaitQueue::new(Gauge::noop())
}

/// Returns a caller for requests whose caller does not matter.
fn caller() -> CallerKey {
    named("somebody")
}

fn named(principal: &str) -> CallerKey {
    CallerKey::new(Some(principal), ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0))
}

fn offer(number: u32) -> Subject {
    Subject::new(&format!("w.o.{number}")).unwrap()
}

fn next(messages: &mut mpsc::Receiver<SessionMessage>) -> String {
    match messages.try_recv() {
        Ok(SessionMessage::Signal(QueueSignal::Head)) => "head".to_owned(),
        Ok(SessionMessage::Signal(QueueSignal::SendToGroup)) => "try group".to_owned(),
        Ok(SessionMessage::Signal(QueueSignal::QueueFull)) => "full".to_owned(),
        Ok(SessionMessage::Signal(QueueSignal::SlotOffered(direct))) => direct.to_string(),
        Ok(SessionMessage::Reply(_)) => "other".to_owned(),
        Err(_) => "nothing".to_owned(),
    }
}

#[test]
fn an_offer_goes_to_the_first_waiter_and_the_next_becomes_the_head() {
    let (queue, now) = (queue(), Instant::now());
    let (first, mut first_messages) = mpsc::channel(8);
    let (second, mut second_messages) = mpsc::channel(8);
    queue.join((caller(), None), WaitReason::Busy, first, MANY).unwrap();
    queue.join((caller(), None), WaitReason::Busy, second, MANY).unwrap();
    assert_eq!(next(&mut first_messages), "head");
    assert_eq!(next(&mut second_messages), "nothing", "there is one head");
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert_eq!(next(&mut first_messages), "w.o.1");
    assert_eq!(next(&mut second_messages), "head");
    assert_eq!(queue.offer(offer(2), now), Ok(()));
    assert_eq!(
        queue.offer(offer(3), now),
        Err(offer(3)),
        "no request is waiting, so the offer is declined"
    );
}

#[test]
fn trying_the_group_keeps_the_position() {
    let queue = queue();
    let (first, mut first_messages) = mpsc::channel(8);
    let (second, _second_messages) = mpsc::channel(8);
    let id = queue.join((caller(), None), WaitReason::Busy, first.clone(), MANY).unwrap();
    queue.join((caller(), None), WaitReason::Busy, second, MANY).unwrap();
    assert_eq!(next(&mut first_messages), "head");
    let id = queue.take_turn(id);
    assert!(!queue.is_head(id));
    assert_eq!(queue.join((caller(), Some(id)), WaitReason::Busy, first, MANY), Some(id));
    assert!(queue.is_head(id));
    assert_eq!(next(&mut first_messages), "head", "and it is notified again");
}

#[test]
fn an_offer_skips_sessions_that_have_ended() {
    let (queue, now) = (queue(), Instant::now());
    let (gone, gone_messages) = mpsc::channel(8);
    let (waits, mut messages) = mpsc::channel(8);
    queue.join((caller(), None), WaitReason::Busy, gone, MANY).unwrap();
    queue.join((caller(), None), WaitReason::Busy, waits, MANY).unwrap();
    drop(gone_messages);
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert_eq!(next(&mut messages), "w.o.1");
}

#[test]
fn each_reply_lets_two_unregistered_waiters_try_the_group() {
    let queue = queue();
    let budget = Duration::from_secs(1);
    let mut inboxes = Vec::new();
    for _ in 0..3 {
        let (signals, messages) = mpsc::channel(8);
        queue.join((caller(), None), WaitReason::NoWorkers, signals, MANY).unwrap();
        inboxes.push(messages);
    }
    assert_eq!(queue.admit(caller(), budget, 4, Instant::now()), QueueAdmission::Wait);
    assert_eq!(next(&mut inboxes[0]), "head");
    queue.on_member_reply();
    let signals: Vec<_> = inboxes.iter_mut().map(next).collect();
    assert_eq!(signals, ["try group", "try group", "nothing"]);
    queue.on_member_reply();
    assert_eq!(next(&mut inboxes[2]), "try group");
    assert_eq!(queue.admit(caller(), budget, 4, Instant::now()), QueueAdmission::SendNow);
}

#[test]
fn a_request_that_would_wait_too_long_or_finds_the_queue_full_is_rejected() {
    let (queue, start) = (queue(), Instant::now());
    let mut inboxes = Vec::new();
    let enter = |inboxes: &mut Vec<_>| {
        let (signals, messages) = mpsc::channel(8);
        inboxes.push(messages);
        queue.join((caller(), None), WaitReason::Busy, signals, MANY).unwrap();
    };
    for _ in 0..4 {
        enter(&mut inboxes);
    }
    assert_eq!(
        queue.admit(caller(), Duration::from_secs(9), 4, start),
        QueueAdmission::Reject,
        "four requests can wait"
    );
    for second in 1..=10 {
        let now = start + Duration::from_secs(second);
        assert_eq!(queue.offer(offer(1), now), Ok(()));
        enter(&mut inboxes);
    }
    queue.offer(offer(1), start + Duration::from_secs(10)).unwrap();
    let now = start + Duration::from_secs(10);
    assert_eq!(queue.admit(caller(), Duration::from_mins(1), 4, now), QueueAdmission::SendNow);
    assert_eq!(
        queue.admit(caller(), Duration::from_secs(1), 4, now),
        QueueAdmission::Reject,
        "3 s at that rate"
    );
}

#[test]
fn a_full_queue_evicts_the_last_waiter() {
    let queue = queue();
    let (first, _first_messages) = mpsc::channel(8);
    let (second, mut second_messages) = mpsc::channel(8);
    let (third, _third_messages) = mpsc::channel(8);
    let id = queue.join((caller(), None), WaitReason::Busy, first.clone(), 2).unwrap();
    queue.join((caller(), None), WaitReason::NoWorkers, second.clone(), 2).unwrap();
    assert_eq!(queue.join((caller(), None), WaitReason::Busy, third.clone(), 2), None);
    assert_eq!(queue.len(), 2);
    // The head leaves to send its request to the group, another waiter joins, and the head returns.
    queue.leave(id);
    let third_id = queue.join((caller(), None), WaitReason::Busy, third, 2).unwrap();
    assert_eq!(queue.join((caller(), Some(id)), WaitReason::Busy, first, 2), Some(id));
    assert!(!queue.is_head(third_id));
    assert_eq!(queue.len(), 2, "the last was evicted");
    queue.leave(id);
    assert_eq!(next(&mut second_messages), "head");
    assert_eq!(
        queue.join((caller(), None), WaitReason::Busy, second, 0),
        None,
        "no request can wait"
    );
}

/// Returns the sender of a full channel, and the receiver.
fn full_channel() -> (mpsc::Sender<SessionMessage>, mpsc::Receiver<SessionMessage>) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(SessionMessage::Signal(QueueSignal::SendToGroup)).unwrap();
    (sender, receiver)
}

#[test]
fn a_waiter_whose_channel_is_full_keeps_its_position_when_a_slot_is_offered() {
    let (queue, now) = (queue(), Instant::now());
    let (full, mut full_messages) = full_channel();
    let (second, mut second_messages) = mpsc::channel(8);
    let id = queue.join((caller(), None), WaitReason::Busy, full, MANY).unwrap();
    queue.join((caller(), None), WaitReason::Busy, second, MANY).unwrap();
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert_eq!(next(&mut second_messages), "w.o.1");
    assert!(queue.is_head(id));
    assert_eq!(queue.offer(offer(2), now), Err(offer(2)), "no waiter can receive it");
    assert_eq!(queue.len(), 1);
    assert_eq!(next(&mut full_messages), "try group");
    assert_eq!(queue.offer(offer(3), now), Ok(()));
    assert_eq!(next(&mut full_messages), "w.o.3");
}

#[test]
fn a_head_whose_channel_was_full_tries_the_group_after_a_later_reply() {
    let queue = queue();
    let (full, mut messages) = full_channel();
    queue.join((caller(), None), WaitReason::Busy, full, MANY).unwrap();
    queue.on_member_reply();
    assert_eq!(next(&mut messages), "try group", "this one filled the channel");
    assert_eq!(next(&mut messages), "nothing");
    queue.on_member_reply();
    assert_eq!(next(&mut messages), "try group");
    queue.on_member_reply();
    assert_eq!(next(&mut messages), "nothing", "it is woken once");
}

#[test]
fn a_waiter_that_cannot_receive_the_signal_is_not_evicted() {
    let queue = queue();
    let (first, _first_messages) = mpsc::channel(8);
    let (second, mut second_messages) = mpsc::channel(8);
    let id = queue.join((caller(), None), WaitReason::Busy, first.clone(), 2).unwrap();
    queue.leave(id);
    queue.join((caller(), None), WaitReason::Busy, second, 2).unwrap();
    let (full, _full_messages) = full_channel();
    let youngest = queue.join((caller(), None), WaitReason::Busy, full, 2).unwrap();
    assert_eq!(queue.join((caller(), Some(id)), WaitReason::Busy, first, 2), Some(id));
    assert_eq!(next(&mut second_messages), "head");
    assert_eq!(next(&mut second_messages), "full");
    queue.leave(id);
    assert!(queue.is_head(youngest));
}

#[test]
fn a_pause_ends_the_estimate_from_the_time_before_it() {
    let (queue, start) = (queue(), Instant::now());
    let mut inboxes = Vec::new();
    let mut enter = |reason| {
        let (signals, messages) = mpsc::channel(8);
        inboxes.push(messages);
        queue.join((caller(), None), reason, signals, MANY).unwrap();
    };
    for _ in 0..14 {
        enter(WaitReason::Busy);
    }
    for second in 1..=10 {
        queue.offer(offer(1), start + Duration::from_secs(second)).unwrap();
    }
    let now = start + Duration::from_secs(30);
    let wait_max = Duration::from_secs(1);
    assert_eq!(queue.admit(caller(), wait_max, MANY, now), QueueAdmission::Reject);
    enter(WaitReason::Paused);
    assert_eq!(queue.admit(caller(), wait_max, MANY, now), QueueAdmission::Wait);
    assert_eq!(queue.unregistered_reason(), WaitReason::Paused);
}

/// Adds a waiter. Returns its messages, or `None` if the queue is full.
fn join(
    queue: &WaitQueue,
    caller: CallerKey,
    waiting_max: usize,
) -> Option<mpsc::Receiver<SessionMessage>> {
    let (signals, messages) = mpsc::channel(8);
    queue.join((caller, None), WaitReason::Busy, signals, waiting_max).map(|_| messages)
}

/// Reads all messages of a waiter. Returns whether one of them is `expected`.
fn has(messages: &mut mpsc::Receiver<SessionMessage>, expected: &str) -> bool {
    std::iter::from_fn(|| Some(next(messages)).filter(|message| message != "nothing"))
        .any(|message| message == expected)
}

#[test]
fn callers_take_turns() {
    let (queue, now) = (queue(), Instant::now());
    let mut many: Vec<_> = (0..50).map(|_| join(&queue, named("many"), MANY).unwrap()).collect();
    assert_eq!(queue.offer(offer(0), now), Ok(()));
    let mut single = join(&queue, named("single"), MANY).unwrap();
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert!(has(&mut many[1], "w.o.1"), "its caller has waited longer for its turn");
    assert_eq!(next(&mut single), "head");
    assert_eq!(queue.offer(offer(2), now), Ok(()));
    assert!(has(&mut single, "w.o.2"));
    assert_eq!(queue.offer(offer(3), now), Ok(()));
    assert!(has(&mut many[2], "w.o.3"));
}

#[test]
fn a_head_that_gets_a_slot_from_the_group_has_had_its_turn() {
    let (queue, now) = (queue(), Instant::now());
    let (signals, _messages) = mpsc::channel(8);
    let head = queue.join((named("many"), None), WaitReason::Busy, signals, MANY).unwrap();
    let mut second = join(&queue, named("many"), MANY).unwrap();
    let mut third = join(&queue, named("many"), MANY).unwrap();
    let taken = queue.take_turn(head);
    queue.record_dequeue(taken, now);
    let mut single = join(&queue, named("single"), MANY).unwrap();
    for number in 1..=3 {
        assert_eq!(queue.offer(offer(number), now), Ok(()));
    }
    let order = [has(&mut second, "w.o.1"), has(&mut single, "w.o.2"), has(&mut third, "w.o.3")];
    assert_eq!(order, [true; 3]);
}

#[test]
fn a_waiter_whose_offered_slot_is_taken_gets_its_turn_back() {
    let (queue, now) = (queue(), Instant::now());
    let (signals, mut messages) = mpsc::channel(8);
    let id = queue.join((named("many"), None), WaitReason::Busy, signals.clone(), MANY).unwrap();
    let mut second = join(&queue, named("many"), MANY).unwrap();
    let mut single = join(&queue, named("single"), MANY).unwrap();
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert!(has(&mut messages, "w.o.1"));
    let id = queue.take_turn(id);
    assert!(has(&mut single, "head"), "it is the other caller's turn");
    assert_eq!(queue.join((named("many"), Some(id)), WaitReason::Busy, signals, MANY), Some(id));
    for number in 2..=4 {
        assert_eq!(queue.offer(offer(number), now), Ok(()));
    }
    let order = [has(&mut messages, "w.o.2"), has(&mut single, "w.o.3"), has(&mut second, "w.o.4")];
    assert_eq!(order, [true; 3]);
}

#[test]
fn a_late_waiter_that_is_accepted_first_delays_no_other_caller() {
    let (queue, now) = (queue(), Instant::now());
    let mut inboxes = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..60 {
        let (signals, messages) = mpsc::channel(8);
        let waiter = (named("many"), None);
        ids.push(queue.join(waiter, WaitReason::NoWorkers, signals, MANY).unwrap());
        inboxes.push(messages);
    }
    let _taken = queue.take_turn(ids[40]);
    let mut single = join(&queue, named("single"), MANY).unwrap();
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert_eq!(queue.offer(offer(2), now), Ok(()));
    assert!(has(&mut inboxes[0], "w.o.1") && has(&mut single, "w.o.2"));
}

#[test]
fn a_full_queue_makes_room_for_a_caller_with_fewer_waiters() {
    let (queue, now) = (queue(), Instant::now());
    let mut many: Vec<_> = (0..4).map(|_| join(&queue, named("many"), 4).unwrap()).collect();
    let wait_max = Duration::from_mins(1);
    let admit = |name| queue.admit(named(name), wait_max, 4, now);
    assert_eq!(admit("many"), QueueAdmission::Reject);
    assert!(join(&queue, named("many"), 4).is_none());
    assert_eq!(admit("single"), QueueAdmission::SendNow);
    let mut single = join(&queue, named("single"), 4).unwrap();
    assert_eq!(queue.len(), 4);
    let evicted: Vec<_> = many.iter_mut().map(|messages| has(messages, "full")).collect();
    assert_eq!(evicted, [false, false, false, true]);
    let _second = join(&queue, named("single"), 4).unwrap();
    assert!(has(&mut many[2], "full"));
    assert!(join(&queue, named("single"), 4).is_none(), "each caller has two waiters");
    let _third = join(&queue, named("third"), 4).unwrap();
    assert!(!has(&mut single, "full"));
    assert_eq!(queue.len(), 4);
}

#[test]
fn the_expected_wait_of_a_caller_depends_on_its_own_waiters() {
    let (queue, start) = (queue(), Instant::now());
    let mut inboxes: Vec<_> = (0..30).map(|_| join(&queue, named("many"), MANY).unwrap()).collect();
    for second in 1..=10 {
        queue.offer(offer(1), start + Duration::from_secs(second)).unwrap();
    }
    let now = start + Duration::from_secs(10);
    let wait_max = Duration::from_secs(3);
    assert_eq!(queue.admit(named("many"), wait_max, MANY, now), QueueAdmission::Reject);
    assert_eq!(queue.admit(named("single"), wait_max, MANY, now), QueueAdmission::SendNow);
    assert!(queue.retry_after(named("many"), now) > Duration::from_secs(10));
    assert!(queue.retry_after(named("single"), now) < Duration::from_secs(3));
    inboxes.clear();
}

#[test]
fn the_expected_wait_includes_requests_that_the_group_accepts() {
    let (queue, start) = (queue(), Instant::now());
    let many: Vec<_> = (0..10).map(|_| join(&queue, named("many"), MANY).unwrap()).collect();
    let mut now = start;
    for _ in 0..5 {
        now += Duration::from_secs(1);
        queue.offer(offer(1), now).unwrap();
        for name in ["one", "two"] {
            let (signals, _messages) = mpsc::channel(8);
            let id = queue.join((named(name), None), WaitReason::Busy, signals, MANY).unwrap();
            let taken = queue.take_turn(id);
            now += Duration::from_secs(1);
            queue.record_dequeue(taken, now);
        }
    }
    // Five requests of this caller are left, and one in three slots was its own.
    let wait_max = Duration::from_secs(10);
    assert_eq!(queue.admit(named("many"), wait_max, MANY, now), QueueAdmission::Reject);
    assert!(queue.retry_after(named("many"), now) > wait_max);
    drop(many);
}
