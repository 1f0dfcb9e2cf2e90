//! The queues that this worker serves. A reload replaces the set.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::queue::Queue;

/// The queues of this worker. Cheap to clone; all clones see a replacement.
#[derive(Clone, Debug, Default)]
pub struct QueueSet(Arc<ArcSwap<Vec<Arc<Queue>>>>);

impl QueueSet {
    /// Returns the current queues.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Vec<Arc<Queue>>>> {
        self.0.load()
    }

    /// Replaces the queues.
    pub fn store(&self, queues: Vec<Arc<Queue>>) {
        self.0.store(Arc::new(queues));
    }
}
