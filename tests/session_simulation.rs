//! Promise: every request gets exactly one correct answer, and an at-most-once request never runs twice.
//!
//! Runs the state machines of the gateway and the worker with random schedules. Messages are lost, duplicated, delayed
//! and reordered, workers crash and restart, and clients disconnect. A failure prints its seed. `FJORD_SIM_SEED`
//! repeats that seed, and `FJORD_SIM_RUNS` sets the number of seeds.

mod agenda;
mod gateway;
mod goodput;
mod network;
mod scenario;
mod streams;
mod workers;
mod world;

use std::time::Duration;

use fjord::catalogue::{Execution, OnDisconnect};
use fjord::envelope::{Control, RefusalReason, Reply};
use fjord::message::Subject;
use fjord::roles::gateway::dispatch::session::{
    Destination, ResubmitReason, Session, SessionAction, SessionEnd, SessionEvent, SessionOptions,
    StepContext, WaitReason,
};
use scenario::{Faults, Guards, RunReport};
use tokio::time::Instant;
use world::World;

const SECOND: Duration = Duration::from_secs(1);

const RUNS: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::vars().find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok())
}

fn runs() -> std::ops::Range<u64> {
    match number("FJORD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FJORD_SIM_RUNS").unwrap_or(RUNS),
    }
}

fn check(faults: Faults) -> RunReport {
    let mut total = RunReport::default();
    for seed in runs() {
        let report = World::new(seed, faults, Guards::default()).run();
        assert_eq!(report.violation, None, "seed {seed}: FJORD_SIM_SEED={seed} repeats the run");
        total.add(&report);
    }
    total
}

#[test]
fn without_faults_every_request_is_answered_and_executed_once() {
    let total = check(Faults::NONE);
    assert_eq!(total.answered_200, total.requests, "{total:?}");
    assert_eq!(total.executions, total.requests, "each request is executed once: {total:?}");
    assert!(total.streamed * 4 > total.requests, "many answers stream: {total:?}");
}

#[test]
fn more_requests_than_slots_are_all_answered() {
    let total = check(Faults { crowd: 12, ..Faults::NONE });
    assert_eq!(total.executions, total.answered_200, "{total:?}");
    assert_eq!(total.answered_200, total.requests, "{total:?}");
}

/// Workers cannot be heard during a stall and for some time after it, but none of them has failed.
#[test]
fn every_request_is_answered_when_the_network_stalls() {
    for stall in [SECOND * 2, SECOND * 4] {
        let calls = (SECOND / 1000, SECOND * 5);
        let total = check(Faults { stall, calls, crowd: 6, ..Faults::NONE });
        assert_eq!(total.answered_200, total.requests, "a stall of {stall:?}: {total:?}");
    }
}

#[test]
fn most_requests_are_answered_despite_all_faults() {
    let total = check(Faults::ALL);
    assert!(total.answered_200 * 2 > total.requests, "most requests are answered: {total:?}");
    assert!(
        total.cut_off > 0 && total.streamed > total.cut_off,
        "some answers are cut off: {total:?}"
    );
    assert!(total.outcome_unknown > 0, "the faults are frequent enough to matter: {total:?}");
}

#[test]
fn most_requests_are_answered_despite_all_faults_and_a_latency_of_200_milliseconds() {
    let far = Faults { latency: Duration::from_millis(200), ..Faults::ALL };
    let total = check(far);
    assert!(total.answered_200 * 2 > total.requests, "{total:?}");
}

#[test]
fn most_requests_are_answered_despite_loss_delays_and_crashes() {
    let total = check(Faults { duplicate: 0.0, ..Faults::ALL });
    assert!(total.answered_200 * 2 > total.requests, "{total:?}");
}

/// Tests the checker, which must find a double execution if one of the guards is disabled.
#[test]
fn without_a_guard_the_checker_finds_a_double_execution() {
    let without_a_guard = [
        Guards { worker_awaits_grant: false, ..Guards::default() },
        Guards { gateway_grants_once: false, ..Guards::default() },
        Guards { claim_times_out_for_good: false, ..Guards::default() },
    ];
    for guards in without_a_guard {
        let found =
            (0..RUNS).any(|seed| World::new(seed, Faults::ALL, guards).run().violation.is_some());
        assert!(found, "no double execution found without {guards:?}");
    }
}

/// Returns a function that passes an event to a new session and returns the resulting actions. Time does not advance.
fn session(execution: Execution) -> impl FnMut(SessionEvent) -> Vec<SessionAction> {
    let now = Instant::now();
    let mut session = Session::new(options(execution), now);
    move |event| {
        let mut actions = Vec::new();
        let (may_resubmit, actions_of_step) = (&mut || true, &mut actions);
        session.step(event, &mut StepContext { now, may_resubmit, actions: actions_of_step });
        actions
    }
}

fn options(execution: Execution) -> SessionOptions {
    SessionOptions {
        execution,
        on_disconnect: OnDisconnect::Finish,
        timeout: SECOND,
        session: SECOND * 10,
        attempts: 3,
        accept_timeout: SECOND,
        progress_timeout: SECOND * 3,
        answer_bytes_max: 1 << 20,
        keeps_answer: true,
        window: 0,
    }
}

const START: SessionEvent = SessionEvent::Start { is_linked: true, wait_for: None };

/// The worker that offered a slot no longer exists, but the queue may have other workers. The request must therefore
/// not wait as if there were none.
#[test]
fn a_request_to_the_offered_slot_of_a_lost_worker_is_sent_to_the_group_at_once() {
    let mut step = session(Execution::AtMostOnce);
    let replied = |attempt, reply| SessionEvent::Reply { attempt, reply: Ok(reply) };
    step(START);
    let refused = Reply::Refused { reason: RefusalReason::Busy, control: None };
    assert_eq!(step(replied(1, refused)), [SessionAction::JoinQueue(WaitReason::Busy)]);
    let slot = Subject::new("fjord.w.q.1.o.1").unwrap();
    let offered = step(SessionEvent::SlotOffered(slot));
    assert!(
        matches!(
            offered[..],
            [SessionAction::LeaveQueue, SessionAction::Publish { attempt: 2, .. }]
        ),
        "{offered:?}"
    );
    let gone = step(replied(2, Reply::NoResponders));
    assert!(
        matches!(
            gone[..],
            [
                SessionAction::CountResubmission(ResubmitReason::Refused(
                    RefusalReason::Unavailable
                )),
                SessionAction::Publish { attempt: 3, to: Destination::Group, .. }
            ]
        ),
        "{gone:?}"
    );
    let waiting = [SessionAction::JoinQueue(WaitReason::NoWorkers)];
    assert_eq!(step(replied(3, Reply::NoResponders)), waiting);
}

/// The grant is lost, the client disconnects, and then the worker reports that it will never start the call. The client
/// may have sent the request again, so the first request must not be sent to another worker.
#[test]
fn a_refused_request_is_not_sent_again_after_its_client_has_disconnected() {
    let mut step = session(Execution::AtMostOnce);
    let control = Subject::new("fjord.w.q.1.j.1").unwrap();
    let replied = |reply| SessionEvent::Reply { attempt: 1, reply: Ok(reply) };
    assert_eq!(step(START).len(), 1, "the request is sent");
    let claimed = step(replied(Reply::Claim { control: control.clone() }));
    let grant = SessionAction::SendControl { to: control.clone(), control: Control::Grant };
    assert_eq!(claimed, [grant]);
    assert_eq!(step(SessionEvent::ClientGone), [], "a granted call may finish");
    let refused = Reply::Refused { reason: RefusalReason::Unavailable, control: Some(control) };
    assert_eq!(step(replied(refused)), [SessionAction::End(SessionEnd::ClientGone)]);
}
