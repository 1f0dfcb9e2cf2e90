//! Records which worker handles each attempt. Only that worker may reply to the attempt.

use crate::envelope::{EnvelopeError, Reply, WorkerId};

/// The workers that have identified themselves in a reply, by attempt.
#[derive(Debug, Default)]
pub(super) struct AttemptWorkers(Vec<AttemptWorker>);

#[derive(Debug)]
struct AttemptWorker {
    attempt: u32,
    worker: WorkerId,
}

impl AttemptWorkers {
    /// Checks whether a reply may be handled. The first worker that identifies itself is bound to
    /// the attempt until it refuses the attempt.
    ///
    /// # Errors
    /// `WrongWorker` if another worker is bound to the attempt.
    pub(super) fn check(
        &mut self,
        attempt: u32,
        worker: Option<&WorkerId>,
        reply: &Result<Reply, EnvelopeError>,
    ) -> Result<(), WrongWorker> {
        let is_refusal = matches!(reply, Ok(Reply::Refused { .. }));
        let bound = self.0.iter().position(|bound| bound.attempt == attempt);
        let Some(index) = bound else {
            if let Some(worker) = worker.filter(|_| !is_refusal) {
                self.0.push(AttemptWorker { attempt, worker: worker.clone() });
            }
            return Ok(());
        };
        if self.0.get(index).map(|bound| &bound.worker) != worker {
            return Err(WrongWorker);
        }
        if is_refusal {
            self.0.swap_remove(index);
        }
        Ok(())
    }
}

/// Error for a reply to an attempt that another worker is bound to.
#[derive(Debug)]
pub(super) struct WrongWorker;
