//! Cancels: a call that takes long is stopped, a short one runs to its end; either way the connection serves the next
//! call, unless it cannot be proved that nothing of the old one is left to come.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{
    Argument, BackendErrorKind, CallError, OwnedCell, SentErrorKind, SinkError, Transaction,
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::{Answer, Caller, LONG, given, int, kind, text, unsent};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{Server, endpoint, servers};
use crate::support::tds::State;

/// Shorter than the slow procedure, longer than everything else, and than a connection costs.
const SHORT: Duration = Duration::from_millis(300);
/// Too short for a cancel to pay.
const YOUNG: Duration = Duration::from_millis(40);
/// How long the slow procedure takes: the call must not wait for its end.
const SLOW_MS: i64 = 30_000;
/// How soon a long call is stopped after its client left.
const STOPPED: Duration = Duration::from_millis(500);

fn state(server: &Server) -> Arc<State> {
    Arc::clone(&server.endpoint.as_ref().expect("the endpoint").state)
}

fn attentions(server: &Server) -> usize {
    state(server).attentions.load(Ordering::Acquire)
}

/// A call whose client leaves after so long.
async fn left_after(
    caller: &Caller,
    time: Duration,
    (procedure, arguments): (&str, &[Argument]),
) -> Result<Answer, CallError> {
    let cancel = Cancel::new();
    let leaving = async {
        let _over = timeout(time, pending::<()>()).await;
        cancel.cancel();
    };
    tokio::join!(caller.call_within(LONG * 2, &cancel, procedure, arguments), leaving).0
}

/// The connection of the next call, and that its answer is its own.
async fn next(caller: &Caller, server: &Server) -> OwnedCell {
    for status in [-7, 8, 9] {
        let answer = caller.call("returns", &[int("status", status)]).await.expect("its own");
        assert_eq!(i64::from(answer.outcome.return_status), status, "{}", server.name);
        assert!(answer.sets.is_empty(), "{}", server.name);
    }
    caller.call("process", &[]).await.expect("an id").cell().clone()
}

#[tokio::test]
async fn a_short_call_whose_client_left_runs_to_its_end() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = next(&caller, &server).await;
        // A procedure's first call takes longer.
        caller.call("slow", &[int("ms", 1)]).await.expect("an answer");
        let answer = left_after(&caller, YOUNG, ("slow", &[int("ms", 80)])).await;
        assert_eq!(*answer.expect("its end").cell(), OwnedCell::Int(1), "{}", server.name);
        assert_eq!(before, next(&caller, &server).await, "{}", server.name);
        if server.endpoint.is_some() {
            assert_eq!((attentions(&server), state(&server).logins()), (0, 1));
        }
    }
}

#[tokio::test]
async fn a_long_call_is_stopped_soon_after_its_client_left() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = next(&caller, &server).await;
        // Babelfish hears no cancel while a statement runs: it costs the connection, after the time for it.
        let deaf = if server.is_babelfish { server.config.cancel_timeout } else { Duration::ZERO };
        for time in [YOUNG, SHORT] {
            let started = Instant::now();
            let error = kind(left_after(&caller, time, ("slow", &[int("ms", SLOW_MS)])).await);
            assert_eq!(error, SentErrorKind::Cancelled, "{}", server.name);
            let took = started.elapsed().saturating_sub(time + deaf);
            assert!(took < STOPPED, "{}: {took:?}", server.name);
            if !server.is_babelfish {
                assert_eq!(before, next(&caller, &server).await, "{}", server.name);
            }
        }
        if server.endpoint.is_some() {
            assert_eq!((attentions(&server), state(&server).logins()), (2, 1));
        }
    }
}

#[tokio::test]
async fn a_call_ends_with_its_deadline_and_its_connection_is_kept() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = next(&caller, &server).await;
        let started = Instant::now();
        let slow = [int("ms", SLOW_MS)];
        let error = kind(caller.call_within(SHORT, &Cancel::new(), "slow", &slow).await);
        assert_eq!(error, SentErrorKind::TimedOut, "{}", server.name);
        let limit = SHORT + server.config.cancel_timeout + Duration::from_secs(1);
        assert!(started.elapsed() < limit, "{}: {:?}", server.name, started.elapsed());
        let after = next(&caller, &server).await;
        assert_eq!(before != after, server.is_babelfish, "{}", server.name);
    }
}

#[tokio::test]
async fn what_a_cancelled_call_left_open_is_rolled_back_at_once() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    let begins = [int("ms", SLOW_MS)];
    let error = kind(caller.call_within(SHORT, &Cancel::new(), "begins", &begins).await);
    assert_eq!(error, SentErrorKind::TimedOut);
    assert_eq!(state(&server).rollbacks.load(Ordering::Acquire), 1);
    let open = caller.call("transactions", &[]).await.expect("a count");
    assert_eq!(*open.cell(), OwnedCell::Int(0));
    assert_eq!(state(&server).logins(), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_wanted_costs_no_connection() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = next(&caller, &server).await;
        for count in [20, 3000, 200_000] {
            let mut answer = Answer { rows_max: Some(10), ..Answer::default() };
            let count = [int("count", count)];
            let ended = caller.call_into(&mut answer, LONG, &Cancel::new(), ("many", &count)).await;
            let too_large = SentErrorKind::Sink(SinkError::TooLarge);
            let is_told = matches!(&ended, Err(CallError::Sent(error)) if error.kind == too_large);
            assert!(is_told, "{}: {ended:?}", server.name);
            let after = next(&caller, &server).await;
            assert!(before == after || server.is_babelfish, "{}", server.name);
        }
    }
}

#[tokio::test]
async fn a_call_cancelled_before_it_was_sent_is_never_sent() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    let before = next(&caller, &server).await;
    let cancel = Cancel::new();
    cancel.cancel();
    let error = unsent(caller.call_within(LONG, &cancel, "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Cancelled);
    assert_eq!(before, next(&caller, &server).await);
    let state = state(&server);
    assert_eq!((state.runs("fjord_test.nothing"), attentions(&server)), (0, 0));
}

/// Whatever an acknowledgement does, the next calls get their own answers: with the connection kept where that is safe.
#[tokio::test]
async fn no_acknowledgement_ever_answers_another_call() {
    let bit = |value| given("together", ParameterValue::Boolean(value));
    for (procedure, arguments, is_kept) in [
        ("answers_late", vec![bit(false)], true),
        ("answers_late", vec![bit(true)], true),
        ("acknowledges", vec![int("after", 0), int("times", 1)], true),
        ("acknowledges", vec![int("after", 0), int("times", 2)], false),
        ("acknowledges", vec![int("after", 50), int("times", 1)], true),
        ("acknowledges", vec![int("after", 400), int("times", 1)], false),
        ("acknowledges", vec![int("after", 0), int("times", 0)], false),
        ("streams", vec![], true),
        ("stalls", vec![], false),
    ] {
        let mut server = endpoint().await;
        server.config.cancel_timeout = Duration::from_millis(200);
        let caller = Caller::of(&server);
        let before = next(&caller, &server).await;
        for _ in 0..3 {
            let ended = caller.call_within(SHORT, &Cancel::new(), procedure, &arguments).await;
            assert_eq!(kind(ended), SentErrorKind::TimedOut, "{procedure}");
            let after = next(&caller, &server).await;
            assert_eq!(before == after, is_kept, "{procedure} {arguments:?}");
        }
        let of_connections = state(&server);
        eventually(SOON, TICK, || of_connections.sessions.load(Ordering::Acquire) == 1).await;
    }
}

#[tokio::test]
async fn clients_that_leave_cost_no_connection() {
    let mut server = endpoint().await;
    server.config.connections_max = 8;
    let caller = Caller::of(&server);
    for round in 0..20 {
        let calls = (0..24).map(|number| {
            let caller = caller.clone();
            async move {
                let time = Duration::from_millis(number % 12);
                let _either = left_after(&caller, time, ("slow", &[int("ms", 8)])).await;
            }
        });
        join_all(calls).await;
        assert!(state(&server).logins() <= 8, "round {round}: {}", state(&server).logins());
    }
    assert_eq!(attentions(&server), 0);
}

#[tokio::test]
async fn what_a_connection_costs_is_measured() {
    let server = endpoint().await;
    state(&server).login_ms.store(900, Ordering::Release);
    let caller = Caller::of(&server);
    caller.call("nothing", &[]).await.expect("a connection");
    // Longer than any default, shorter than this server's login.
    let answer = left_after(&caller, YOUNG, ("slow", &[int("ms", 600)])).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(attentions(&server), 0);
}

#[tokio::test]
async fn a_closed_backend_ends_its_calls_at_once() {
    for server in servers().await {
        let caller = Caller::of(&server);
        caller.call("nothing", &[]).await.expect("a connection");
        let running = caller.clone();
        let mut call =
            Tasks::new().spawn(async move { running.call("slow", &[int("ms", SLOW_MS)]).await });
        assert!(timeout(YOUNG * 2, &mut call).await.is_err(), "{}: it runs", server.name);
        let started = Instant::now();
        caller.backend.close().await;
        let error = kind(call.await.expect("no panic"));
        assert_eq!(error, SentErrorKind::Cancelled, "{}", server.name);
        let limit = server.config.cancel_timeout + STOPPED;
        assert!(started.elapsed() < limit, "{}: {:?}", server.name, started.elapsed());
        let error = unsent(caller.call("nothing", &[]).await);
        assert!(matches!(error, BackendErrorKind::Cancelled | BackendErrorKind::Unavailable));
    }
}

/// The client leaves while the worker begins the transaction, or the driver asks for the columns of a table.
#[tokio::test]
async fn a_call_that_is_cancelled_before_it_was_sent_never_starts() {
    let cases = [(Transaction::Committed, 1), (Transaction::Committed, 2), (Transaction::None, 1)];
    for (transaction, batches) in cases {
        let server = endpoint().await;
        let caller = Caller { transaction, ..Caller::of(&server) };
        let columns: Arc<[_]> = Arc::new([("name".into(), ParameterType::String)]);
        let rows = vec![vec![ParameterValue::Null]];
        let names = [Argument { columns, ..given("names", ParameterValue::Table(rows)) }];
        caller.call("names", &names).await.expect("an answer");
        let before = next(&caller, &server).await;
        state(&server).batch_ms.store(100, Ordering::Release);
        let cancel = Cancel::new();
        let seen = || state(&server).slow_batches.load(Ordering::Acquire) == batches;
        let leaving = async {
            eventually(SOON, TICK, seen).await;
            cancel.cancel();
        };
        let ended = tokio::join!(caller.call_within(LONG, &cancel, "names", &names), leaving).0;
        assert_eq!(unsent(ended), BackendErrorKind::Cancelled, "{transaction:?} {batches}");
        assert_eq!(state(&server).runs("fjord_test.names"), 1, "{transaction:?} {batches}");
        state(&server).batch_ms.store(0, Ordering::Release);
        let open = Caller::call(&caller, "transactions", &[]).await.expect("a count");
        let count = if transaction == Transaction::None { 0 } else { 2 };
        assert_eq!(*open.cell(), OwnedCell::Int(count), "{transaction:?} {batches}");
        assert_eq!(before, next(&caller, &server).await, "{transaction:?} {batches}");
        assert_eq!(state(&server).logins(), 1, "{transaction:?} {batches}");
    }
}

/// The client leaves while the worker rolls back what a failed call did.
#[tokio::test]
async fn a_roll_back_that_takes_long_is_given_up_with_its_connection() {
    let server = endpoint().await;
    let caller = Caller { transaction: Transaction::Committed, ..Caller::of(&server) };
    let script = [text("script", "INSERT left; THROW 50001")];
    // Longer than a connection takes to be made, so that it is worth a cancel.
    state(&server).batch_ms.store(400, Ordering::Release);
    let cancel = Cancel::new();
    let slow = || state(&server).slow_batches.load(Ordering::Acquire);
    let leaving = async {
        eventually(SOON, TICK, || slow() == 1).await;
        state(&server).batch_ms.store(600_000, Ordering::Release);
        eventually(SOON, TICK, || slow() == 2).await;
        cancel.cancel();
    };
    let calling = caller.call_within(10 * LONG, &cancel, "runs", &script);
    let both = timeout(LONG, async { tokio::join!(calling, leaving).0 }).await;
    let Err(CallError::Sent(error)) = both.expect("it does not wait for the server") else {
        panic!("another outcome")
    };
    assert!(!error.is_rolled_back, "nothing proves it: {error:?}");
    state(&server).batch_ms.store(0, Ordering::Release);
    caller.call("nothing", &[]).await.expect("another connection");
    assert_eq!(state(&server).logins(), 2);
}
