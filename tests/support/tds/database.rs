//! What SQL Server keeps and undoes: statements that commit by themselves, and transactions.

use std::sync::{Mutex, PoisonError};

use super::State;
use super::procedures::Outcome;
use super::reply::Reply;
use super::values::Sql;

/// The audit table: a row for each insert that was committed.
#[derive(Debug, Default)]
pub(crate) struct Audit(Mutex<Vec<String>>);

impl Audit {
    /// How many rows of a word are committed.
    pub(crate) fn count(&self, word: &str) -> usize {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().filter(|row| *row == word).count()
    }

    fn commit(&self, rows: &mut Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(rows);
    }
}

/// A session's transaction. Dropped with the session, it is rolled back.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// `@@TRANCOUNT`.
    pub(crate) count: i64,
    is_implicit: bool,
    has_savepoint: bool,
    pending: Vec<String>,
}

impl Transaction {
    fn begin(&mut self) {
        // Under SET IMPLICIT_TRANSACTIONS a BEGIN outside of one begins two.
        self.count += if self.count == 0 && self.is_implicit { 2 } else { 1 };
    }

    fn insert(&mut self, audit: &Audit, word: &str) {
        self.pending.push(word.to_owned());
        if self.count == 0 && self.is_implicit {
            self.count = 1;
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
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), u32> {
        self.pending.clear();
        self.has_savepoint = false;
        let count = std::mem::take(&mut self.count);
        if count == 0 { Err(3903) } else { Ok(()) }
    }
}

/// Runs the batches by which a worker begins and ends a transaction. `None`: the batch is another one.
/// `Some(false)`: the connection ends without an answer.
pub(super) fn batch(
    state: &State,
    transaction: &mut Transaction,
    text: &str,
    reply: &mut Reply,
) -> Option<bool> {
    if text.starts_with("BEGIN TRANSACTION") {
        for _ in text.matches("BEGIN TRANSACTION") {
            transaction.begin();
        }
        transaction.has_savepoint |= text.contains("SAVE TRANSACTION fjord_dry_run");
        transaction.is_implicit |= text.contains("IMPLICIT_TRANSACTIONS ON");
        return Some(true);
    }
    let rest = text.strip_prefix("SET IMPLICIT_TRANSACTIONS OFF; ")?;
    transaction.is_implicit = false;
    let is_dry = rest.contains("ROLLBACK TRANSACTION fjord_dry_run");
    let is_whole = transaction.count == 2 && (transaction.has_savepoint || !is_dry);
    let commits = rest.contains("COMMIT TRANSACTION; COMMIT TRANSACTION");
    if commits && state.loses_commits.load(std::sync::atomic::Ordering::Acquire) {
        return Some(false);
    }
    if commits && is_whole {
        let committed = transaction.commit(&state.audit).and(transaction.commit(&state.audit));
        committed.expect("two transactions");
    } else if transaction.roll_back().is_ok() {
        state.rollbacks.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }
    if is_dry || rest.contains("SELECT 1") {
        reply.single("", "int", Sql::Int(is_whole.into()));
    }
    Some(true)
}

/// Runs the procedure `runs`: statements with semicolons between them.
///
/// `INSERT word`, `BEGIN`, `COMMIT`, `ROLLBACK`, `ROW n`, `DROP` (the connection ends), and `THROW number [procedure]`,
/// which ends it; as the last of a script `THROW number procedure times` does so only the first times.
pub(super) fn run(
    state: &State,
    transaction: &mut Transaction,
    script: &str,
    reply: &mut Reply,
) -> Outcome {
    let before = transaction.count;
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
            ["COMMIT"] => {
                let done = transaction.commit(&state.audit);
                let tells = !state.is_babelfish.load(std::sync::atomic::Ordering::Acquire);
                if done.is_ok() && transaction.count == 0 && tells {
                    reply.0.extend_from_slice(&[0xe3, 11, 0, 9, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
                }
                done
            }
            ["ROLLBACK"] => transaction.roll_back(),
            ["ROW", number] => {
                reply.single("n", "int", Sql::Int(number.parse().expect("a number")));
                Ok(())
            }
            ["DROP"] => return Outcome::Dropped,
            ["THROW", number, rest @ ..] => {
                let times: i64 =
                    rest.get(1).map_or(i64::MAX, |times| times.parse().expect("times"));
                if run > times {
                    continue;
                }
                let number = number.parse().expect("a number");
                if matches!(number, 1205 | 3960) {
                    // Its transaction goes, what was committed before it stays.
                    let _ended = transaction.roll_back();
                }
                let procedure = rest.first().copied().unwrap_or("runs");
                let procedure = if procedure == "-" { "" } else { procedure };
                return raised(number, procedure);
            }
            other => panic!("statement {other:?}"),
        };
        if let Err(number) = done {
            return raised(number, "runs");
        }
    }
    if transaction.count == before { Outcome::Returned(0, Vec::new()) } else { raised(266, "runs") }
}

fn raised(number: u32, procedure: &str) -> Outcome {
    Outcome::RaisedIn(number, "secret of the database".to_owned(), procedure.to_owned())
}
