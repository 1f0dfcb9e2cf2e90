//! Tests the wait queue.

use super::*;

const MANY: usize = 100;

fn queue() -> WaitQueue {
    WaitQueue::new(Gauge::noop())
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
fn an_offer_goes_to_the_oldest_waiter_and_the_next_becomes_the_head() {
    let (queue, now) = (queue(), Instant::now());
    let (first, mut first_messages) = mpsc::channel(8);
    let (second, mut second_messages) = mpsc::channel(8);
    queue.join(None, WaitReason::Busy, first, MANY).unwrap();
    queue.join(None, WaitReason::Busy, second, MANY).unwrap();
    assert_eq!(next(&mut first_messages), "head");
    assert_eq!(next(&mut second_messages), "nothing", "there is one head");
    assert_eq!(queue.offer(offer(1), now), Ok(()));
    assert_eq!(next(&mut first_messages), "w.o.1");
    assert_eq!(next(&mut second_messages), "head");
    assert_eq!(queue.offer(offer(2), now), Ok(()));
    assert_eq!(
        queue.offer(offer(3), now),
        Err(offer(3)),
        "no request is waiting, so it is declined"
    );
}

#[test]
fn trying_the_group_keeps_the_position() {
    let queue = queue();
    let (first, mut first_messages) = mpsc::channel(8);
    let (second, _second_messages) = mpsc::channel(8);
    let id = queue.join(None, WaitReason::Busy, first.clone(), MANY).unwrap();
    queue.join(None, WaitReason::Busy, second, MANY).unwrap();
    assert_eq!(next(&mut first_messages), "head");
    queue.leave(id);
    assert!(!queue.is_head(id));
    assert_eq!(queue.join(Some(id), WaitReason::Busy, first, MANY), Some(id));
    assert!(queue.is_head(id));
    assert_eq!(next(&mut first_messages), "head", "and it is notified again");
}

#[test]
fn an_offer_skips_sessions_that_have_ended() {
    let (queue, now) = (queue(), Instant::now());
    let (gone, gone_messages) = mpsc::channel(8);
    let (waits, mut messages) = mpsc::channel(8);
    queue.join(None, WaitReason::Busy, gone, MANY).unwrap();
    queue.join(None, WaitReason::Busy, waits, MANY).unwrap();
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
        queue.join(None, WaitReason::NoWorkers, signals, MANY).unwrap();
        inboxes.push(messages);
    }
    assert_eq!(queue.admit(budget, 4, Instant::now()), QueueAdmission::Wait);
    assert_eq!(next(&mut inboxes[0]), "head");
    queue.on_member_reply();
    let signals: Vec<_> = inboxes.iter_mut().map(next).collect();
    assert_eq!(signals, ["try group", "try group", "nothing"]);
    queue.on_member_reply();
    assert_eq!(next(&mut inboxes[2]), "try group");
    assert_eq!(queue.admit(budget, 4, Instant::now()), QueueAdmission::SendNow);
}

#[test]
fn a_request_that_would_wait_too_long_or_finds_the_queue_full_is_rejected() {
    let (queue, start) = (queue(), Instant::now());
    let mut inboxes = Vec::new();
    let enter = |inboxes: &mut Vec<_>| {
        let (signals, messages) = mpsc::channel(8);
        inboxes.push(messages);
        queue.join(None, WaitReason::Busy, signals, MANY).unwrap();
    };
    for _ in 0..4 {
        enter(&mut inboxes);
    }
    assert_eq!(
        queue.admit(Duration::from_secs(9), 4, start),
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
    assert_eq!(queue.admit(Duration::from_mins(1), 4, now), QueueAdmission::SendNow);
    assert_eq!(
        queue.admit(Duration::from_secs(1), 4, now),
        QueueAdmission::Reject,
        "3 s at that rate"
    );
}

#[test]
fn a_full_queue_evicts_the_youngest_waiter() {
    let queue = queue();
    let (first, _first_messages) = mpsc::channel(8);
    let (second, mut second_messages) = mpsc::channel(8);
    let (third, _third_messages) = mpsc::channel(8);
    let id = queue.join(None, WaitReason::Busy, first.clone(), 2).unwrap();
    queue.join(None, WaitReason::NoWorkers, second.clone(), 2).unwrap();
    assert_eq!(queue.join(None, WaitReason::Busy, third.clone(), 2), None);
    assert_eq!(queue.len(), 2);
    // The head leaves to send its request to the group, another waiter joins, and the head returns.
    queue.leave(id);
    let third_id = queue.join(None, WaitReason::Busy, third, 2).unwrap();
    assert_eq!(queue.join(Some(id), WaitReason::Busy, first, 2), Some(id));
    assert!(!queue.is_head(third_id));
    assert_eq!(queue.len(), 2, "the youngest was evicted");
    queue.leave(id);
    assert_eq!(next(&mut second_messages), "head");
    assert_eq!(queue.join(None, WaitReason::Busy, second, 0), None, "no request can wait");
}

/// Returns the sender of a full channel, and its receiver.
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
    let id = queue.join(None, WaitReason::Busy, full, MANY).unwrap();
    queue.join(None, WaitReason::Busy, second, MANY).unwrap();
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
    queue.join(None, WaitReason::Busy, full, MANY).unwrap();
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
    let id = queue.join(None, WaitReason::Busy, first.clone(), 2).unwrap();
    queue.leave(id);
    queue.join(None, WaitReason::Busy, second, 2).unwrap();
    let (full, _full_messages) = full_channel();
    let youngest = queue.join(None, WaitReason::Busy, full, 2).unwrap();
    assert_eq!(queue.join(Some(id), WaitReason::Busy, first, 2), Some(id));
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
        queue.join(None, reason, signals, MANY).unwrap();
    };
    for _ in 0..14 {
        enter(WaitReason::Busy);
    }
    for second in 1..=10 {
        queue.offer(offer(1), start + Duration::from_secs(second)).unwrap();
    }
    let now = start + Duration::from_secs(30);
    let wait_max = Duration::from_secs(1);
    assert_eq!(queue.admit(wait_max, MANY, now), QueueAdmission::Reject);
    enter(WaitReason::Paused);
    assert_eq!(queue.admit(wait_max, MANY, now), QueueAdmission::Wait);
    assert_eq!(queue.unregistered_reason(), WaitReason::Paused);
}
