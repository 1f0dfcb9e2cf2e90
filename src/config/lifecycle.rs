//! `[lifecycle]`: start, drain, end.

use std::time::Duration;

/// How long the phases may take.
#[derive(Clone, Debug)]
pub struct LifecycleConfig {
    /// How long a gateway says "not ready" before it stops accepting, so that balancers notice.
    pub drain_delay: Duration,
    /// Longest wait for what still runs.
    pub drain_timeout: Duration,
}
