//! Promise: every request gets exactly one true answer, and an at-most-once request never runs twice.
//!
//! Seeded random schedules over the very state machines that the gateway and the worker run: messages are
//! lost, duplicated, delayed and reordered, workers crash and come back, clients leave. A failure prints
//! its seed; `FJORD_SIM_SEED` runs that one again and `FJORD_SIM_RUNS` sets how many are tried.

mod goodput;
mod streams;
mod terms;
mod things;
mod workers;
mod world;

use std::time::Duration;

use fjord::catalogue::{Execution, OnDisconnect};
use fjord::envelope::{Control, RefusalReason, Reply};
use fjord::message::Subject;
use fjord::roles::gateway::dispatch::session::{
    Action, Destination, Ending, Event, Session, Step, Terms, Why,
};
use terms::{Faults, Guards, Report};
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

fn check(faults: Faults) -> Report {
    let mut total = Report::default();
    for seed in runs() {
        let report = World::new(seed, faults, Guards::default()).run();
        assert_eq!(report.broken, None, "seed {seed}: FJORD_SIM_SEED={seed} runs it again");
        total.add(&report);
    }
    total
}

#[test]
fn a_quiet_network_answers_everything() {
    let total = check(Faults::NONE);
    assert_eq!(total.answered_200, total.requests, "{total:?}");
    assert_eq!(total.executions, total.requests, "and runs each once: {total:?}");
    assert!(total.streamed * 4 > total.requests, "many stream: {total:?}");
}

#[test]
fn more_callers_than_slots_are_served_in_turn() {
    let total = check(Faults { crowd: 12, ..Faults::NONE });
    assert_eq!(total.executions, total.answered_200, "{total:?}");
    assert_eq!(total.answered_200, total.requests, "{total:?}");
}

#[test]
fn whatever_is_lost_doubled_delayed_or_crashes() {
    let total = check(Faults::ALL);
    assert!(total.answered_200 * 2 > total.requests, "most are answered all the same: {total:?}");
    assert!(total.cut_off > 0 && total.streamed > total.cut_off, "answers end halfway: {total:?}");
    assert!(total.outcome_unknown > 0, "the schedules are harsh enough to matter: {total:?}");
}

#[test]
fn whatever_happens_over_a_long_way() {
    let far = Faults { latency: Duration::from_millis(200), ..Faults::ALL };
    let total = check(far);
    assert!(total.answered_200 * 2 > total.requests, "{total:?}");
}

#[test]
fn lost_messages_and_crashes_alone() {
    let total = check(Faults { duplicate: 0.0, ..Faults::ALL });
    assert!(total.answered_200 * 2 > total.requests, "{total:?}");
}

/// The checker itself: with a guard taken away it has to find a double.
#[test]
fn without_a_guard_the_checker_finds_a_double() {
    let careless = [
        Guards { worker_awaits_grant: false, ..Guards::default() },
        Guards { gateway_grants_once: false, ..Guards::default() },
        Guards { claim_times_out_for_good: false, ..Guards::default() },
    ];
    for guards in careless {
        let found =
            (0..RUNS).any(|seed| World::new(seed, Faults::ALL, guards).run().broken.is_some());
        assert!(found, "no double found without {guards:?}");
    }
}

/// The worker that offered a slot is gone. The queue may have others: the request must not wait as if it had none.
#[test]
fn an_offer_by_a_worker_that_is_gone_costs_an_attempt_and_no_waiting() {
    let now = Instant::now();
    let mut session = Session::new(terms(Execution::AtMostOnce), now);
    let mut step = |event| {
        let mut actions = Vec::new();
        session.step(event, &mut Step { now, may_resubmit: &mut || true, actions: &mut actions });
        actions
    };
    let heard = |attempt, reply| Event::Heard { attempt, reply: Ok(reply) };
    step(Event::Start { linked: true, free: true });
    let refused = Reply::Refused { reason: RefusalReason::Busy, control: None };
    assert_eq!(step(heard(1, refused)), [Action::Hold(Why::Busy)]);
    let offered = step(Event::Offered(Subject::new("fjord.w.q.1.o.1").unwrap()));
    assert!(matches!(offered[..], [Action::Unhold, Action::Publish { attempt: 2, .. }]));
    let gone = step(heard(2, Reply::NoResponders));
    let again = Action::Resubmitted("unavailable");
    assert!(
        matches!(&gone[..], [first, Action::Publish { attempt: 3, to: Destination::Group, .. }] if *first == again),
        "{gone:?}"
    );
    assert_eq!(step(heard(3, Reply::NoResponders)), [Action::Hold(Why::NoWorkers)]);
}

fn terms(execution: Execution) -> Terms {
    Terms {
        execution,
        on_disconnect: OnDisconnect::Finish,
        timeout: SECOND,
        session: SECOND * 10,
        attempts: 3,
        accept_timeout: SECOND,
        silence: SECOND * 3,
        answer_bytes_max: 1 << 20,
        keeps_answer: true,
        window: 0,
    }
}

/// A grant was lost, its client left, and then its worker said that it never started: nobody waits for it any more, so it
/// goes nowhere else. It would have run for nobody, beside the client's own second try.
#[test]
fn a_request_without_its_client_is_not_placed_again() {
    let now = Instant::now();
    let mut session = Session::new(terms(Execution::AtMostOnce), now);
    let mut step = |event| {
        let mut actions = Vec::new();
        session.step(event, &mut Step { now, may_resubmit: &mut || true, actions: &mut actions });
        actions
    };
    let control = Subject::new("fjord.w.q.1.j.1").unwrap();
    let heard = |reply| Event::Heard { attempt: 1, reply: Ok(reply) };
    assert_eq!(step(Event::Start { linked: true, free: true }).len(), 1, "it is sent");
    let granted = step(heard(Reply::Claim { control: control.clone() }));
    assert_eq!(granted, [Action::Tell { to: control.clone(), control: Control::Grant }]);
    assert_eq!(step(Event::ClientGone), [], "a granted call may come to its end");
    let refused = Reply::Refused { reason: RefusalReason::Unavailable, control: Some(control) };
    assert_eq!(step(heard(refused)), [Action::End(Ending::ClientGone)]);
}
