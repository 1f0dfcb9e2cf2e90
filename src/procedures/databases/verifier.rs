//! Whether a database has what its queues need: asked for all of them together, and again for those that do not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::jittered;
use crate::catalogue::QueueName;
use crate::procedures::{Backend, BackendError, BackendErrorKind, Need};
use crate::telemetry::chain;

/// The pause before queues that are not served are looked at again; it doubles each time, and is varied at random so
/// that a fleet does not ask in step.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause: so long at most, and half of it more, a procedure that was made meanwhile is not noticed.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Causes that are logged after one look. The others stand in `/readyz`, as all do.
const LINES_MAX: usize = 16;
/// Queues that a line names.
const NAMED_MAX: usize = 8;

/// What is known of a queue's procedures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// The database has what the queue needs.
    Fits,
    /// It has not, or that is not known: why.
    Unfit(Arc<str>),
}

/// The queues of a database.
#[derive(Debug, Default)]
pub(super) struct Queues {
    entries: Mutex<Vec<Arc<Entry>>>,
    added: Notify,
}

#[derive(Debug)]
struct Entry {
    queue: QueueName,
    needs: Vec<Need>,
    fitness: watch::Sender<Fitness>,
}

impl Queues {
    /// Enters a queue. It is looked at as long as somebody has the receiver.
    pub(super) fn enter(&self, queue: QueueName, needs: Vec<Need>) -> watch::Receiver<Fitness> {
        let (fitness, known) = watch::channel(Fitness::Unfit("its database was not asked".into()));
        let entry = Arc::new(Entry { queue, needs, fitness });
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.added.notify_one();
        known
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The queues that are not known to fit.
    fn unfit(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| !entry.fitness.is_closed());
        let unfit = entries.iter().filter(|entry| *entry.fitness.borrow() != Fitness::Fits);
        unfit.cloned().collect()
    }

    /// The database is away: whatever comes back may be another one.
    fn forget(&self) {
        let away: Arc<str> = "its database is not available".into();
        for entry in self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            entry.fitness.send_replace(Fitness::Unfit(Arc::clone(&away)));
        }
    }
}

/// Looks at the queues of one database.
pub(super) struct Verifier {
    pub(super) database: String,
    pub(super) backend: Arc<dyn Backend>,
    /// Whether the database answers; `None` until it was asked.
    pub(super) up: watch::Receiver<Option<bool>>,
    pub(super) queues: Arc<Queues>,
    /// The causes that stand in the log.
    pub(super) logged: BTreeSet<String>,
}

impl Verifier {
    /// Looks until nobody watches the database any more.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut up = self.up.clone();
        while up.wait_for(|up| *up == Some(true)).await.is_ok() {
            let is_whole = tokio::select! {
                () = down(&mut up) => {
                    self.queues.forget();
                    pause = PAUSE_MIN;
                    continue;
                }
                is_whole = self.look() => is_whole,
            };
            let again = sleep(jittered(pause));
            pause = if is_whole { PAUSE_MIN } else { PAUSE_MAX.min(pause * 2) };
            tokio::select! {
                () = down(&mut up) => {
                    self.queues.forget();
                    pause = PAUSE_MIN;
                }
                () = self.queues.added.notified() => {}
                () = again, if !is_whole => {}
            }
        }
    }

    /// Looks at every queue that is not known to fit. Says whether all do now.
    async fn look(&mut self) -> bool {
        let mut looks: Vec<Look> = self.queues.unfit().into_iter().map(Look::new).collect();
        let needs: Vec<Need> =
            looks.iter().flat_map(|look| look.entry.needs.iter().cloned()).collect();
        let owners: Vec<usize> = looks
            .iter()
            .enumerate()
            .flat_map(|(owner, look)| look.entry.needs.iter().map(move |_| owner))
            .collect();
        let mut found = |place: usize, result: Result<(), BackendError>| {
            let owner = owners.get(place).copied();
            if let Some(look) = owner.and_then(|owner| looks.get_mut(owner)) {
                look.found(result);
            }
        };
        self.backend.verify(&needs, &mut found).await;
        self.log(&looks);
        looks.iter().all(|look| look.failure.is_none() && look.left == 0)
    }

    /// A line for each cause that is not in the log yet, and one when the last is gone.
    fn log(&mut self, looks: &[Look]) {
        let mut causes: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for look in looks {
            if let Some((is_misfit, cause, named)) = look.cause() {
                causes.entry((is_misfit, cause)).or_default().push(named);
            }
        }
        let database = self.database.as_str();
        let mut fresh = 0_usize;
        for ((is_misfit, cause), queues) in &causes {
            if self.logged.contains(cause) {
                continue;
            }
            fresh += 1;
            let (count, named) = (queues.len(), named(queues));
            match is_misfit {
                _ if fresh > LINES_MAX => {}
                true => tracing::error!(
                    database,
                    queues = count,
                    named,
                    cause,
                    "queues do not fit their database and are not served"
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
            tracing::error!(database, more, "more causes why queues are not served: see /readyz");
        }
        if causes.is_empty() && !self.logged.is_empty() {
            tracing::info!(database, "every queue fits its database now");
        }
        self.logged = causes.into_keys().map(|(_, cause)| cause).collect();
    }
}

/// Waits until the database is away.
async fn down(up: &mut watch::Receiver<Option<bool>>) {
    // Without anybody who watches it is as good as away: the loop above ends.
    let _ended = up.wait_for(|up| *up != Some(true)).await;
}

/// One look at a queue.
struct Look {
    entry: Arc<Entry>,
    /// Needs of which nothing was heard.
    left: usize,
    /// The first that is not met; one that does not fit before one of which that is not known.
    failure: Option<BackendError>,
}

impl Look {
    fn new(entry: Arc<Entry>) -> Self {
        Self { left: entry.needs.len(), entry, failure: None }
    }

    /// What was found of one need. A queue of which all is known can be served while others are still looked at.
    fn found(&mut self, result: Result<(), BackendError>) {
        self.left = self.left.saturating_sub(1);
        if let Err(error) = result
            && (self.failure.is_none() || is_misfit(&error))
        {
            self.failure = Some(error);
        }
        if self.left > 0 {
            return;
        }
        let fitness = match &self.failure {
            None => Fitness::Fits,
            Some(error) => Fitness::Unfit(chain(error).into()),
        };
        self.entry.fitness.send_if_modified(|known| {
            let is_new = *known != fitness;
            *known = fitness;
            is_new
        });
    }

    /// Whether it does not fit, why, and how a line names it.
    fn cause(&self) -> Option<(bool, String, String)> {
        let (error, queue) = (self.failure.as_ref()?, &self.entry.queue);
        Some(match &error.kind {
            BackendErrorKind::Mismatch { procedure, difference } => {
                (true, difference.clone(), format!("{queue} ({procedure})"))
            }
            _ => (false, chain(error), queue.to_string()),
        })
    }
}

fn is_misfit(error: &BackendError) -> bool {
    matches!(error.kind, BackendErrorKind::Mismatch { .. })
}

/// Some of the queues, and how many more there are.
fn named(queues: &[String]) -> String {
    let shown = queues.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match queues.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
