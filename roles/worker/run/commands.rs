//! Executes operators' commands in a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Sources;
use crate::fleet;
use crate::fleet::control::{ControlCommand, ControlResult, ReceivedCommand};
use crate::messaging;
use crate::procedures::ExpectedProcedure;
use crate::procedures::databases::DatabaseKey;
use crate::roles::worker::intake::version;
use crate::roles::worker::prepare::PreparedWorker;

use super::WorkerProcess;

impl WorkerProcess {
    /// Executes or starts a command, and answers it. Returns whether the worker must drain.
    pub(super) async fn execute(&mut self, received: ReceivedCommand, sources: &Sources) -> bool {
        let (command, deadline, answer) = received.into_parts();
        match command {
            ControlCommand::CheckReload => {
                let unserved = self.queues.readiness.unserved();
                match self.prepare_reload(sources) {
                    Ok((_, prepared)) => {
                        let _detached = self.tasks.spawn_background(async move {
                            answer.send(verify(&prepared, &unserved, deadline).await).await;
                        });
                    }
                    Err(errors) => {
                        answer.send(Err(errors.iter().map(ToString::to_string).collect())).await;
                    }
                }
            }
            ControlCommand::Reload { rollout: id } => {
                let unserved = self.queues.readiness.unserved();
                match self.reload(sources, true) {
                    Ok(rollout) => {
                        self.last_rollout = Some(id);
                        let transport = Arc::clone(&self.transport);
                        let _detached = self.tasks.spawn_background(async move {
                            let settings = messaging::settings_applied(&*transport, deadline).await;
                            let limit = deadline.saturating_duration_since(Instant::now());
                            let problems = rollout.finish(limit).await;
                            let result = fleet::control::also(split(problems, &unserved), settings);
                            answer.send(result).await;
                        });
                    }
                    Err(errors) => {
                        answer.send(Err(errors.iter().map(ToString::to_string).collect())).await;
                    }
                }
            }
            ControlCommand::FinishReload { rollout } => {
                answer.send(self.finish_reload(&rollout)).await;
            }
            ControlCommand::Drain => {
                let count = self.queues.executor.jobs.count();
                answer.send(Ok(vec![format!("drains, with {count} calls in progress")])).await;
                return true;
            }
            ControlCommand::PauseQueues { .. }
            | ControlCommand::ResumeQueues { .. }
            | ControlCommand::LimitQueue { .. } => {
                let (result, changed) = self.queues.change(&command, &answer);
                answer.send_changed(result, changed).await;
            }
            // The receiver of commands has already executed this command.
            ControlCommand::WeighQueues { .. } | ControlCommand::SetLogFilter { .. } => {
                answer.send(Ok(Vec::new())).await;
            }
        }
        false
    }
}

impl WorkerProcess {
    /// Stops serving the queues and endpoints that a rollout's configuration does not have. A command that arrives
    /// after a later reload must not remove queues and endpoints that gateways still use.
    fn finish_reload(&mut self, rollout: &str) -> ControlResult {
        let is_last = self.last_rollout.as_deref() == Some(rollout);
        if !is_last && self.queues.has_unconfigured() {
            let fault = "another reload has been applied since this one: run fjord reload again";
            return Err(vec![fault.to_owned()]);
        }
        let removed = self.queues.remove_unconfigured(&self.config);
        let note = |name| format!("queue {name} is no longer served");
        Ok(removed.into_iter().map(note).collect())
    }
}

/// Compares the procedures in the new configuration with those in the databases. A queue that was not served before
/// does not prevent a reload.
async fn verify(
    prepared: &PreparedWorker,
    unserved: &BTreeSet<String>,
    deadline: Instant,
) -> ControlResult {
    let mut expected: BTreeMap<DatabaseKey, Vec<ExpectedProcedure>> = BTreeMap::new();
    for queue in &prepared.queues {
        let procedures = version::expected_procedures(&queue.endpoints);
        expected.entry(DatabaseKey::from_queue(&queue.config)).or_default().extend(procedures);
    }
    split(prepared.databases.verify_once(&expected, deadline).await, unserved)
}

/// Separates the problems of queues that were not served before from all other problems.
fn split(
    problems: impl IntoIterator<Item = (String, String)>,
    unserved: &BTreeSet<String>,
) -> ControlResult {
    let (notes, faults): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|(queue, _)| unserved.contains(queue));
    let line = |(queue, problem): (String, String)| format!("queue {queue}: {problem}");
    if faults.is_empty() {
        let line = |problem| format!("{} (not served before the reload either)", line(problem));
        return Ok(notes.into_iter().map(line).collect());
    }
    Err(faults.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_queue_that_was_served_before_prevents_a_reload() {
        let problems = |names: &[&str]| -> Vec<(String, String)> {
            names.iter().map(|name| ((*name).to_owned(), "broken".to_owned())).collect()
        };
        let unserved = BTreeSet::from(["old".to_owned()]);
        assert_eq!(split(problems(&[]), &unserved), Ok(Vec::new()));
        let note = "queue old: broken (not served before the reload either)".to_owned();
        assert_eq!(split(problems(&["old"]), &unserved), Ok(vec![note]));
        let fault = "queue new: broken".to_owned();
        assert_eq!(split(problems(&["new", "old"]), &unserved), Err(vec![fault.clone()]));
        // Each problem of a queue has a line of its own.
        assert_eq!(split(problems(&["new", "new"]), &unserved), Err(vec![fault.clone(), fault]));
    }
}
