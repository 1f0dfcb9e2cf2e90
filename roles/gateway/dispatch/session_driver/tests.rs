//! Tests how the end of a session affects its queue.

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::*;
use crate::catalogue::{Execution, OnDisconnect, QueueName};
use crate::envelope::{Final, RefusalReason};
use crate::outcome::Outcome;
use crate::problem::ProblemKind;
use crate::roles::gateway::client::{CallerKey, ClientNetwork};

const SECOND: Duration = Duration::from_secs(1);
/// The number of sessions, which is larger than the number of samples that an estimate requires.
const SESSIONS: u32 = 64;

fn options() -> SessionOptions {
    SessionOptions {
        execution: Execution::AtLeastOnce,
        on_disconnect: OnDisconnect::Cancel,
        timeout: SECOND * 10,
        session: SECOND * 10,
        attempts: 1,
        accept_timeout: SECOND,
        progress_timeout: SECOND * 3,
        answer_bytes_max: 1024,
        keeps_answer: false,
        window: 0,
    }
}

/// Ends many sessions with this problem after a second. Returns the queue's estimate of the answer
/// time after that, and the last session.
fn end_with(kind: ProblemKind) -> (Duration, ClosedSession) {
    let prefix = Subject::new("test").unwrap();
    let queue = GatewayQueue::new(0, &QueueName::new("q").unwrap(), &prefix).unwrap();
    let (queue, endpoint) = (Arc::new(queue), EndpointId::new("e").unwrap());
    let start = Instant::now();
    let end_one = || {
        let (sender, mut messages) = mpsc::channel(8);
        let (queue, id) = (Arc::clone(&queue), endpoint.clone());
        let network = ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0);
        let waiter = QueueWaiter::new(CallerKey::new(None, network), sender);
        let mut driver = SessionDriver::new(queue, id, options(), waiter, start);
        driver.close(&SessionEnd::Problem(kind), &mut messages, start + SECOND)
    };
    let mut closed = end_one();
    for _ in 1..SESSIONS {
        closed = end_one();
    }
    (queue.timing.estimate(&endpoint).answer, closed)
}

#[test]
fn a_request_that_expired_unexecuted_does_not_change_the_expected_answer_time() {
    let (answer_time, closed) = end_with(ProblemKind::Expired);
    assert_eq!(answer_time, Duration::ZERO);
    assert_eq!((closed.queue_wait, closed.exchange_time), (SECOND, Duration::ZERO));
    assert!(closed.retry_after.is_some(), "the client may send it again");
}

#[test]
fn a_call_that_timed_out_raises_the_expected_answer_time() {
    let (answer_time, closed) = end_with(ProblemKind::AttemptTimedOut);
    assert_eq!(answer_time, SECOND);
    assert_eq!((closed.queue_wait, closed.exchange_time), (Duration::ZERO, SECOND));
    assert_eq!(closed.retry_after, None, "it may have been executed");
}

#[test]
fn a_request_that_is_too_large_has_no_retry_after() {
    let (_, closed) = end_with(ProblemKind::BodyTooLarge);
    assert_eq!((closed.retry_after, closed.queue_wait), (None, SECOND));
}

#[test]
fn errors_of_a_procedure_are_answers_but_calls_that_time_out_are_not() {
    let prefix = Subject::new("test").unwrap();
    let queue = GatewayQueue::new(0, &QueueName::new("answers").unwrap(), &prefix).unwrap();
    let queue = Arc::new(queue);
    let start = Instant::now();
    let answered_after = |outcome: Outcome| {
        let (sender, mut messages) = mpsc::channel(8);
        let endpoint = EndpointId::new("e").unwrap();
        let network = ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0);
        let waiter = QueueWaiter::new(CallerKey::new(None, network), sender);
        let mut driver = SessionDriver::new(Arc::clone(&queue), endpoint, options(), waiter, start);
        let answer = Final::whole(500, "", Bytes::new(), outcome);
        driver.close(&SessionEnd::Answer(answer), &mut messages, start + SECOND);
        queue.deliveries.answered()
    };
    assert_eq!(answered_after(Outcome::SqlError), 1);
    assert_eq!(answered_after(Outcome::Ok), 2);
    for outcome in [Outcome::SqlTimeout, Outcome::PoolTimeout, Outcome::Cancelled] {
        assert_eq!(answered_after(outcome), 2, "{outcome}");
    }
}

/// A worker that returns lets requests that wait try the group, and not only the first one.
#[test]
fn requests_that_the_group_accepts_after_a_wait_count_in_the_expected_wait() {
    let prefix = Subject::new("test").unwrap();
    let queue = GatewayQueue::new(0, &QueueName::new("waits").unwrap(), &prefix).unwrap();
    let (queue, start) = (Arc::new(queue), Instant::now());
    let config = SessionConfig {
        accept_timeout: SECOND,
        progress_interval: SECOND,
        queue_retry_delay_min: SECOND,
        queue_retry_delay_max: SECOND,
        waiting_max: 100,
        retry_percent: 100,
        retries_per_second_min: 100,
        window_parts: 0,
        answer_bytes_max: 1024,
    };
    let budget = RetryBudget::new(100, 100, start);
    let step = |driver: &mut SessionDriver, event: DriverEvent, now: Instant| {
        let mut context = DriverContext {
            now,
            config: &config,
            retry_budget: &budget,
            is_linked: true,
            has_answer_memory: &|| true,
            random: &mut || 1.0,
        };
        driver.handle(event, &mut context);
        while driver.next_action(&mut context).is_some() {}
    };
    let caller = CallerKey::new(None, ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0));
    let (sender, _messages) = mpsc::channel(100);
    let waiting = || {
        let endpoint = EndpointId::new("e").unwrap();
        let waiter = QueueWaiter::new(caller, sender.clone());
        let mut driver = SessionDriver::new(Arc::clone(&queue), endpoint, options(), waiter, start);
        step(&mut driver, DriverEvent::Start { may_send_to_group: false }, start);
        driver
    };
    let mut drivers: Vec<_> = (0..20).map(|_| waiting()).collect();
    assert_eq!(queue.wait_queue.len(), 20);
    for (seconds, driver) in (1..=10).zip(&mut drivers) {
        let now = start + SECOND * seconds;
        step(driver, DriverEvent::Signal(QueueSignal::SendToGroup), now);
        let reply = Ok(Reply::Progress { control: None });
        let reply = AttemptReply { attempt: 1, worker: None, reply, has_room: true };
        step(driver, DriverEvent::Reply(reply), now);
    }
    assert_eq!(queue.wait_queue.len(), 10);
    let wait = queue.wait_queue.retry_after(caller, start + SECOND * 10);
    assert!(wait > SECOND * 5, "ten requests wait, and one was accepted each second: {wait:?}");
}

/// Sends a request to a paused queue again 1 ms before its deadline. Returns the ends of the session: with a refusal that
/// arrives after this time, and at the next timers.
fn end_after_late_attempt(reply_after: Option<Duration>) -> (ProblemKind, Duration) {
    let start = Instant::now();
    let mut session = Session::new(options(), start);
    let mut step = |event: SessionEvent, now: Instant| {
        let mut actions = Vec::new();
        let may_resubmit = &mut || true;
        session.step(event, &mut StepContext { now, may_resubmit, actions: &mut actions });
        let end = actions.iter().find_map(|action| match action {
            SessionAction::End(SessionEnd::Problem(kind)) => Some(*kind),
            _ => None,
        });
        (end, session.wake_at())
    };
    let refused = |attempt| SessionEvent::Reply {
        attempt,
        reply: Ok(Reply::Refused { reason: RefusalReason::Paused, control: None }),
    };
    step(SessionEvent::Start { is_linked: true, wait_for: None }, start);
    // After these refusals, the request waits.
    for attempt in 1..=9 {
        assert_eq!(step(refused(attempt), start).0, None);
    }
    let sent_at = start + options().timeout - Duration::from_millis(1);
    let (_, mut wake_at) = step(SessionEvent::SendToGroup, sent_at);
    if let Some(reply_after) = reply_after {
        let replied_at = sent_at + reply_after;
        assert!(wake_at > replied_at, "the session waits for the reply");
        (_, wake_at) = step(refused(10), replied_at);
        wake_at = wake_at.max(replied_at);
    }
    let (end, _) = step(SessionEvent::Timer, wake_at);
    (end.expect("the session ends at its timer"), wake_at.duration_since(sent_at))
}

#[test]
fn a_refusal_that_arrives_shortly_after_the_deadline_ends_the_request_as_not_executed() {
    let late = Duration::from_millis(90);
    assert_eq!(end_after_late_attempt(Some(late)), (ProblemKind::QueuePaused, late));
    let silence = Duration::from_millis(100);
    assert_eq!(end_after_late_attempt(None), (ProblemKind::AttemptTimedOut, silence));
}
