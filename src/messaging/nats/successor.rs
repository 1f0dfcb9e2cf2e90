//! Replaces the client after a reload has changed its configuration: the new client is used only if the server accepts all
//! subscriptions of the previous one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use super::client::NatsClient;
use super::convert;
use super::shared::{CREATE_RETRY, NatsShared, REFUSAL_DELAY_MAX};
use super::subscription_handle::SubscriptionHandle;
use crate::config::messaging::NatsConfig;
use crate::lifecycle::Tasks;
use crate::messaging::{SettingsState, TransportError};
use crate::telemetry::{counter, names};

/// The interval at which a new client is asked whether it is connected.
const CONNECT_CHECK: Duration = Duration::from_millis(20);
/// How long a client is kept after it was last used.
const PREVIOUS_KEPT: Duration = Duration::from_secs(2);

/// A client that uses the reloaded configuration, with the subscriptions that the server has accepted.
pub(super) struct Successor {
    client: Arc<NatsClient>,
    config: Arc<NatsConfig>,
    subscriptions: Vec<TrialSubscription>,
}

/// A subscription of a client that is not used yet.
type TrialSubscription = (Arc<SubscriptionHandle>, Subscriber);

impl NatsShared {
    /// Applies a reloaded configuration. Does nothing if neither it nor a file that it names has changed.
    pub(super) fn reconfigure(&self, config: &NatsConfig) {
        if config.inbox_prefix != self.config.load().inbox_prefix {
            // The subscriptions keep their subjects, for which a new user may lack the permission. Until the restart that
            // the log asks for, the old connection remains.
            return;
        }
        let files = config.file_versions();
        let mut used = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = *used == files && **self.config.load() == *config;
        *used = files;
        drop(used);
        if is_same {
            // The settings that the server refused are no longer wanted.
            self.settings.send_if_modified(|state| {
                let was_refused = matches!(state, SettingsState::Refused(_));
                if was_refused {
                    *state = SettingsState::InUse;
                }
                was_refused
            });
        } else {
            self.config.store(Arc::new(config.clone()));
            self.settings.send_replace(SettingsState::Pending);
            self.reconfigured.notify_one();
        }
    }

    /// Waits for a reload, and returns a client that can be used with the new configuration.
    pub(super) async fn successor(&self) -> Successor {
        loop {
            self.reconfigured.notified().await;
            let connected = loop {
                tokio::select! {
                    connected = self.connect_successor() => break connected,
                    // The configuration has changed again.
                    () = self.reconfigured.notified() => {}
                }
            };
            let (client, config) = connected;
            match self.try_subscriptions(&client).await {
                Ok(subscriptions) => return Successor { client, config, subscriptions },
                Err(refusal) => self.refuse(client, &config, refusal),
            }
        }
    }

    async fn connect_successor(&self) -> (Arc<NatsClient>, Arc<NatsConfig>) {
        let config = self.config.load_full();
        let parts = (&self.state, &self.probes);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.state.begin_trial(number);
        let client = loop {
            match NatsClient::start(&config, &self.name, number, parts).await {
                Ok(client) => break Arc::new(client),
                Err(error) => tracing::error!(%error, "cannot create a NATS client"),
            }
            sleep(CREATE_RETRY).await;
        };
        let connecting = Arc::clone(&client);
        let connected = async move {
            while !connecting.is_connected() {
                sleep(CONNECT_CHECK).await;
            }
        };
        let mut connected = std::pin::pin!(connected);
        if timeout(config.connect_timeout * 2, &mut connected).await.is_err() {
            tracing::error!(
                "no connection to NATS with the reloaded settings yet; the previous connection stays in use"
            );
            connected.await;
        }
        (client, config)
    }

    /// Makes all accepted subscriptions on a client that is not used yet, and waits until the server has processed them.
    async fn try_subscriptions(
        &self,
        client: &NatsClient,
    ) -> Result<Vec<TrialSubscription>, (String, Vec<TrialSubscription>)> {
        let mut made = Vec::new();
        let confirmed = async {
            for handle in self.state.subscriptions.accepted() {
                let subscriber = handle.subscribe(&client.inner).await?;
                made.push((handle, subscriber));
            }
            self.confirm(client).await
        };
        let limit = client.operation_timeout + self.config.load().ping_interval;
        let confirmed = timeout(limit, confirmed).await.unwrap_or(Err(TransportError::TimedOut));
        let refusals = self.state.end_trial();
        match (confirmed, refusals.first()) {
            (Ok(()), None) => Ok(made),
            (_, Some(refusal)) => {
                let more = refusals.len() - 1;
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                Err((format!("{refusal}{more}"), made))
            }
            (Err(error), None) => Err((error.to_string(), made)),
        }
    }

    /// Waits until the server has processed the subscriptions of a client and reported all refusals.
    async fn confirm(&self, client: &NatsClient) -> Result<(), TransportError> {
        // Only this client subscribes to the subject, so the message has come back on its connection.
        let subject = convert::subject(&self.probes.trial_subject(client.number));
        let subscribed = client.inner.subscribe(subject.clone()).await;
        let mut returned = subscribed.map_err(|error| TransportError::Refused(error.into()))?;
        let sent = client.inner.publish(subject, Bytes::new()).await;
        sent.map_err(|error| TransportError::Refused(error.into()))?;
        if returned.next().await.is_none() {
            return Err(TransportError::Disconnected);
        }
        sleep(REFUSAL_DELAY_MAX).await;
        Ok(())
    }

    /// Keeps the previous client and its configuration, because the server refuses subscriptions of the new one.
    fn refuse(
        &self,
        client: Arc<NatsClient>,
        tried: &Arc<NatsConfig>,
        (refusal, made): (String, Vec<TrialSubscription>),
    ) {
        tracing::error!(
            error = refusal,
            "NATS refuses the reloaded settings; the previous connection and settings stay in use"
        );
        let result = (names::RESULT, "failed".to_owned());
        counter(&names::CONFIG_RELOADS, &[result]).increment(1);
        let is_latest = Arc::ptr_eq(tried, &self.config.load());
        if is_latest {
            self.config.store(self.config_in_use.load_full());
            // The same configuration is tried again by the next reload.
            self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.settings.send_replace(SettingsState::Refused(refusal));
        }
        let _detached = Tasks::new().spawn_background(async move {
            for (handle, mut subscriber) in made {
                // Requests that a group has already delivered to this client are still executed.
                if handle.group.is_some() && subscriber.unsubscribe().await.is_ok() {
                    handle.read_also(subscriber);
                }
            }
            sleep(PREVIOUS_KEPT).await;
            drop(client);
        });
    }

    /// Uses another client, whose subscriptions the server has accepted. Messages that only the previous client receives are
    /// lost, as if its connection had been, so the link gets a new epoch.
    pub(super) async fn switch_to(&self, previous: Arc<NatsClient>, next: Successor) {
        let Successor { client, config, subscriptions } = next;
        self.state.switch_client(client.number);
        for (handle, mut subscriber) in subscriptions {
            // Both clients have received these messages. A group delivers each message only once.
            if handle.group.is_none() {
                while let Some(Some(_)) = subscriber.next().now_or_never() {}
            }
            handle.carry_on(subscriber, client.number);
        }
        self.client.store(Arc::clone(&client));
        self.use_config(config);
        // Makes the subscriptions that were added in the meantime.
        self.subscribe_all(&client).await;
        previous.retire();
        tracing::info!("connected to NATS with the reloaded settings");
        let _detached = Tasks::new().spawn_background(async move {
            // Messages that were passed to the previous client are still being written.
            sleep(PREVIOUS_KEPT).await;
            drop(previous);
        });
    }
}
