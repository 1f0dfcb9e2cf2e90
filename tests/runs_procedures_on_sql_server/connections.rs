//! Connections: never dirty, cancelled when nobody waits.

use std::time::Duration;

use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::{BackendErrorKind, Call, Cell, OwnedCell, RowSink, SinkError};
use tokio::time::{Instant, timeout};

use super::{Answer, Caller, LONG, int, kind, name, text};
use crate::support::mssql_server::{Server, servers};

/// Shorter than the slow procedure, longer than everything else.
const SHORT: Duration = Duration::from_millis(300);
/// How long the slow procedure takes: the call must not wait for its end.
const SLOW_MS: i64 = 8000;

fn expect_soon(server: &Server, started: Instant) {
    let limit = SHORT + server.config.cancel_timeout + Duration::from_secs(1);
    assert!(started.elapsed() < limit, "{}: {:?}", server.name, started.elapsed());
}

#[tokio::test]
async fn a_call_ends_with_its_deadline() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = caller.call("process", &[]).await.expect("an id");
        let started = Instant::now();
        let slow = [int("ms", SLOW_MS)];
        let error = kind(caller.call_within(SHORT, &Cancel::new(), "slow", &slow).await);
        assert_eq!(error, BackendErrorKind::TimedOut, "{}", server.name);
        expect_soon(&server, started);
        let after = caller.call("process", &[]).await.expect("an id");
        assert_ne!(before.cell(), after.cell(), "{}: the connection was kept", server.name);
        if let Some(endpoint) = &server.endpoint {
            assert_eq!(endpoint.state.attentions.load(std::sync::atomic::Ordering::Acquire), 1);
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_ends_and_its_connection_with_it() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = caller.call("process", &[]).await.expect("an id");
        let cancel = Cancel::new();
        let slow = [int("ms", SLOW_MS)];
        let mut call = Box::pin(caller.call_within(LONG, &cancel, "slow", &slow));
        assert!(timeout(SHORT, &mut call).await.is_err(), "{}: it runs", server.name);
        let started = Instant::now();
        cancel.cancel();
        let error = kind(call.await);
        assert_eq!(error, BackendErrorKind::Cancelled, "{}", server.name);
        expect_soon(&server, started);
        let after = caller.call("process", &[]).await.expect("an id");
        assert_ne!(before.cell(), after.cell(), "{}", server.name);
    }
}

#[tokio::test]
async fn a_dropped_call_never_leaves_a_dirty_connection() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let before = caller.call("process", &[]).await.expect("an id");
        let slow = [int("ms", SLOW_MS)];
        let dropped = timeout(SHORT, caller.call("slow", &slow)).await;
        assert!(dropped.is_err(), "{}", server.name);
        let after = caller.call("process", &[]).await.expect("an id");
        assert_ne!(before.cell(), after.cell(), "{}", server.name);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_wanted_closes_its_connection() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let mut answer = Answer { rows_max: Some(10), ..Answer::default() };
        let count = [int("count", 3000)];
        let ended = caller.call_into(&mut answer, LONG, &Cancel::new(), ("many", &count)).await;
        let error = ended.expect_err("too many rows").kind;
        assert_eq!(error, BackendErrorKind::Sink(SinkError::TooLarge), "{}", server.name);
        assert!(caller.call("nothing", &[]).await.is_ok(), "{}", server.name);
    }
}

#[tokio::test]
async fn a_session_starts_clean_on_the_same_connection() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let first = caller.call("process", &[]).await.expect("an id");
        caller.call("remembers", &[text("v", "secret")]).await.expect("a session that remembers");
        let recalled = caller.call("recalls", &[]).await.expect("a session");
        let nothing = [OwnedCell::Null, OwnedCell::Text("NoLock".to_owned())];
        assert_eq!(recalled.sets, [[nothing]], "{}: it was not reset", server.name);
        let error = kind(caller.call("leaves_open", &[]).await);
        assert!(matches!(error, BackendErrorKind::User { number: 50409, .. }), "{error}");
        let open = caller.call("transactions", &[]).await.expect("a count");
        assert_eq!(*open.cell(), OwnedCell::Int(0), "{}: a transaction is open", server.name);
        let last = caller.call("process", &[]).await.expect("an id");
        assert_eq!(first.cell(), last.cell(), "{}: another connection", server.name);
    }
}

#[tokio::test]
async fn a_closed_backend_ends_its_calls() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let running = caller.clone();
        let mut call =
            Tasks::new().spawn(async move { running.call("slow", &[int("ms", SLOW_MS)]).await });
        assert!(timeout(SHORT, &mut call).await.is_err(), "{}: it runs", server.name);
        caller.backend.close().await;
        let error = kind(call.await.expect("no panic"));
        assert_eq!(error, BackendErrorKind::Cancelled, "{}", server.name);
        let error = kind(caller.call("nothing", &[]).await);
        assert!(matches!(error, BackendErrorKind::Cancelled | BackendErrorKind::Unavailable));
    }
}

/// Counts what comes and keeps nothing.
#[derive(Debug, Default)]
struct Weigh(u64);

impl RowSink for Weigh {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.0 += u64::try_from(cells.len()).expect("few");
        Ok(())
    }

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn a_result_is_passed_on_while_it_comes_and_never_held_whole() {
    const ROWS: i64 = 100_000;
    // The server has a thread of its own: what is counted is what this one allocates.
    let mut of_server = tokio::runtime::Builder::new_multi_thread();
    let of_server = of_server.worker_threads(1).enable_all().build().expect("a runtime");
    for server in of_server.block_on(servers()) {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let own = own.expect("a runtime");
        let caller = Caller::of(&server);
        let call = async |count: i64| {
            let mut weigh = Weigh::default();
            let arguments = [int("count", count)];
            let (queue, procedure) = (&caller.queue, name("many"));
            let deadline = Instant::now() + LONG;
            let call = Call {
                queue,
                procedure: &procedure,
                arguments: &arguments,
                deadline,
                may_repeat: false,
            };
            caller.backend.call(call, &mut weigh, &Cancel::new()).await.expect("rows");
            weigh.0
        };
        own.block_on(call(1));
        let mut rows = 0;
        let counted = allocation_counter::measure(|| rows = own.block_on(call(ROWS)));
        assert_eq!(rows, ROWS.unsigned_abs(), "{}", server.name);
        // A row is five bytes on the wire and more anywhere else.
        let least = ROWS.unsigned_abs() * 5;
        assert!(counted.bytes_max < least / 4, "{}: {} bytes", server.name, counted.bytes_max);
    }
}
