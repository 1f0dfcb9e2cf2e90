//! Tracks tasks so that a drain can wait for them.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A set of tasks for which a drain can wait. Cloning it is cheap, and clones share the tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task for which a drain waits.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(task)
    }

    /// Spawns a task for which no drain waits. It may run until the process exits.
    pub fn spawn_background<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[expect(
            clippy::disallowed_methods,
            reason = "the only place where untracked tasks are spawned"
        )]
        tokio::spawn(task)
    }

    /// Returns the number of running tasks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until all tasks have ended, but for at most `limit`. Returns whether they have ended.
    /// Cancel safe.
    pub async fn wait(&self, limit: Duration) -> bool {
        self.0.close();
        tokio::time::timeout(limit, self.0.wait()).await.is_ok()
    }
}
