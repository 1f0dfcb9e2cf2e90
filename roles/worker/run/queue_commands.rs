//! Executes operators' commands that change queues until the worker stops: pause, resume and limit.

use std::sync::Arc;

use crate::config::limits::CONCURRENCY;
use crate::fleet::control::{CommandAnswer, ControlCommand, ControlResult};
use crate::roles::worker::intake::queue::Queue;

use super::queues::RunningQueues;

impl RunningQueues {
    /// Applies a command to those of its queues that this worker serves. Returns the result, and the names of these
    /// queues.
    pub(super) fn change(
        &self,
        command: &ControlCommand,
        answer: &CommandAnswer,
    ) -> (ControlResult, Vec<String>) {
        if let ControlCommand::LimitQueue { limit: Some(limit), .. } = command {
            let (floor, ceiling) = (CONCURRENCY.floor, CONCURRENCY.ceiling);
            if !(floor..=ceiling).contains(limit) {
                let fault = format!("expected a limit from {floor} to {ceiling}");
                return (Err(vec![fault]), Vec::new());
            }
        }
        let served = self.set.load();
        let (mut notes, mut changed) = (Vec::new(), Vec::new());
        for name in command.queues() {
            let queue = served.iter().find(|queue| queue.subjects.name.as_str() == name);
            let Some(queue) = queue.filter(|_| !changed.contains(name)) else { continue };
            let before = state(queue);
            notes.push(match command {
                ControlCommand::PauseQueues { .. } => self.pause(queue, answer.by()),
                ControlCommand::ResumeQueues { .. } => self.resume(queue),
                ControlCommand::LimitQueue { limit, .. } => set_limit(queue, *limit),
                _ => continue,
            });
            answer.log_queue_change(name, &before, &state(queue));
            changed.push(name.clone());
        }
        if changed.is_empty() {
            notes.push("serves none of these queues".to_owned());
        }
        (Ok(notes), changed)
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

/// Returns the state of a queue that commands can change, for the audit log.
fn state(queue: &Queue) -> String {
    let paused = if queue.snapshot().is_paused { ", paused" } else { "" };
    format!("limit {}{paused}", queue.limit())
}

fn set_limit(queue: &Arc<Queue>, limit: Option<usize>) -> String {
    let before = queue.limit();
    queue.set_operator_limit(limit);
    let (name, now, configured) = (&queue.subjects.name, queue.limit(), queue.configured_limit());
    let waits = if now > configured { "; calls may have to wait for a connection" } else { "" };
    format!(
        "queue {name}: concurrency limit {now} (previously {before}, configured {configured}){waits}"
    )
}
