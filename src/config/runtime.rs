//! `[runtime]`: the threads of the process.

use super::limits;
use super::settings::SettingsTable;

/// The threads of the process.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The number of threads that handle messages and connections. `None` is one for each core.
    pub threads: Option<usize>,
}

impl RuntimeConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let is_set = table.has("threads");
        let threads = is_set.then(|| table.get_limited("threads", limits::THREADS));
        Self { threads }
    }
}
