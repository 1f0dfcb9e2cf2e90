//! Holds back the calls that write to a worker's ledger, so that a test can decide when they end.

use rusqlite::{Connection, OpenFlags};

use super::eventually::SOON;
use super::fjord_process::FjordProcess;

/// A write transaction on the ledger for which the calls wait. They continue when the gate is opened or dropped.
#[derive(Debug)]
pub(crate) struct LedgerGate(Connection);

impl LedgerGate {
    /// Holds back all calls that write to the ledger of this worker. The timeouts of their endpoints must be long
    /// enough.
    pub(crate) fn close(worker: &FjordProcess) -> Self {
        let file = worker.directory().join("ledger.db");
        let ledger = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let ledger = ledger.expect("the ledger can be opened");
        ledger.busy_timeout(SOON).expect("the timeout can be set");
        ledger.execute_batch("BEGIN IMMEDIATE").expect("the ledger can be locked");
        Self(ledger)
    }

    /// Lets the calls continue.
    pub(crate) fn open(self) {
        self.0.execute_batch("ROLLBACK").expect("the ledger can be unlocked");
    }
}
