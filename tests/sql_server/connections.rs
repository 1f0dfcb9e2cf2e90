//! Promise: no call sees the state of an earlier call on its connection, and results are streamed.

use std::time::Duration;

use fjord::lifecycle::Cancel;
use fjord::procedures::{
    Call, Cell, OwnedCell, RowSink, SentErrorKind, SessionContext, SinkError, Transaction,
};
use tokio::time::{Instant, timeout};

use super::{LONG, ProcedureCaller, int, name, sent_error, text};
use crate::support::mssql_server::servers;

/// A time limit that is shorter than the slow procedure, but longer than any other procedure.
const SHORT: Duration = Duration::from_millis(300);
/// The duration of the slow procedure. The call must end before the procedure does.
const SLOW_MS: i64 = 8000;

#[tokio::test]
async fn the_connection_of_a_dropped_call_is_not_used_again() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let before = caller.call("process", &[]).await.expect("the call succeeds");
        let slow = [int("ms", SLOW_MS)];
        let dropped = timeout(SHORT, caller.call("slow", &slow)).await;
        assert!(dropped.is_err(), "{}", server.name);
        let after = caller.call("process", &[]).await.expect("the call succeeds");
        assert_ne!(before.cell(), after.cell(), "{}", server.name);
    }
}

#[tokio::test]
async fn a_connection_is_reset_between_calls() {
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let first = caller.call("process", &[]).await.expect("the call succeeds");
        caller.call("remembers", &[text("v", "secret")]).await.expect("the call succeeds");
        let recalled = caller.call("recalls", &[]).await.expect("the call succeeds");
        let nothing = [OwnedCell::Null, OwnedCell::Text("NoLock".to_owned())];
        assert_eq!(recalled.sets, [[nothing]], "{}: not reset", server.name);
        let error = sent_error(caller.call("leaves_open", &[]).await);
        assert!(matches!(error, SentErrorKind::User { number: 50409, .. }), "{error}");
        let open = caller.call("transactions", &[]).await.expect("the call succeeds");
        assert_eq!(*open.cell(), OwnedCell::Int(0), "{}: a transaction is open", server.name);
        let last = caller.call("process", &[]).await.expect("the call succeeds");
        assert_eq!(first.cell(), last.cell(), "{}: another connection", server.name);
    }
}

/// A sink that counts cells and discards them.
#[derive(Debug, Default)]
struct CellCounter(u64);

impl RowSink for CellCounter {
    fn begin_set(&mut self, _: &[String]) -> Result<(), SinkError> {
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.0 += u64::try_from(cells.len()).expect("the number of cells fits u64");
        Ok(())
    }

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn a_result_is_never_completely_in_memory() {
    const ROWS: i64 = 100_000;
    // The fake server runs on its own thread, so that only the client's allocations are counted.
    let mut server_runtime = tokio::runtime::Builder::new_multi_thread();
    let server_runtime = server_runtime.worker_threads(1).enable_all().build().expect("a runtime");
    for server in server_runtime.block_on(servers()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let caller = ProcedureCaller::new(&server);
        let call = async |count: i64| {
            let mut counter = CellCounter::default();
            let arguments = [int("count", count)];
            let (queue, procedure) = (&caller.queue, name("many"));
            let deadline = Instant::now() + LONG;
            let call = Call {
                queue,
                procedure: &procedure,
                arguments: &arguments,
                session: SessionContext::default(),
                deadline,
                may_repeat: false,
                transaction: Transaction::None,
            };
            caller
                .backend
                .call(call, &mut counter, &Cancel::new())
                .await
                .expect("the call succeeds");
            counter.0
        };
        runtime.block_on(call(1));
        let mut rows = 0;
        let counted = allocation_counter::measure(|| rows = runtime.block_on(call(ROWS)));
        assert_eq!(rows, ROWS.unsigned_abs(), "{}", server.name);
        // A row takes five bytes on the wire, and more than that in memory.
        let least = ROWS.unsigned_abs() * 5;
        assert!(counted.bytes_max < least / 4, "{}: {} bytes", server.name, counted.bytes_max);
    }
}
