//! Pools: one for all queues of a database, first come first served, no login once it is warm.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ProcedureName, QueueName};
use fjord::config::procedures::PoolConfig;
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{BackendErrorKind, Call, CallError, Outcome, OwnedCell, Transaction};
use futures_util::future::join_all;
use futures_util::poll;
use tokio::time::{Instant, timeout};

use super::{Answer, Caller, LONG, int, kind, text, unsent};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{Server, endpoint, servers};
use crate::support::tds::State;

/// Shorter than the slow procedure, longer than everything else.
const SHORT: Duration = Duration::from_millis(300);

fn state(server: &Server) -> Arc<State> {
    Arc::clone(&server.endpoint.as_ref().expect("the endpoint").state)
}

/// A call that the endpoint's ledger remembers in the order of its start.
async fn write(caller: &Caller, id: String, cancel: &Cancel) -> Result<Outcome, CallError> {
    let procedure = ProcedureName::new("ledger.write").expect("a name");
    let arguments = [int("ms", 1), text("request_id", &id)];
    let call = Call {
        queue: &caller.queue,
        procedure: &procedure,
        arguments: &arguments,
        deadline: Instant::now() + LONG,
        may_repeat: false,
        transaction: Transaction::None,
    };
    caller.backend.call(call, &mut Answer::default(), cancel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queues_share_their_connections_without_a_login_once_these_are_open() {
    let mut server = endpoint().await;
    server.config.connections_max = 16;
    let caller = Caller::of(&server);
    let tasks = Tasks::new();
    let callers: Vec<_> = (0..40)
        .map(|number| {
            let caller = caller.with_queue(&format!("queue-{}", number % 20));
            tasks.spawn(async move {
                for _ in 0..100 {
                    caller.call("returns", &[int("status", 1)]).await.expect("an answer");
                }
            })
        })
        .collect();
    for one in callers {
        one.await.expect("no panic");
    }
    assert_eq!(state(&server).runs("fjord_test.returns"), 4000);
    let logins = state(&server).logins();
    assert!(logins <= 16, "{logins} logins for 16 connections");
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_coming_whatever_the_queue() {
    let mut server = endpoint().await;
    server.config.connections_max = 1;
    let caller = Caller::of(&server);
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 300)]).await });
    eventually(SOON, TICK, || state(&server).runs("fjord_test.slow") == 1).await;
    let callers: Vec<_> = (0..12).map(|n| caller.with_queue(&format!("queue-{}", n % 5))).collect();
    let leaves = Cancel::new();
    let stays = Cancel::new();
    let mut calls = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        // Every third one leaves, dropped or cancelled, before its turn comes.
        let cancel = if number % 3 == 2 { &leaves } else { &stays };
        let mut call = Box::pin(write(caller, number.to_string(), cancel));
        assert!(poll!(&mut call).is_pending(), "{number} waits");
        calls.push(call);
    }
    drop(calls.remove(5));
    leaves.cancel();
    let ended = join_all(calls).await;
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 8);
    let cancelled = ended.iter().filter_map(|one| one.as_ref().err());
    assert!(cancelled.clone().all(|error| matches!(error, CallError::NotSent(error)
        if error.kind == BackendErrorKind::Cancelled)));
    assert_eq!(cancelled.count(), 3);
    let order = state(&server).ledger.lock().expect("not poisoned").clone();
    assert_eq!(order, ["0", "1", "3", "4", "6", "7", "9", "10"]);
    assert!(busy.await.expect("no panic").is_ok());
    assert_eq!(state(&server).logins(), 1);
}

#[tokio::test]
async fn who_leaves_while_its_connection_is_made_leaves_it_to_the_next() {
    let server = endpoint().await;
    state(&server).login_ms.store(300, Ordering::Release);
    let caller = Caller::of(&server);
    assert!(timeout(SHORT / 3, caller.call("nothing", &[])).await.is_err());
    let cancel = Cancel::new();
    let mut call = Box::pin(caller.call_within(LONG, &cancel, "nothing", &[]));
    assert!(poll!(&mut call).is_pending());
    cancel.cancel();
    assert_eq!(unsent(call.await), BackendErrorKind::Cancelled);
    assert!(caller.call("nothing", &[]).await.is_ok());
    let state = state(&server);
    assert_eq!((state.attempts.load(Ordering::Acquire), state.logins()), (1, 1));
    assert_eq!(state.runs("fjord_test.nothing"), 1);
}

#[tokio::test]
async fn who_waits_is_served_by_what_there_is_while_no_more_can_be_made() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    caller.call("nothing", &[]).await.expect("a connection");
    state(&server).login_error.store(18456, Ordering::Release);
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 300)]).await });
    eventually(SOON, TICK, || state(&server).runs("fjord_test.slow") == 1).await;
    // Three more would be allowed, and the server refuses them.
    let waiting = (0..3).map(|_| caller.call("nothing", &[]));
    for answer in join_all(waiting).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert!(busy.await.expect("no panic").is_ok());
    assert!(state(&server).attempts.load(Ordering::Acquire) <= 4);
}

#[tokio::test]
async fn a_wrong_password_costs_one_attempt_whoever_asks() {
    let mut server = endpoint().await;
    server.config.connections_max = 64;
    state(&server).login_ms.store(100, Ordering::Release);
    state(&server).login_error.store(18456, Ordering::Release);
    let caller = Caller::of(&server);
    let all = join_all((0..64).map(|_| caller.call("nothing", &[]))).await;
    for answer in all {
        let Err(CallError::NotSent(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.kind, BackendErrorKind::Unavailable);
        let cause = error.source.expect("a cause").to_string();
        assert!(cause.contains("Login failed"), "{cause}");
    }
    assert_eq!(state(&server).attempts.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn a_connection_past_its_age_is_replaced_and_nobody_notices() {
    let mut server = endpoint().await;
    server.config.connections_max = 2;
    server.config.connection_age_max = Duration::from_millis(100);
    let caller = Caller::of(&server);
    let started = std::time::Instant::now();
    while started.elapsed() < SHORT * 2 {
        let all = join_all((0..6).map(|_| caller.call("nothing", &[]))).await;
        assert!(all.iter().all(Result::is_ok));
    }
    let logins = state(&server).logins();
    assert!((4..=40).contains(&logins), "{logins}");
    assert!(state(&server).sessions.load(Ordering::Acquire) <= 2);
}

#[tokio::test]
async fn connections_are_bounded_over_all_queues() {
    for mut server in servers().await {
        server.config.connections_max = 2;
        let caller = Caller::of(&server);
        // Both are in use at once only when it is known how to call it.
        caller.call("slow", &[int("ms", 1)]).await.expect("an answer");
        let tasks = Tasks::new();
        let mut busy = Vec::new();
        for queue in ["one", "two"] {
            let caller = caller.with_queue(queue);
            busy.push(tasks.spawn(async move { caller.call("slow", &[int("ms", 1500)]).await }));
        }
        for call in &mut busy {
            assert!(timeout(SHORT, call).await.is_err(), "{}: it runs", server.name);
        }
        let third = caller.with_queue("three");
        let error = unsent(third.call_within(SHORT, &Cancel::new(), "nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::PoolTimedOut, "{}", server.name);
        assert!(third.call("nothing", &[]).await.is_ok(), "{}", server.name);
        for call in busy {
            assert!(call.await.expect("no panic").is_ok(), "{}", server.name);
        }
        assert!(caller.backend.ping().await.is_ok(), "{}", server.name);
    }
}

fn pool(application_name: &str, connections_max: usize, queues: &[&str]) -> PoolConfig {
    let queues = queues.iter().map(|queue| QueueName::new(queue).expect("a name")).collect();
    PoolConfig { connections_max, queues, ..PoolConfig::new(application_name) }
}

#[tokio::test]
async fn a_dba_sees_the_program_name_that_queues_have_asked_for() {
    for mut server in servers().await {
        // PostgreSQL keeps ASCII alone of a program name.
        let own = if server.is_babelfish { "Reports, Munich" } else { "Berichte für München" };
        server.config.pools =
            vec![pool("fjord", 2, &["horse-get"]), pool(own, 1, &["census", "report"])];
        let caller = Caller::of(&server);
        for (queue, expected) in
            [("horse-get", "fjord"), ("census", own), ("unknown", "fjord"), ("report", own)]
        {
            let answer = caller.with_queue(queue).call("application", &[]).await.expect("a name");
            let name = OwnedCell::Text(expected.to_owned());
            assert_eq!(*answer.cell(), name, "{}: {queue}", server.name);
        }
        if server.endpoint.is_some() {
            assert_eq!(state(&server).logins(), 2, "queues of one name share a connection");
        }
    }
}

#[tokio::test]
async fn a_pool_of_its_own_is_not_held_up_by_the_others() {
    let mut server = endpoint().await;
    server.config.pools = vec![pool("fjord", 1, &["one"]), pool("own", 1, &["census"])];
    let caller = Caller::of(&server);
    let busy = caller.with_queue("one");
    let running = Tasks::new().spawn(async move { busy.call("slow", &[int("ms", 2000)]).await });
    eventually(SOON, TICK, || state(&server).runs("fjord_test.slow") == 1).await;
    let waiting = caller.with_queue("two");
    let error = unsent(waiting.call_within(SHORT, &Cancel::new(), "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::PoolTimedOut);
    let own = caller.with_queue("census");
    assert!(own.call_within(SHORT, &Cancel::new(), "nothing", &[]).await.is_ok());
    running.abort();
}

#[tokio::test]
async fn a_reload_gives_a_pool_more_connections_and_takes_them_back() {
    let mut server = endpoint().await;
    server.config.pools = vec![pool("fjord", 1, &["one"])];
    let caller = Caller::of(&server);
    let both = async |caller: &Caller| {
        let slow = [int("ms", 200)];
        let started = std::time::Instant::now();
        let answers = join_all((0..2).map(|_| caller.call("slow", &slow))).await;
        assert!(answers.iter().all(Result::is_ok));
        started.elapsed()
    };
    assert!(both(&caller).await >= Duration::from_millis(400));
    let mut config = server.config.clone();
    config.pools = vec![pool("fjord", 2, &["one"])];
    caller.backend.resize(&fjord::config::procedures::DatabaseConfig::Mssql(config.clone()));
    assert!(both(&caller).await < Duration::from_millis(400));
    assert_eq!(state(&server).sessions.load(Ordering::Acquire), 2);
    config.pools = vec![pool("fjord", 1, &["one"])];
    caller.backend.resize(&fjord::config::procedures::DatabaseConfig::Mssql(config));
    both(&caller).await;
    eventually(SOON, TICK, || state(&server).sessions.load(Ordering::Acquire) == 1).await;
}

/// The next connections are closed as soon as they are made: each is a turn of the first in the line.
#[tokio::test]
async fn who_is_given_a_closed_connection_keeps_its_place() {
    let mut server = endpoint().await;
    server.config.connections_max = 1;
    let caller = Caller::of(&server);
    write(&caller, "warm".to_owned(), &Cancel::new()).await.expect("an answer");
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 30_000)]).await });
    eventually(SOON, TICK, || state(&server).runs("fjord_test.slow") == 1).await;
    let stays = Cancel::new();
    let mut calls = Vec::new();
    for number in 0..4 {
        let mut call = Box::pin(write(&caller, format!("{number}"), &stays));
        assert!(poll!(&mut call).is_pending());
        calls.push(call);
    }
    state(&server).closes_after_login.store(2, Ordering::Release);
    state(&server).hang_up();
    for ended in join_all(calls).await {
        ended.expect("an answer");
    }
    kind(busy.await.expect("no panic"));
    assert_eq!(*state(&server).ledger.lock().expect("not poisoned"), ["warm", "0", "1", "2", "3"]);
}

#[tokio::test]
async fn of_many_calls_of_a_procedure_that_is_not_known_one_reads_it() {
    let mut server = endpoint().await;
    server.config.connections_max = 16;
    state(&server).signatures_ms.store(200, Ordering::Release);
    let caller = Caller::of(&server);
    let (reads, gone) = (|| state(&server).signature_reads.load(Ordering::Acquire), Cancel::new());
    let status = [int("status", 1)];
    // Whoever reads it leaves, and another does so. One has too little time to wait for that.
    let mut reader = Box::pin(caller.call_within(LONG, &gone, "returns", &status));
    assert!(poll!(&mut reader).is_pending());
    let all = join_all((0..64).map(|_| caller.call("returns", &status)));
    let leaving = async {
        eventually(SOON, TICK, || reads() == 1).await;
        gone.cancel();
    };
    let (started, forever) = (Instant::now(), Cancel::new());
    let hasty = caller.call_within(SHORT / 6, &forever, "returns", &status);
    let hasty = async { (hasty.await, started.elapsed()) };
    let (left, all, (late, took), ()) = tokio::join!(reader, all, hasty, leaving);
    assert_eq!(unsent(late), BackendErrorKind::TimedOut);
    assert!(took < SHORT, "{took:?}");
    assert!(left.is_ok() || matches!(left, Err(CallError::NotSent(_))), "{left:?}");
    for answer in all {
        assert_eq!(answer.expect("an answer").outcome.return_status, 1);
    }
    assert!(reads() <= 2, "{} reads", reads());
}

#[tokio::test]
async fn of_many_calls_of_a_procedure_that_was_dropped_one_looks_for_it() {
    let mut server = endpoint().await;
    server.config.connections_max = 16;
    state(&server).signatures_ms.store(200, Ordering::Release);
    let dropped = ["fjord_test.returns".to_owned()];
    state(&server).dropped.lock().expect("not poisoned").extend(dropped);
    let caller = Caller::of(&server);
    let reads = || state(&server).signature_reads.load(Ordering::Acquire);
    let status = [int("status", 1)];
    for answer in join_all((0..64).map(|_| caller.call("returns", &status))).await {
        assert!(matches!(unsent(answer), BackendErrorKind::Mismatch { .. }));
    }
    assert_eq!(reads(), 1);
    // It is looked for again, and found.
    state(&server).dropped.lock().expect("not poisoned").clear();
    for answer in join_all((0..64).map(|_| caller.call("returns", &status))).await {
        answer.expect("an answer");
    }
    assert_eq!(reads(), 2);
}
