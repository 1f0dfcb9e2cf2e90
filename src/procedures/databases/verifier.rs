//! Compares the procedures in a database with the catalogue. Queues that fail are verified again at
//! growing intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::JITTER;
use crate::catalogue::QueueName;
use crate::jitter::jittered;
use crate::procedures::{Backend, BackendError, BackendErrorKind, ExpectedProcedure};
use crate::telemetry::chain;

/// The first pause before failed queues are verified again. It doubles each time, and is varied at
/// random.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The maximum pause before failed queues are verified again. With the random variation, a new
/// procedure is noticed within 1.5 times this pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The maximum number of causes logged per round. `/readyz` lists all causes.
const LINES_MAX: usize = 16;
/// The maximum number of queues named in a log line.
const NAMED_MAX: usize = 8;

/// The reason why a queue is not served until its database has answered for the first time.
pub const NOT_QUERIED: &str = "its database has not been queried yet";

/// The result of comparing the procedures of a queue with the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// All procedures match.
    Passed,
    /// A procedure does not match or could not be checked, for this reason.
    Failed(Arc<str>),
}

/// The queues of a database, each with its latest result.
#[derive(Debug, Default)]
pub(super) struct VerifiedQueues {
    entries: Mutex<Vec<Arc<VerifiedQueue>>>,
    added: Notify,
}

#[derive(Debug)]
struct VerifiedQueue {
    name: QueueName,
    expected: Vec<ExpectedProcedure>,
    verification: watch::Sender<Verification>,
}

impl VerifiedQueues {
    /// Adds a queue, which is verified until the receiver is dropped.
    pub(super) fn add(
        &self,
        name: QueueName,
        expected: Vec<ExpectedProcedure>,
    ) -> watch::Receiver<Verification> {
        let (verification, receiver) = watch::channel(Verification::Failed(NOT_QUERIED.into()));
        let entry = Arc::new(VerifiedQueue { name, expected, verification });
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.added.notify_one();
        receiver
    }

    /// Returns the number of queues whose receiver has not been dropped.
    pub(super) fn count(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| !entry.verification.is_closed()).count()
    }

    /// Removes queues whose receiver was dropped, and returns the remaining queues that have not
    /// passed.
    fn unverified(&self) -> Vec<Arc<VerifiedQueue>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| !entry.verification.is_closed());
        let unverified =
            entries.iter().filter(|entry| *entry.verification.borrow() != Verification::Passed);
        unverified.cloned().collect()
    }

    /// Resets all queues after the database has stopped answering, because its procedures can
    /// change before it answers again.
    fn reset(&self) {
        let reason: Arc<str> = "its database is not available".into();
        for entry in self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            entry.verification.send_replace(Verification::Failed(Arc::clone(&reason)));
        }
    }
}

/// The task that verifies the queues of one database.
pub(super) struct Verifier {
    pub(super) database: String,
    pub(super) backend: Arc<dyn Backend>,
    /// Whether the database answers, or `None` before the first ping.
    pub(super) is_up: watch::Receiver<Option<bool>>,
    pub(super) queues: Arc<VerifiedQueues>,
    /// The causes that have been logged and have not been resolved. They are not logged again.
    pub(super) logged: BTreeSet<String>,
}

impl Verifier {
    /// Runs until the database is no longer monitored.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut is_up = self.is_up.clone();
        while is_up.wait_for(|is_up| *is_up == Some(true)).await.is_ok() {
            let all_passed = tokio::select! {
                () = wait_until_down(&mut is_up) => {
                    self.queues.reset();
                    pause = PAUSE_MIN;
                    continue;
                }
                all_passed = self.verify() => all_passed,
            };
            let next_round = sleep(jittered(pause, JITTER));
            pause = if all_passed { PAUSE_MIN } else { PAUSE_MAX.min(pause * 2) };
            tokio::select! {
                () = wait_until_down(&mut is_up) => {
                    self.queues.reset();
                    pause = PAUSE_MIN;
                }
                () = self.queues.added.notified() => {}
                () = next_round, if !all_passed => {}
            }
        }
    }

    /// Verifies all queues that have not passed. Returns whether all queues have now passed.
    async fn verify(&mut self) -> bool {
        let queues = self.queues.unverified();
        let mut checks: Vec<QueueCheck> = queues.into_iter().map(QueueCheck::new).collect();
        let expected: Vec<ExpectedProcedure> =
            checks.iter().flat_map(|check| check.queue.expected.iter().cloned()).collect();
        let owners: Vec<usize> = checks
            .iter()
            .enumerate()
            .flat_map(|(owner, check)| check.queue.expected.iter().map(move |_| owner))
            .collect();
        let mut report = |index: usize, result: Result<(), BackendError>| {
            let owner = owners.get(index).copied();
            if let Some(check) = owner.and_then(|owner| checks.get_mut(owner)) {
                check.record(result);
            }
        };
        self.backend.verify(&expected, &mut report).await;
        self.log(&checks);
        checks.iter().all(|check| check.failure.is_none() && check.pending == 0)
    }

    /// Logs at most `LINES_MAX` new causes of failure. Later rounds log the others. Logs once when
    /// no cause remains.
    fn log(&mut self, checks: &[QueueCheck]) {
        let mut causes: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for check in checks {
            if let Some((is_mismatch, cause, named)) = check.cause() {
                causes.entry((is_mismatch, cause)).or_default().push(named);
            }
        }
        let database = self.database.as_str();
        let (mut fresh, mut logged) = (0_usize, BTreeSet::new());
        for ((is_mismatch, cause), queues) in &causes {
            if self.logged.contains(cause) {
                logged.insert(cause.clone());
                continue;
            }
            fresh += 1;
            if fresh > LINES_MAX {
                continue;
            }
            logged.insert(cause.clone());
            let (count, named) = (queues.len(), named(queues));
            match is_mismatch {
                true => tracing::error!(
                    database,
                    queues = count,
                    named,
                    cause,
                    "queues do not match their database and are not served"
                ),
                false => tracing::error!(
                    database,
                    queues = count,
                    named,
                    cause,
                    "queues wait for their database"
                ),
            }
        }
        if fresh > LINES_MAX {
            let more = fresh - LINES_MAX;
            tracing::error!(
                database,
                more,
                "queues are not served for further reasons, which /readyz lists"
            );
        }
        if causes.is_empty() && !self.logged.is_empty() {
            tracing::info!(database, "every queue matches its database now");
        }
        self.logged = logged;
    }
}

/// Waits until the database stops answering.
async fn wait_until_down(is_up: &mut watch::Receiver<Option<bool>>) {
    // An error means that the database is no longer monitored. The loop in `run` then ends.
    let _ended = is_up.wait_for(|is_up| *is_up != Some(true)).await;
}

/// The verification of one queue in one round.
struct QueueCheck {
    queue: Arc<VerifiedQueue>,
    /// The number of procedures that have no result yet.
    pending: usize,
    /// The last mismatch, or the first other error if no procedure has a mismatch.
    failure: Option<BackendError>,
}

impl QueueCheck {
    fn new(queue: Arc<VerifiedQueue>) -> Self {
        Self { pending: queue.expected.len(), queue, failure: None }
    }

    /// Records the result of one procedure. Publishes the queue's result after its last procedure,
    /// so that the queue can be served while other queues are still being verified.
    fn record(&mut self, result: Result<(), BackendError>) {
        self.pending = self.pending.saturating_sub(1);
        if let Err(error) = result
            && (self.failure.is_none() || is_mismatch(&error))
        {
            self.failure = Some(error);
        }
        if self.pending > 0 {
            return;
        }
        let verification = match &self.failure {
            None => Verification::Passed,
            Some(error) => Verification::Failed(chain(error).into()),
        };
        self.queue.verification.send_if_modified(|current| {
            let is_new = *current != verification;
            *current = verification;
            is_new
        });
    }

    /// Returns three values for the log: whether the failure is a mismatch, the cause, and the
    /// queue's name.
    fn cause(&self) -> Option<(bool, String, String)> {
        let (error, queue) = (self.failure.as_ref()?, &self.queue.name);
        Some(match &error.kind {
            BackendErrorKind::Mismatch { procedure, difference } => {
                (true, difference.clone(), format!("{queue} ({procedure})"))
            }
            _ => (false, chain(error), queue.to_string()),
        })
    }
}

fn is_mismatch(error: &BackendError) -> bool {
    matches!(error.kind, BackendErrorKind::Mismatch { .. })
}

/// Names the first `NAMED_MAX` queues and counts the rest.
fn named(queues: &[String]) -> String {
    let shown = queues.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match queues.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::procedures::SqliteConfig;
    use crate::procedures::sqlite;

    #[tokio::test]
    async fn causes_beyond_the_maximum_are_logged_in_later_rounds() {
        let directory = tempfile::tempdir().unwrap();
        let config = SqliteConfig {
            file: directory.path().join("database"),
            schema: None,
            procedures: directory.path().to_owned(),
            connections_max: 1,
        };
        let queues = Arc::new(VerifiedQueues::default());
        let mut receivers = Vec::new();
        for number in 0..LINES_MAX + 4 {
            receivers.push(queues.add(QueueName::new(&format!("q{number}")).unwrap(), Vec::new()));
        }
        let mut verifier = Verifier {
            database: "d".to_owned(),
            backend: sqlite::connect(&config, "d").unwrap(),
            is_up: watch::channel(None).1,
            queues: Arc::clone(&queues),
            logged: BTreeSet::new(),
        };
        let fail = |queue: Arc<VerifiedQueue>| {
            let failure = Some(BackendError::mismatch("a.b", queue.name.to_string()));
            QueueCheck { failure, ..QueueCheck::new(queue) }
        };
        let checks: Vec<_> = queues.unverified().into_iter().map(fail).collect();
        verifier.log(&checks);
        assert_eq!(verifier.logged.len(), LINES_MAX);
        verifier.log(&checks);
        assert_eq!(verifier.logged.len(), LINES_MAX + 4);
        receivers.truncate(3);
        assert_eq!(queues.count(), 3, "the others have no receiver");
    }
}
