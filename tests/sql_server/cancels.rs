//! Promise: a cancelled call is stopped if it is long, and runs to completion if it is short. Its
//! connection serves the next call, unless it is uncertain whether the answer was read completely.

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

use super::{CallAnswer, LONG, ProcedureCaller, given, int, sent_error, text, unsent_error};
use crate::support::eventually::{SOON, TICK, eventually};
use crate::support::mssql_server::{SqlServer, fake_server, servers};

/// A time limit that is shorter than the slow procedure, but longer than any other procedure and
/// than opening a connection.
const SHORT: Duration = Duration::from_millis(300);
/// A time that is shorter than the minimum cost of a connection (250 ms). A call that is cancelled
/// after this time runs for at least that cost before it is stopped.
const YOUNG: Duration = Duration::from_millis(40);
/// The duration of the slow procedure. The call must end before the procedure does.
const SLOW_MS: i64 = 30_000;
/// The time limit for stopping a long call after its client has disconnected.
const STOPPED: Duration = Duration::from_millis(500);

fn attentions(server: &SqlServer) -> usize {
    server.state().attentions.load(Ordering::Acquire)
}

/// Makes a call and cancels it after `time`.
async fn cancelled_after(
    caller: &ProcedureCaller,
    time: Duration,
    (procedure, arguments): (&str, &[Argument]),
) -> Result<CallAnswer, CallError> {
    let cancel = Cancel::new();
    let disconnect = async {
        let _over = timeout(time, pending::<()>()).await;
        cancel.cancel();
    };
    tokio::join!(caller.call_within(LONG * 2, &cancel, procedure, arguments), disconnect).0
}

/// The maximum number of attempts to make a call that has already been sent when it is cancelled.
const TRIES: usize = 10;

/// Makes the slow call and cancels it after this time. Returns the error, and the time from the
/// cancel to the end of the call. On a slow machine, the call may not have been sent by then. In
/// that case, it is made again, because only a call that was sent can be stopped.
async fn stopped_after(caller: &ProcedureCaller, time: Duration) -> (SentErrorKind, Duration) {
    for _ in 0..TRIES {
        let started = Instant::now();
        let ended = cancelled_after(caller, time, ("slow", &[int("ms", SLOW_MS)])).await;
        let took = started.elapsed().saturating_sub(time);
        if !is_unsent_and_cancelled(&ended) {
            return (sent_error(ended), took);
        }
    }
    panic!("the call was never sent within {time:?}")
}

fn is_unsent_and_cancelled(ended: &Result<CallAnswer, CallError>) -> bool {
    matches!(ended, Err(CallError::NotSent(error)) if error.kind == BackendErrorKind::Cancelled)
}

/// Asserts that the next calls get their own answers. Returns the id of their connection.
async fn next_connection(caller: &ProcedureCaller, server: &SqlServer) -> OwnedCell {
    for status in [-7, 8, 9] {
        let answer =
            caller.call("returns", &[int("status", status)]).await.expect("the call succeeds");
        assert_eq!(i64::from(answer.result.return_status), status, "{}", server.name);
        assert!(answer.sets.is_empty(), "{}", server.name);
    }
    caller.call("process", &[]).await.expect("the call succeeds").cell().clone()
}

#[tokio::test]
async fn a_short_call_runs_to_its_end_after_its_client_disconnects() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let before = next_connection(&caller, &server).await;
        // The first call also reads the signature.
        caller.call("slow", &[int("ms", 1)]).await.expect("the call succeeds");
        let answer = cancelled_after(&caller, YOUNG, ("slow", &[int("ms", 80)])).await;
        assert_eq!(
            *answer.expect("the call succeeds").cell(),
            OwnedCell::Int(1),
            "{}",
            server.name
        );
        assert_eq!(before, next_connection(&caller, &server).await, "{}", server.name);
        if server.fake.is_some() {
            assert_eq!((attentions(&server), server.state().logins()), (0, 1));
        }
    }
}

#[tokio::test]
async fn a_long_call_is_stopped_soon_after_its_client_disconnects() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let started = Instant::now();
        let before = next_connection(&caller, &server).await;
        // A call runs for at least as long as a login takes before it is stopped. The time limit
        // therefore includes the duration of a login. A login to the fake server takes less than
        // `STOPPED`.
        let login = if server.fake.is_some() { Duration::ZERO } else { started.elapsed() };
        // The first call also reads the signature.
        caller.call("slow", &[int("ms", 1)]).await.expect("the call succeeds");
        // Babelfish ignores a request to cancel a call, so the connection is closed after
        // `cancel_timeout`.
        let closing =
            if server.is_babelfish { server.config.cancel_timeout } else { Duration::ZERO };
        let limit = STOPPED + login + closing;
        for time in [YOUNG, SHORT] {
            let (error, took) = stopped_after(&caller, time).await;
            assert_eq!(error, SentErrorKind::Cancelled, "{}", server.name);
            assert!(took < limit, "{}: {took:?}", server.name);
            if !server.is_babelfish {
                assert_eq!(before, next_connection(&caller, &server).await, "{}", server.name);
            }
        }
        if server.fake.is_some() {
            assert_eq!((attentions(&server), server.state().logins()), (2, 1));
        }
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_keeps_its_connection() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let before = next_connection(&caller, &server).await;
        let started = Instant::now();
        let slow = [int("ms", SLOW_MS)];
        let error = sent_error(caller.call_within(SHORT, &Cancel::new(), "slow", &slow).await);
        assert_eq!(error, SentErrorKind::TimedOut, "{}", server.name);
        let limit = SHORT + server.config.cancel_timeout + Duration::from_secs(1);
        assert!(started.elapsed() < limit, "{}: {:?}", server.name, started.elapsed());
        let after = next_connection(&caller, &server).await;
        assert_eq!(before != after, server.is_babelfish, "{}", server.name);
    }
}

#[tokio::test]
async fn an_open_transaction_of_a_cancelled_call_is_rolled_back_at_once() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let begins = [int("ms", SLOW_MS)];
    let error = sent_error(caller.call_within(SHORT, &Cancel::new(), "begins", &begins).await);
    assert_eq!(error, SentErrorKind::TimedOut);
    assert_eq!(server.state().rollbacks.load(Ordering::Acquire), 1);
    let open = caller.call("transactions", &[]).await.expect("the call succeeds");
    assert_eq!(*open.cell(), OwnedCell::Int(0));
    assert_eq!(server.state().logins(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_keeps_its_connection() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let before = next_connection(&caller, &server).await;
        for count in [20, 3000, 200_000] {
            let mut answer = CallAnswer { rows_max: Some(10), ..CallAnswer::default() };
            let count = [int("count", count)];
            let ended = caller.call_into(&mut answer, LONG, &Cancel::new(), ("many", &count)).await;
            let too_large = SentErrorKind::Sink(SinkError::TooLarge);
            let is_told = matches!(&ended, Err(CallError::Sent(error)) if error.kind == too_large);
            assert!(is_told, "{}: {ended:?}", server.name);
            let after = next_connection(&caller, &server).await;
            assert!(before == after || server.is_babelfish, "{}", server.name);
        }
    }
}

#[tokio::test]
async fn a_call_that_is_already_cancelled_is_never_sent() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let before = next_connection(&caller, &server).await;
    let cancel = Cancel::new();
    cancel.cancel();
    let error = unsent_error(caller.call_within(LONG, &cancel, "nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Cancelled);
    assert_eq!(before, next_connection(&caller, &server).await);
    let state = server.state();
    assert_eq!((state.runs("fjord_test.nothing"), attentions(&server)), (0, 0));
}

/// The next calls must get their own answers. The connection is kept if that is safe.
#[tokio::test]
async fn an_acknowledgement_never_becomes_the_answer_of_another_call() {
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
        let mut server = fake_server().await;
        server.config.cancel_timeout = Duration::from_millis(200);
        let caller = ProcedureCaller::new(&server);
        let before = next_connection(&caller, &server).await;
        for _ in 0..3 {
            let ended = caller.call_within(SHORT, &Cancel::new(), procedure, &arguments).await;
            assert_eq!(sent_error(ended), SentErrorKind::TimedOut, "{procedure}");
            let after = next_connection(&caller, &server).await;
            assert_eq!(before == after, is_kept, "{procedure} {arguments:?}");
        }
        let fake = server.state();
        eventually(SOON, TICK, || fake.connections.load(Ordering::Acquire) == 1).await;
    }
}

#[tokio::test]
async fn clients_that_disconnect_cost_no_connection() {
    let mut server = fake_server().await;
    server.config.connections_max = 8;
    let caller = ProcedureCaller::new(&server);
    for round in 0..20 {
        let calls = (0..24).map(|number| {
            let caller = caller.clone();
            async move {
                let time = Duration::from_millis(number % 12);
                let _either = cancelled_after(&caller, time, ("slow", &[int("ms", 8)])).await;
            }
        });
        join_all(calls).await;
        assert!(server.state().logins() <= 8, "round {round}: {}", server.state().logins());
    }
    assert_eq!(attentions(&server), 0);
}

#[tokio::test]
async fn the_cost_of_a_connection_is_measured() {
    let server = fake_server().await;
    server.state().login_ms.store(900, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    caller.call("nothing", &[]).await.expect("the call succeeds");
    // The call takes longer than the minimum cost (250 ms), but not as long as a login.
    let answer = cancelled_after(&caller, YOUNG, ("slow", &[int("ms", 600)])).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(attentions(&server), 0);
}

#[tokio::test]
async fn a_closed_backend_ends_its_calls_at_once() {
    for server in servers().await {
        // On a slow machine, the call may not have been sent yet when the backend is closed.
        let mut was_sent = false;
        for tried in 1..=TRIES {
            let time = YOUNG * 2 * u32::try_from(tried).expect("a small number");
            was_sent = closed_while_calling(&server, time).await;
            if was_sent {
                break;
            }
        }
        assert!(was_sent, "{}: no call was sent before the backend was closed", server.name);
    }
}

/// Makes a slow call and closes the backend after `time`. Returns whether the call had been sent.
async fn closed_while_calling(server: &SqlServer, time: Duration) -> bool {
    let caller = ProcedureCaller::new(server);
    // The first call also reads the signature.
    caller.call("slow", &[int("ms", 1)]).await.expect("the call succeeds");
    let running = caller.clone();
    let mut call =
        Tasks::new().spawn(async move { running.call("slow", &[int("ms", SLOW_MS)]).await });
    assert!(timeout(time, &mut call).await.is_err(), "{}: the call ended", server.name);
    let started = Instant::now();
    caller.backend.close().await;
    let ended = call.await.expect("no panic");
    let limit = server.config.cancel_timeout + STOPPED;
    assert!(started.elapsed() < limit, "{}: {:?}", server.name, started.elapsed());
    let was_sent = !is_unsent_and_cancelled(&ended);
    if was_sent {
        assert_eq!(sent_error(ended), SentErrorKind::Cancelled, "{}", server.name);
    }
    let error = unsent_error(caller.call("nothing", &[]).await);
    assert!(matches!(error, BackendErrorKind::Cancelled | BackendErrorKind::Unavailable));
    was_sent
}

/// The client disconnects during BEGIN, or during the driver's query for a table type's columns.
#[tokio::test]
async fn a_call_that_is_cancelled_during_its_preparation_is_never_sent() {
    let cases = [(Transaction::Committed, 1), (Transaction::Committed, 2), (Transaction::None, 1)];
    for (transaction, batches) in cases {
        let server = fake_server().await;
        let caller = ProcedureCaller { transaction, ..ProcedureCaller::new(&server) };
        let columns: Arc<[_]> = Arc::new([("name".into(), ParameterType::String)]);
        let rows = vec![vec![ParameterValue::Null]];
        let names = [Argument { columns, ..given("names", ParameterValue::Table(rows)) }];
        caller.call("names", &names).await.expect("the call succeeds");
        let before = next_connection(&caller, &server).await;
        server.state().batch_ms.store(100, Ordering::Release);
        let cancel = Cancel::new();
        let seen = || server.state().slow_batches.load(Ordering::Acquire) == batches;
        let disconnect = async {
            eventually(SOON, TICK, seen).await;
            cancel.cancel();
        };
        let ended = tokio::join!(caller.call_within(LONG, &cancel, "names", &names), disconnect).0;
        assert_eq!(unsent_error(ended), BackendErrorKind::Cancelled, "{transaction:?} {batches}");
        assert_eq!(server.state().runs("fjord_test.names"), 1, "{transaction:?} {batches}");
        server.state().batch_ms.store(0, Ordering::Release);
        let open =
            ProcedureCaller::call(&caller, "transactions", &[]).await.expect("the call succeeds");
        let count = if transaction == Transaction::None { 0 } else { 2 };
        assert_eq!(*open.cell(), OwnedCell::Int(count), "{transaction:?} {batches}");
        assert_eq!(before, next_connection(&caller, &server).await, "{transaction:?} {batches}");
        assert_eq!(server.state().logins(), 1, "{transaction:?} {batches}");
    }
}

/// The client disconnects while the worker rolls back a failed call.
#[tokio::test]
async fn a_slow_rollback_is_abandoned_with_its_connection() {
    let server = fake_server().await;
    let caller =
        ProcedureCaller { transaction: Transaction::Committed, ..ProcedureCaller::new(&server) };
    let script = [text("script", "INSERT left; THROW 50001")];
    server.state().batch_ms.store(400, Ordering::Release);
    let cancel = Cancel::new();
    let slow = || server.state().slow_batches.load(Ordering::Acquire);
    let disconnect = async {
        eventually(SOON, TICK, || slow() == 1).await;
        // The rollback will take longer than opening a connection, so it is abandoned.
        server.state().batch_ms.store(600_000, Ordering::Release);
        eventually(SOON, TICK, || slow() == 2).await;
        cancel.cancel();
    };
    let calling = caller.call_within(10 * LONG, &cancel, "runs", &script);
    let both = timeout(LONG, async { tokio::join!(calling, disconnect).0 }).await;
    let Err(CallError::Sent(error)) = both.expect("the call ends before the server answers") else {
        panic!("expected an error of a call that was sent")
    };
    assert!(!error.is_rolled_back, "{error:?}");
    server.state().batch_ms.store(0, Ordering::Release);
    caller.call("nothing", &[]).await.expect("the call succeeds");
    assert_eq!(server.state().logins(), 2);
}
