//! Observes whether a database answers, for metrics, readiness and the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::jitter::jittered;
use crate::lifecycle::Cancel;
use crate::telemetry::{chain, conditions, gauge, names};

use super::verifier::VerifiedQueues;
use super::{Backend, JITTER, UNREACHABLE};

/// The pause between pings of a database that answers.
const PING_PAUSE_UP: Duration = Duration::from_secs(1);
/// The pause between pings of a database that does not answer.
const PING_PAUSE_DOWN: Duration = Duration::from_millis(500);
/// The time limit for a ping, in case a backend exceeds its own connect timeout.
const PING_TIMEOUT: Duration = Duration::from_mins(1);
/// The task that pings a database periodically.
pub(super) struct AvailabilityMonitor {
    pub(super) name: Arc<str>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) queues: Arc<VerifiedQueues>,
    /// Set once the metrics belong to the database's replacement.
    pub(super) is_replaced: Cancel,
    /// Whether the database answers, or `None` before the first ping.
    pub(super) is_up: watch::Sender<Option<bool>>,
}

impl AvailabilityMonitor {
    /// Pings the database until the task is dropped.
    pub(super) async fn run(self) {
        let name = &*self.name;
        let metric = gauge(&names::BACKEND_UP, &[(names::DATABASE, name.to_owned())]);
        let mut since = Instant::now();
        loop {
            let answer = timeout(PING_TIMEOUT, self.backend.ping()).await;
            let answer = answer.map_err(|_| "no answer in time".to_owned());
            let answer = answer.and_then(|answer| answer.map_err(|error| chain(&error)));
            let is_up = answer.is_ok();
            if !self.is_replaced.is_cancelled() {
                metric.set(if is_up { 1.0 } else { 0.0 });
            }
            let was_up = *self.is_up.borrow();
            if was_up != Some(is_up) {
                self.log(was_up, answer, since.elapsed());
                since = Instant::now();
                self.is_up.send_replace(Some(is_up));
            } else if is_up {
                conditions::resolve_if_quiet(&UNREACHABLE, name);
            }
            sleep(jittered(if is_up { PING_PAUSE_UP } else { PING_PAUSE_DOWN }, JITTER)).await;
        }
    }

    /// Logs that the database has stopped answering or answers again, with the length of the outage
    /// and the number of refused calls.
    fn log(&self, was_up: Option<bool>, answer: Result<(), String>, lasted: Duration) {
        let (database, queues) = (&*self.name, self.queues.count());
        match answer {
            Err(cause) => {
                tracing::error!(database, queues, cause, "the database does not answer");
            }
            Ok(()) if was_up.is_none() => tracing::debug!(database, "the database answers"),
            Ok(()) => {
                let calls_refused = conditions::resolve(&UNREACHABLE, database);
                let seconds = lasted.as_secs_f64();
                tracing::info!(database, queues, seconds, calls_refused, "the database answers");
            }
        }
    }
}
