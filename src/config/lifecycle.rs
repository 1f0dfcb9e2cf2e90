//! `[lifecycle]`: start, drain, end.

use std::time::Duration;

use super::limits;
use super::settings::Table;

/// How long the phases may take.
#[derive(Clone, Debug)]
pub struct LifecycleConfig {
    /// How long a gateway says "not ready" before it stops accepting, so that balancers notice.
    pub drain_delay: Duration,
    /// Longest wait for what still runs.
    pub drain_timeout: Duration,
}

impl LifecycleConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            drain_delay: table.limited("drain_delay", limits::DRAIN_DELAY),
            drain_timeout: table.limited("drain_timeout", limits::DRAIN_TIMEOUT),
        }
    }
}
