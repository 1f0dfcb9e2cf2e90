//! Connections: never dirty, cancelled when nobody waits.

use std::time::Duration;

use fjord::lifecycle::Cancel;
use fjord::procedures::{Call, Cell, OwnedCell, RowSink, SentErrorKind, SinkError, Transaction};
use tokio::time::{Instant, timeout};

use super::{Caller, LONG, int, kind, name, text};
use crate::support::mssql_server::servers;

/// Shorter than the slow procedure, longer than everything else.
const SHORT: Duration = Duration::from_millis(300);
/// How long the slow procedure takes: the call must not wait for its end.
const SLOW_MS: i64 = 8000;

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
async fn a_session_starts_clean_on_the_same_connection() {
    for server in servers().await {
        let caller = Caller::of(&server);
        let first = caller.call("process", &[]).await.expect("an id");
        caller.call("remembers", &[text("v", "secret")]).await.expect("a session that remembers");
        let recalled = caller.call("recalls", &[]).await.expect("a session");
        let nothing = [OwnedCell::Null, OwnedCell::Text("NoLock".to_owned())];
        assert_eq!(recalled.sets, [[nothing]], "{}: it was not reset", server.name);
        let error = kind(caller.call("leaves_open", &[]).await);
        assert!(matches!(error, SentErrorKind::User { number: 50409, .. }), "{error}");
        let open = caller.call("transactions", &[]).await.expect("a count");
        assert_eq!(*open.cell(), OwnedCell::Int(0), "{}: a transaction is open", server.name);
        let last = caller.call("process", &[]).await.expect("an id");
        assert_eq!(first.cell(), last.cell(), "{}: another connection", server.name);
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
                transaction: Transaction::None,
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
