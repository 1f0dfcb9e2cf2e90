//! Executes operators' commands that change queues until the worker stops: pause, resume and limit.

use std::sync::Arc;

use crate::config::limits::CONCURRENCY;
use crate::fleet::control::{ControlCommand, ControlResult};
use crate::roles::worker::intake::queue::Queue;

use super::queues::RunningQueues;

impl RunningQueues {
    /// Applies a command to those of its queues that this worker serves. `by` is the user and host of the operator.
    pub(super) fn change(&self, command: &ControlCommand, by: &str) -> ControlResult {
        let served = self.set.load();
        let named = command.queues().iter();
        let queues: Vec<&Arc<Queue>> = named
            .filter_map(|name| served.iter().find(|queue| queue.subjects.name.as_str() == name))
            .collect();
        if queues.is_empty() {
            return Ok(vec!["serves none of these queues".to_owned()]);
        }
        match command {
            ControlCommand::PauseQueues { .. } => {
                Ok(queues.iter().map(|queue| self.pause(queue, by)).collect())
            }
            ControlCommand::ResumeQueues { .. } => {
                Ok(queues.iter().map(|queue| self.resume(queue)).collect())
            }
            ControlCommand::LimitQueue { limit, .. } => {
                queues.iter().map(|queue| set_limit(queue, *limit)).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    fn pause(&self, queue: &Queue, by: &str) -> String {
        queue.pause();
        let name = queue.subjects.name.as_str();
        self.readiness.note_paused(name, Some(by));
        format!("queue {name} is paused, with {} calls in progress", queue.snapshot().slots.running)
    }

    fn resume(&self, queue: &Queue) -> String {
        let name = queue.subjects.name.as_str();
        let was_paused = queue.snapshot().is_paused;
        queue.resume();
        self.readiness.note_paused(name, None);
        let was = if was_paused { "accepts requests" } else { "was not paused" };
        format!("queue {name} {was}")
    }
}

fn set_limit(queue: &Arc<Queue>, limit: Option<usize>) -> Result<String, Vec<String>> {
    let (floor, ceiling) = (CONCURRENCY.floor, CONCURRENCY.ceiling);
    if limit.is_some_and(|limit| !(floor..=ceiling).contains(&limit)) {
        return Err(vec![format!("expected a limit from {floor} to {ceiling}")]);
    }
    let before = queue.limit();
    queue.set_operator_limit(limit);
    let (name, now, configured) = (&queue.subjects.name, queue.limit(), queue.configured_limit());
    let waits = if now > configured { "; calls may have to wait for a connection" } else { "" };
    Ok(format!(
        "queue {name} runs up to {now} calls, before {before}, configured {configured}{waits}"
    ))
}
