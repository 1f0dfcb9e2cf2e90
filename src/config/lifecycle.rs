//! `[lifecycle]`: the durations of the drain phases.

use std::time::Duration;

use super::limits;
use super::settings::SettingsTable;

/// The durations of the drain phases.
#[derive(Clone, Debug)]
pub struct LifecycleConfig {
    /// How long a gateway reports "not ready" before it stops accepting connections, so that load
    /// balancers notice.
    pub drain_delay: Duration,
    /// The maximum time for which a drain waits for running requests or calls.
    pub drain_timeout: Duration,
}

impl LifecycleConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        Self {
            drain_delay: table.get_limited("drain_delay", limits::DRAIN_DELAY),
            drain_timeout: table.get_limited("drain_timeout", limits::DRAIN_TIMEOUT),
        }
    }
}
