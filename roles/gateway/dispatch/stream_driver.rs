//! Forwards the rest of a streamed answer after its response has begun.

use crate::envelope::AnswerHead;
use crate::lifecycle::Cancel;
use crate::roles::gateway::response::StreamedBody;
use crate::telemetry::context;

use super::session_summary::SessionSummary;
use super::session_task::SessionGuard;

/// An answer that has begun.
#[derive(Debug)]
pub struct StreamingAnswer {
    /// The status and media type of the answer.
    pub head: AnswerHead,
    /// The response body.
    pub body: StreamedBody,
    /// The driver that forwards the rest of the answer to the body.
    pub driver: StreamDriver,
}

/// The session of an answer that has begun. Dropping it before `drive` counts as a disconnect.
#[derive(Debug)]
pub struct StreamDriver {
    guard: SessionGuard,
    /// Cancelled when no more chunks will be sent.
    ended: Cancel,
}

impl StreamDriver {
    pub(super) fn new(guard: SessionGuard, ended: Cancel) -> Self {
        Self { guard, ended }
    }

    /// Returns the number of attempts.
    #[must_use]
    pub fn attempts_made(&mut self) -> u32 {
        self.guard.task().map_or(0, |task| task.attempts_made())
    }

    /// Runs the session to its end in its own task and then calls `on_end`.
    pub fn drive(mut self, on_end: impl FnOnce(&SessionSummary) + Send + 'static) {
        let Some(services) = self.guard.task().map(|task| task.services().clone()) else {
            return;
        };
        let _detached = services.tasks.spawn(context::inherit(async move {
            let _ended = self.ended.cancel_on_drop();
            if let Some(task) = self.guard.task() {
                let end = task.continue_to_end().await;
                if let Some(task) = self.guard.take() {
                    on_end(&task.finish(end));
                }
            }
        }));
    }
}
