//! Simulates autocommit and transactions, with an audit table.

use std::sync::{Mutex, PoisonError};

use super::FakeState;
use super::procedures::FakeResult;
use super::reply::TdsReply;
use super::values::Sql;

/// The audit table, with the rows of committed inserts.
#[derive(Debug, Default)]
pub(crate) struct Audit(Mutex<Vec<String>>);

impl Audit {
    /// Returns the number of committed rows that equal `word`.
    pub(crate) fn count(&self, word: &str) -> usize {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().filter(|row| *row == word).count()
    }

    /// Adds a row in autocommit mode.
    pub(crate) fn add(&self, word: &str) {
        self.commit(&mut vec![word.to_owned()]);
    }

    fn commit(&self, rows: &mut Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(rows);
    }
}

/// The transaction of a connection. It is rolled back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct FakeTransaction {
    /// The value of `@@TRANCOUNT`.
    pub(crate) count: i64,
    is_implicit: bool,
    has_savepoint: bool,
    pending: Vec<String>,
    /// The ENVCHANGE tokens to send. Babelfish does not send them.
    report: Vec<u8>,
}

impl FakeTransaction {
    fn begin(&mut self) {
        // With IMPLICIT_TRANSACTIONS ON, a BEGIN outside a transaction begins two transactions.
        let is_new = self.count == 0;
        self.count += if is_new && self.is_implicit { 2 } else { 1 };
        if is_new {
            self.report(&[8, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    fn report(&mut self, change: &[u8]) {
        self.report.extend_from_slice(&[0xe3, 11, 0]);
        self.report.extend_from_slice(change);
    }

    /// Adds the ENVCHANGE tokens to an answer.
    fn send_report(&mut self, state: &FakeState, reply: &mut TdsReply) {
        let report = std::mem::take(&mut self.report);
        if !state.is_babelfish.load(std::sync::atomic::Ordering::Acquire) {
            reply.0.extend_from_slice(&report);
        }
    }

    fn insert(&mut self, audit: &Audit, word: &str) {
        self.pending.push(word.to_owned());
        if self.count == 0 && self.is_implicit {
            self.count = 1;
            self.report(&[8, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        } else if self.count == 0 {
            audit.commit(&mut self.pending);
        }
    }

    fn commit(&mut self, audit: &Audit) -> Result<(), u32> {
        if self.count == 0 {
            return Err(3902);
        }
        self.count -= 1;
        if self.count == 0 {
            self.has_savepoint = false;
            audit.commit(&mut self.pending);
            self.report(&[9, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), u32> {
        self.pending.clear();
        self.has_savepoint = false;
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return Err(3903);
        }
        self.report(&[10, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
        Ok(())
    }
}

/// Executes the batches with which a worker begins and ends a transaction. Returns `None` for any
/// other batch, and `Some(false)` if the connection must be closed without an answer.
pub(super) fn batch(
    state: &FakeState,
    transaction: &mut FakeTransaction,
    text: &str,
    reply: &mut TdsReply,
) -> Option<bool> {
    if text.starts_with("BEGIN TRANSACTION") {
        for _ in text.matches("BEGIN TRANSACTION") {
            transaction.begin();
        }
        transaction.has_savepoint |= text.contains("SAVE TRANSACTION fjord_call");
        transaction.is_implicit |= text.contains("IMPLICIT_TRANSACTIONS ON");
        transaction.send_report(state, reply);
        return Some(true);
    }
    let rest = text.strip_prefix("SET IMPLICIT_TRANSACTIONS OFF; ")?;
    transaction.is_implicit = false;
    let count = transaction.count;
    let needs_savepoint = rest.contains("ROLLBACK TRANSACTION fjord_call");
    let is_own = transaction.has_savepoint || !needs_savepoint;
    let commits = rest.contains("COMMIT TRANSACTION; COMMIT TRANSACTION");
    if commits && state.loses_commits.load(std::sync::atomic::Ordering::Acquire) {
        return Some(false);
    }
    let refusal =
        if commits { state.refused_commits.lock().expect("not poisoned").pop() } else { None };
    if let Some(number) = refusal {
        // The transaction is rolled back, and the batch ends. The ENVCHANGE follows the error.
        reply.error(number, 16, "the commit was refused", "");
        let _ended = transaction.roll_back();
        transaction.send_report(state, reply);
        return Some(true);
    }
    if commits && count == 2 {
        let committed = transaction.commit(&state.audit).and(transaction.commit(&state.audit));
        committed.expect("two transactions are open");
    } else if transaction.roll_back().is_ok() {
        state.rollbacks.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }
    transaction.send_report(state, reply);
    if commits || rest.contains("SELECT @own") {
        let said = if is_own && (count == 2 || !commits) { count } else { 0 };
        reply.single("", "int", Sql::Int(said));
    }
    Some(true)
}

/// Executes the procedure `runs`, whose argument is a script of statements separated by semicolons.
///
/// The statements are `INSERT word`, `BEGIN`, `COMMIT`, `ROLLBACK`, `ROW n`, `DROP` (closes the
/// connection), `RAISE number` (continues after the error), `PRINT word [times]`, and
/// `THROW number [procedure]` (ends the procedure). At the end of a script, `THROW number procedure times` throws only in the first
/// `times` executions. `SET AUTOCOMMIT` (`IMPLICIT_TRANSACTIONS OFF`) and `SET XACT_ABORT` (`ON`)
/// last until the procedure ends.
pub(super) fn run(
    state: &FakeState,
    transaction: &mut FakeTransaction,
    script: &str,
    reply: &mut TdsReply,
) -> FakeResult {
    let was_implicit = transaction.is_implicit;
    let outcome = statements(state, transaction, script, reply);
    transaction.is_implicit = was_implicit;
    outcome
}

fn statements(
    state: &FakeState,
    transaction: &mut FakeTransaction,
    script: &str,
    reply: &mut TdsReply,
) -> FakeResult {
    let before = transaction.count;
    let mut aborts = false;
    let run = {
        let mut runs = state.victims.lock().expect("not poisoned");
        let run = runs.entry(script.to_owned()).or_insert(0);
        *run += 1;
        *run
    };
    for statement in script.split(';') {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let done = match words.as_slice() {
            ["INSERT", word] => {
                transaction.insert(&state.audit, word);
                Ok(())
            }
            ["BEGIN"] => {
                transaction.begin();
                Ok(())
            }
            ["COMMIT"] => transaction.commit(&state.audit),
            ["SET", "AUTOCOMMIT"] => {
                transaction.is_implicit = false;
                Ok(())
            }
            ["SET", "XACT_ABORT"] => {
                aborts = true;
                Ok(())
            }
            ["RAISE", number] => {
                reply.error(number.parse().expect("a number"), 16, "raised", "runs");
                Ok(())
            }
            ["PRINT", text, rest @ ..] => {
                print(text, rest, reply);
                Ok(())
            }
            ["ROLLBACK"] => transaction.roll_back(),
            ["ROW", number] => {
                reply.single("n", "int", Sql::Int(number.parse().expect("a number")));
                Ok(())
            }
            ["DROP"] => return FakeResult::Dropped,
            ["THROW", number, rest @ ..] => {
                let times: i64 =
                    rest.get(1).map_or(i64::MAX, |times| times.parse().expect("a count"));
                if run > times {
                    continue;
                }
                let number = number.parse().expect("a number");
                let procedure = rest.first().copied().unwrap_or("runs");
                let procedure = if procedure == "-" { "" } else { procedure };
                if matches!(number, 1205 | 3960) || aborts {
                    // Earlier commits remain. The ENVCHANGE follows the error.
                    let _ended = transaction.roll_back();
                }
                let mut after = TdsReply::default();
                transaction.send_report(state, &mut after);
                return raised(number, procedure, after.0.to_vec());
            }
            other => panic!("statement {other:?}"),
        };
        transaction.send_report(state, reply);
        if let Err(number) = done {
            return raised(number, "runs", Vec::new());
        }
    }
    // With XACT_ABORT ON, a changed transaction count is not an error (266).
    if transaction.count == before || aborts {
        FakeResult::Returned(0, Vec::new())
    } else {
        raised(266, "runs", Vec::new())
    }
}

/// Sends the text of PRINT one or more times.
fn print(text: &str, rest: &[&str], reply: &mut TdsReply) {
    let times = rest.first().map_or(1, |times| times.parse().expect("a number of times"));
    for _ in 0..times {
        reply.info(text, "runs");
    }
}

/// Returns an error that is followed by the ENVCHANGE tokens in `report`.
fn raised(number: u32, procedure: &str, report: Vec<u8>) -> FakeResult {
    let message = "secret of the database".to_owned();
    FakeResult::RaisedIn(number, message, procedure.to_owned(), report)
}
