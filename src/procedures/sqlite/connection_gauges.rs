//! The gauges of a database's connections.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::procedures::APPLICATION_NAME;
use crate::telemetry::{self, Gauge, names};

/// The numbers of connections, recorded until the database is replaced. The series are looked up
/// once, so that removed series do not reappear.
#[derive(Default)]
pub(super) struct ConnectionGauges {
    gauges: OnceLock<[Gauge; 2]>,
    is_retired: AtomicBool,
}

impl fmt::Debug for ConnectionGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionGauges").finish_non_exhaustive()
    }
}

impl ConnectionGauges {
    /// Stops recording, because the database was replaced or removed.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Records the numbers of idle and used connections.
    #[expect(clippy::cast_precision_loss, reason = "gauges of a few connections")]
    pub(super) fn record(&self, database: &str, idle: usize, used: usize) {
        if self.is_retired.load(Ordering::Acquire) {
            return;
        }
        let gauge = |state: &str| {
            let application = (names::APPLICATION, APPLICATION_NAME.to_owned());
            let database = (names::DATABASE, database.to_owned());
            let labels = [database, application, (names::STATE, state.to_owned())];
            telemetry::gauge(&names::BACKEND_CONNECTIONS, &labels)
        };
        let [idle_gauge, used_gauge] = self.gauges.get_or_init(|| [gauge("idle"), gauge("used")]);
        idle_gauge.set(idle as f64);
        used_gauge.set(used as f64);
    }
}
