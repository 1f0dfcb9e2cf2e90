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

/// The end of a session whose queue is paused and whose request is sent again 1 ms before its deadline.
#[derive(Debug, PartialEq, Eq)]
struct LateEnd {
    problem: ProblemKind,
    /// The time from the last attempt before the deadline to the end.
    after: Duration,
    /// The number of attempts after the deadline.
    late_attempts: usize,
}

/// If `refused_after` is set, a worker refuses the late attempt at that time.
fn late_end(options: SessionOptions, refused_after: Option<Duration>) -> LateEnd {
    let start = Instant::now();
    let deadline = start + options.timeout;
    let mut session = Session::new(options, start);
    let (mut problem, mut late_attempts) = (None, 0);
    let mut step = |event: SessionEvent, now: Instant| {
        let mut actions = Vec::new();
        let may_resubmit = &mut || true;
        session.step(event, &mut StepContext { now, may_resubmit, actions: &mut actions });
        for action in actions {
            match action {
                SessionAction::Publish { .. } if now >= deadline => late_attempts += 1,
                SessionAction::JoinQueue(_) => assert!(now < deadline, "it would evict another"),
                SessionAction::End(SessionEnd::Problem(kind)) => problem = Some(kind),
                _ => {}
            }
        }
        (problem, session.wake_at())
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
    let sent_at = deadline - Duration::from_millis(1);
    let (_, mut now) = step(SessionEvent::SendToGroup, sent_at);
    if let Some(refused_after) = refused_after {
        let refused_at = sent_at + refused_after;
        assert!(now > refused_at, "the session waits for the reply");
        now = step(refused(10), refused_at).1.max(refused_at);
    }
    loop {
        match step(SessionEvent::Timer, now) {
            (Some(problem), _) => {
                return LateEnd { problem, after: now.duration_since(sent_at), late_attempts };
            }
            (None, next) => {
                assert!(next > now, "the session waits");
                now = next;
            }
        }
    }
}

#[test]
fn an_at_least_once_request_that_is_sent_just_before_its_deadline_waits_for_a_refusal() {
    let late = Duration::from_millis(90);
    let refused = LateEnd { problem: ProblemKind::QueuePaused, after: late, late_attempts: 0 };
    assert_eq!(late_end(options(), Some(late)), refused);
    let silence = Duration::from_millis(100);
    let unknown = ProblemKind::AttemptTimedOut;
    let silent = LateEnd { problem: unknown, after: silence, late_attempts: 0 };
    assert_eq!(late_end(options(), None), silent);
    // The request is not sent again, although the first reply is late.
    let impatient =
        SessionOptions { attempts: 5, accept_timeout: Duration::from_millis(50), ..options() };
    assert_eq!(late_end(impatient, None), silent);
}

#[test]
fn an_at_most_once_request_that_is_sent_just_before_its_deadline_ends_at_the_deadline() {
    let once = SessionOptions { execution: Execution::AtMostOnce, ..options() };
    let after = Duration::from_millis(1);
    let end = LateEnd { problem: ProblemKind::QueuePaused, after, late_attempts: 0 };
    assert_eq!(late_end(once, None), end);
}

#[test]
fn the_first_reply_is_expected_after_a_round_trip_at_the_earliest() {
    let prefix = Subject::new("test").unwrap();
    let queue = GatewayQueue::new(0, &QueueName::new("far").unwrap(), &prefix).unwrap();
    queue.timing.set_link_round_trip(SECOND);
    let estimate = queue.timing.estimate(&EndpointId::new("e").unwrap());
    assert_eq!((estimate.first_reply, estimate.answer), (SECOND, Duration::ZERO));
}

#[test]
fn a_request_whose_worker_is_lost_at_the_deadline_is_not_sent_again() {
    let start = Instant::now();
    let mut session = Session::new(SessionOptions { attempts: 5, ..options() }, start);
    let mut step = |event: SessionEvent, now: Instant| {
        let mut actions = Vec::new();
        let may_resubmit = &mut || true;
        session.step(event, &mut StepContext { now, may_resubmit, actions: &mut actions });
        (actions, session.wake_at())
    };
    step(SessionEvent::Start { is_linked: true, wait_for: None }, start);
    let reply = Ok(Reply::Progress { control: None });
    let progress_at = start + options().timeout - SECOND * 3 + Duration::from_millis(50);
    let (_, lost_at) = step(SessionEvent::Reply { attempt: 1, reply }, progress_at);
    assert_eq!(lost_at, progress_at + SECOND * 3);
    let (actions, _) = step(SessionEvent::Timer, lost_at);
    let is_sent = actions.iter().any(|action| matches!(action, SessionAction::Publish { .. }));
    let end = SessionEnd::Problem(ProblemKind::AttemptTimedOut);
    assert!(!is_sent && actions.contains(&SessionAction::End(end)), "{actions:?}");
}
