//! The state shared by the tasks and operations of the transport.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::client::NatsClient;
use super::connection_state::ConnectionState;
use super::probe::LinkProbes;
use super::round_trip::RoundTripMeter;
use crate::config::messaging::NatsConfig;
use crate::file_version::FileVersion;
use crate::lifecycle::Cancel;
use crate::messaging::SettingsState;

/// The maximum time after the return of a probe at which another task may still report an earlier refusal.
pub(super) const REFUSAL_DELAY_MAX: Duration = Duration::from_millis(50);
/// The pause after a client could not be created.
pub(super) const CREATE_RETRY: Duration = Duration::from_secs(1);

/// The state that the supervisor shares with the transport's operations.
#[derive(Debug)]
pub(super) struct NatsShared {
    pub(super) config: ArcSwap<NatsConfig>,
    /// The versions of the files named in the configuration, as of the last reload that used them.
    pub(super) files: Mutex<Vec<Option<FileVersion>>>,
    /// Notified when a reload has changed the configuration or one of its files.
    pub(super) reconfigured: Notify,
    pub(super) name: String,
    pub(super) client: ArcSwap<NatsClient>,
    /// The configuration with which the client was created.
    pub(super) config_in_use: ArcSwap<NatsConfig>,
    /// Whether the client uses the configuration of the last reload.
    pub(super) settings: watch::Sender<SettingsState>,
    /// The number of the next client.
    pub(super) next_number: AtomicU64,
    pub(super) state: Arc<ConnectionState>,
    pub(super) probes: Arc<LinkProbes>,
    pub(super) round_trip: Mutex<RoundTripMeter>,
    /// Set when the transport is dropped.
    pub(super) stop: Cancel,
}

impl NatsShared {
    /// Records the configuration that the client uses.
    pub(super) fn use_config(&self, config: Arc<NatsConfig>) {
        if Arc::ptr_eq(&config, &self.config.load()) {
            self.settings.send_replace(SettingsState::InUse);
        }
        self.config_in_use.store(config);
    }

    /// Restarts a trial that ended because the client in use was lost.
    pub(super) fn resume_trial(&self) {
        if *self.settings.borrow() == SettingsState::Pending {
            self.reconfigured.notify_one();
        }
    }

    pub(super) fn lock_round_trip(&self) -> MutexGuard<'_, RoundTripMeter> {
        self.round_trip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn subscribe_all(&self, client: &NatsClient) {
        for handle in self.state.subscriptions.accepted() {
            if let Err(error) = handle.subscribe_on(&client.inner, client.number).await {
                tracing::warn!(%error, subject = %handle.subject, "cannot subscribe");
            }
        }
    }
}
