//! Promise: the queues of a database share its connections, calls get a connection in order of
//! arrival, and a pool with open connections needs no logins.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ProcedureName, QueueName};
use fjord::config::procedures::{DatabaseConfig, PoolConfig};
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{
    BackendErrorKind, Call, CallError, OwnedCell, ProcedureResult, SessionContext, Transaction,
};
use futures_util::future::join_all;
use futures_util::poll;
use tokio::time::{Instant, timeout};

use super::{CallAnswer, LONG, ProcedureCaller, int, sent_error, text, unsent_error};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{fake_server, servers};

/// A time limit that is shorter than the slow procedure, but longer than any other procedure.
const SHORT: Duration = Duration::from_millis(300);

/// Calls the procedure whose executions the fake server records in order.
async fn write(
    caller: &ProcedureCaller,
    id: String,
    cancel: &Cancel,
) -> Result<ProcedureResult, CallError> {
    let procedure = ProcedureName::new("ledger.write").expect("a name");
    let arguments = [int("ms", 1), text("request_id", &id)];
    let call = Call {
        queue: &caller.queue,
        procedure: &procedure,
        arguments: &arguments,
        session: SessionContext::default(),
        deadline: Instant::now() + LONG,
        may_repeat: false,
        transaction: Transaction::None,
    };
    caller.backend.call(call, &mut CallAnswer::default(), cancel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queues_share_their_connections_without_further_logins() {
    let mut server = fake_server().await;
    server.config.connections_max = 16;
    let caller = ProcedureCaller::new(&server);
    let tasks = Tasks::new();
    let callers: Vec<_> = (0..40)
        .map(|number| {
            let caller = caller.with_queue(&format!("queue-{}", number % 20));
            tasks.spawn(async move {
                for _ in 0..100 {
                    caller.call("returns", &[int("status", 1)]).await.expect("the call succeeds");
                }
            })
        })
        .collect();
    for one in callers {
        one.await.expect("no panic");
    }
    assert_eq!(server.state().runs("fjord_test.returns"), 4000);
    let logins = server.state().logins();
    assert!(logins <= 16, "{logins} logins for 16 connections");
}

#[tokio::test]
async fn waiters_of_all_queues_are_served_in_order_of_arrival() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let caller = ProcedureCaller::new(&server);
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 300)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    let callers: Vec<_> = (0..12).map(|n| caller.with_queue(&format!("queue-{}", n % 5))).collect();
    let cancelled = Cancel::new();
    let kept = Cancel::new();
    let mut calls = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        // Every third call is dropped or cancelled while it waits.
        let cancel = if number % 3 == 2 { &cancelled } else { &kept };
        let mut call = Box::pin(write(caller, number.to_string(), cancel));
        assert!(poll!(&mut call).is_pending(), "{number} waits");
        calls.push(call);
    }
    drop(calls.remove(5));
    cancelled.cancel();
    let ended = join_all(calls).await;
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 8);
    let failed = ended.iter().filter_map(|one| one.as_ref().err());
    assert!(failed.clone().all(|error| matches!(error, CallError::NotSent(error)
        if error.kind == BackendErrorKind::Cancelled)));
    assert_eq!(failed.count(), 3);
    let order = server.state().ledger.lock().expect("not poisoned").clone();
    assert_eq!(order, ["0", "1", "3", "4", "6", "7", "9", "10"]);
    assert!(busy.await.expect("no panic").is_ok());
    assert_eq!(server.state().logins(), 1);
}

#[tokio::test]
async fn a_connection_whose_waiter_gave_up_goes_to_the_next_call() {
    let server = fake_server().await;
    server.state().login_ms.store(300, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    assert!(timeout(SHORT / 3, caller.call("nothing", &[])).await.is_err());
    let cancel = Cancel::new();
    let mut call = Box::pin(caller.call_within(LONG, &cancel, "nothing", &[]));
    assert!(poll!(&mut call).is_pending());
    cancel.cancel();
    assert_eq!(unsent_error(call.await), BackendErrorKind::Cancelled);
    assert!(caller.call("nothing", &[]).await.is_ok());
    let state = server.state();
    assert_eq!((state.attempts.load(Ordering::Acquire), state.logins()), (1, 1));
    assert_eq!(state.runs("fjord_test.nothing"), 1);
}

#[tokio::test]
async fn waiters_are_served_by_open_connections_if_no_more_can_be_opened() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    caller.call("nothing", &[]).await.expect("the call succeeds");
    server.state().login_error.store(18456, Ordering::Release);
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 300)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    // The pool could open three more connections, but the server refuses the logins.
    let waiting = (0..3).map(|_| caller.call("nothing", &[]));
    for answer in join_all(waiting).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert!(busy.await.expect("no panic").is_ok());
    assert!(server.state().attempts.load(Ordering::Acquire) <= 4);
}

#[tokio::test]
async fn a_wrong_password_costs_one_attempt_for_all_calls() {
    let mut server = fake_server().await;
    server.config.connections_max = 64;
    server.state().login_ms.store(100, Ordering::Release);
    server.state().login_error.store(18456, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    let all = join_all((0..64).map(|_| caller.call("nothing", &[]))).await;
    for answer in all {
        let Err(CallError::NotSent(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.kind, BackendErrorKind::Unavailable);
        let cause = error.source.expect("a cause").to_string();
        assert!(cause.contains("Login failed"), "{cause}");
    }
    assert_eq!(server.state().attempts.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn a_connection_past_its_maximum_age_is_replaced_without_an_error() {
    let mut server = fake_server().await;
    server.config.connections_max = 2;
    server.config.connection_age_max = Duration::from_millis(100);
    let caller = ProcedureCaller::new(&server);
    let started = std::time::Instant::now();
    while started.elapsed() < SHORT * 2 {
        let all = join_all((0..6).map(|_| caller.call("nothing", &[]))).await;
        assert!(all.iter().all(Result::is_ok));
    }
    let logins = server.state().logins();
    assert!((4..=40).contains(&logins), "{logins}");
    assert!(server.state().connections.load(Ordering::Acquire) <= 2);
}

#[tokio::test]
async fn the_connections_of_all_queues_are_limited() {
    for mut server in servers().await {
        server.config.connections_max = 2;
        let caller = ProcedureCaller::new(&server);
        // This call reads the signature, so that the two later calls start at the same time.
        caller.call("slow", &[int("ms", 1)]).await.expect("the call succeeds");
        let tasks = Tasks::new();
        let mut busy = Vec::new();
        for queue in ["one", "two"] {
            let caller = caller.with_queue(queue);
            busy.push(tasks.spawn(async move { caller.call("slow", &[int("ms", 1500)]).await }));
        }
        for call in &mut busy {
            assert!(timeout(SHORT, call).await.is_err(), "{}: the call ended", server.name);
        }
        let third = caller.with_queue("three");
        let error = unsent_error(third.call_within(SHORT, &Cancel::new(), "nothing", &[]).await);
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
async fn a_dba_sees_the_application_name_of_the_queue() {
    for mut server in servers().await {
        // PostgreSQL keeps only ASCII in an application name.
        let own = if server.is_babelfish { "Reports, Munich" } else { "Berichte für München" };
        server.config.pools =
            vec![pool("fjord", 2, &["horse-get"]), pool(own, 1, &["census", "report"])];
        let caller = ProcedureCaller::new(&server);
        for (queue, expected) in
            [("horse-get", "fjord"), ("census", own), ("unknown", "fjord"), ("report", own)]
        {
            let answer =
                caller.with_queue(queue).call("application", &[]).await.expect("the call succeeds");
            let name = OwnedCell::Text(expected.to_owned());
            assert_eq!(*answer.cell(), name, "{}: {queue}", server.name);
        }
        if server.fake.is_some() {
            assert_eq!(server.state().logins(), 2, "queues with the same name share a connection");
        }
    }
}

#[tokio::test]
async fn a_separate_pool_is_not_blocked_by_the_others() {
    let mut server = fake_server().await;
    server.config.pools = vec![pool("fjord", 1, &["one"]), pool("own", 1, &["census"])];
    let caller = ProcedureCaller::new(&server);
    let busy = caller.with_queue("one");
    let running = Tasks::new().spawn(async move { busy.call("slow", &[int("ms", 2000)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    let waiting = caller.with_queue("two");
    let error = unsent_error(waiting.call_within(SHORT, &Cancel::new(), "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::PoolTimedOut);
    let own = caller.with_queue("census");
    assert!(own.call_within(SHORT, &Cancel::new(), "nothing", &[]).await.is_ok());
    running.abort();
}

#[tokio::test]
async fn a_reload_changes_the_number_of_connections() {
    let mut server = fake_server().await;
    server.config.pools = vec![pool("fjord", 1, &["one"])];
    let caller = ProcedureCaller::new(&server);
    let both = async |caller: &ProcedureCaller| {
        let slow = [int("ms", 200)];
        let started = std::time::Instant::now();
        let answers = join_all((0..2).map(|_| caller.call("slow", &slow))).await;
        assert!(answers.iter().all(Result::is_ok));
        started.elapsed()
    };
    assert!(both(&caller).await >= Duration::from_millis(400));
    let mut config = server.config.clone();
    config.pools = vec![pool("fjord", 2, &["one"])];
    caller.backend.reconfigure(&DatabaseConfig::Mssql(config.clone().into()));
    assert!(both(&caller).await < Duration::from_millis(400));
    assert_eq!(server.state().connections.load(Ordering::Acquire), 2);
    config.pools = vec![pool("fjord", 1, &["one"])];
    caller.backend.reconfigure(&DatabaseConfig::Mssql(config.into()));
    both(&caller).await;
    eventually(SOON, TICK, || server.state().connections.load(Ordering::Acquire) == 1).await;
}

#[tokio::test]
async fn a_reload_gives_queues_other_pools_and_calls_that_wait_still_get_a_connection() {
    let mut server = fake_server().await;
    server.config.pools = vec![pool("fjord", 1, &["one"]), pool("old", 1, &["census"])];
    let caller = ProcedureCaller::new(&server);
    let name = async |caller: &ProcedureCaller, queue: &str| {
        let answer = caller.with_queue(queue).call("application", &[]).await;
        answer.expect("the call succeeds").cell().clone()
    };
    let text = |name: &str| OwnedCell::Text(name.to_owned());
    assert_eq!(name(&caller, "census").await, text("old"));
    let (busy, waits) = (caller.with_queue("census"), caller.with_queue("census"));
    let running = Tasks::new().spawn(async move { busy.call("slow", &[int("ms", 300)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    let waiting = Tasks::new().spawn(async move { waits.call("nothing", &[]).await });
    let mut config = server.config.clone();
    config.pools = vec![pool("fjord", 1, &["one"]), pool("new", 1, &["census", "added"])];
    caller.backend.reconfigure(&DatabaseConfig::Mssql(config.into()));
    for queue in ["census", "added"] {
        assert_eq!(name(&caller, queue).await, text("new"), "{queue}");
    }
    assert_eq!(name(&caller, "one").await, text("fjord"));
    assert!(running.await.expect("no panic").is_ok());
    assert!(waiting.await.expect("no panic").is_ok());
}

/// The server closes the next two connections after login, so the first waiter gets closed
/// connections.
#[tokio::test]
async fn a_waiter_that_gets_a_closed_connection_keeps_its_place() {
    let mut server = fake_server().await;
    server.config.connections_max = 1;
    let caller = ProcedureCaller::new(&server);
    write(&caller, "warm".to_owned(), &Cancel::new()).await.expect("an answer");
    let first = caller.clone();
    let busy = Tasks::new().spawn(async move { first.call("slow", &[int("ms", 30_000)]).await });
    eventually(SOON, TICK, || server.state().runs("fjord_test.slow") == 1).await;
    let never = Cancel::new();
    let mut calls = Vec::new();
    for number in 0..4 {
        let mut call = Box::pin(write(&caller, format!("{number}"), &never));
        assert!(poll!(&mut call).is_pending());
        calls.push(call);
    }
    server.state().closes_after_login.store(2, Ordering::Release);
    server.state().close_connections();
    for ended in join_all(calls).await {
        ended.expect("the call succeeds");
    }
    sent_error(busy.await.expect("no panic"));
    assert_eq!(*server.state().ledger.lock().expect("not poisoned"), ["warm", "0", "1", "2", "3"]);
}

#[tokio::test]
async fn one_of_many_calls_reads_an_unknown_signature() {
    let mut server = fake_server().await;
    server.config.connections_max = 16;
    server.state().signatures_ms.store(200, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    let (reads, cancel) =
        (|| server.state().signature_reads.load(Ordering::Acquire), Cancel::new());
    let status = [int("status", 1)];
    // The call that reads the signature is cancelled, so another call reads it. A third call has
    // too little time to wait for the signature.
    let mut reader = Box::pin(caller.call_within(LONG, &cancel, "returns", &status));
    assert!(poll!(&mut reader).is_pending());
    let all = join_all((0..64).map(|_| caller.call("returns", &status)));
    let disconnect = async {
        eventually(SOON, TICK, || reads() == 1).await;
        cancel.cancel();
    };
    let (started, forever) = (Instant::now(), Cancel::new());
    let hasty = caller.call_within(SHORT / 6, &forever, "returns", &status);
    let hasty = async { (hasty.await, started.elapsed()) };
    let (left, all, (late, took), ()) = tokio::join!(reader, all, hasty, disconnect);
    assert_eq!(unsent_error(late), BackendErrorKind::TimedOut);
    assert!(took < SHORT, "{took:?}");
    assert!(left.is_ok() || matches!(left, Err(CallError::NotSent(_))), "{left:?}");
    for answer in all {
        assert_eq!(answer.expect("the call succeeds").result.return_status, 1);
    }
    assert!(reads() <= 2, "{} reads", reads());
}

#[tokio::test]
async fn one_of_many_calls_looks_for_a_missing_procedure() {
    let mut server = fake_server().await;
    server.config.connections_max = 16;
    server.state().signatures_ms.store(200, Ordering::Release);
    let dropped = ["fjord_test.returns".to_owned()];
    server.state().dropped.lock().expect("not poisoned").extend(dropped);
    let caller = ProcedureCaller::new(&server);
    let reads = || server.state().signature_reads.load(Ordering::Acquire);
    let status = [int("status", 1)];
    for answer in join_all((0..64).map(|_| caller.call("returns", &status))).await {
        assert!(matches!(unsent_error(answer), BackendErrorKind::Mismatch { .. }));
    }
    assert_eq!(reads(), 1);
    // Later calls look for the procedure again and find it.
    server.state().dropped.lock().expect("not poisoned").clear();
    for answer in join_all((0..64).map(|_| caller.call("returns", &status))).await {
        answer.expect("the call succeeds");
    }
    assert_eq!(reads(), 2);
}
