//! Replaces the client after a reload has changed its configuration. The new client is used only if the server accepts
//! all subscriptions of the previous one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use super::client::NatsClient;
use super::convert;
use super::shared::{CREATE_RETRY, NatsShared, REFUSAL_DELAY_MAX};
use super::subscription_handle::SubscriptionHandle;
use crate::config::messaging::NatsConfig;
use crate::lifecycle::Tasks;
use crate::messaging::{SettingsState, TransportError};
use crate::telemetry::chain;

/// The interval at which a new client's connection state is polled.
const CONNECT_CHECK: Duration = Duration::from_millis(20);
/// How long a client is kept after its last use.
const PREVIOUS_KEPT: Duration = Duration::from_secs(2);

/// A client that uses the reloaded configuration, and the subscriptions that the server has accepted on it.
pub(super) struct Successor {
    client: Arc<NatsClient>,
    config: Arc<NatsConfig>,
    subscriptions: Vec<TrialSubscription>,
}

/// A client that failed to take over with the reloaded configuration.
struct FailedTrial {
    reason: FailureReason,
    client: Arc<NatsClient>,
    config: Arc<NatsConfig>,
}

/// The reason why a client cannot be used.
enum FailureReason {
    /// The server has refused subscriptions.
    Refused(String),
    /// The server has not confirmed the subscriptions. For example, the connection was lost.
    NotConfirmed(TransportError),
}

/// A subscription made on a client that is not used yet.
type TrialSubscription = (Arc<SubscriptionHandle>, Subscriber);

impl NatsShared {
    /// Applies a reloaded configuration. Does nothing if neither the configuration nor a file named in it has changed.
    pub(super) fn reconfigure(&self, config: &NatsConfig) {
        if config.inbox_prefix != self.config.load().inbox_prefix {
            // The subscriptions keep their subjects. A new user may lack the permission for these subjects. The old
            // connection therefore remains until the restart that the log asks for.
            return;
        }
        let files = config.file_versions();
        let mut used = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = *used == files && **self.config.load() == *config;
        *used = files;
        drop(used);
        if is_same {
            // The settings that the server refused have been withdrawn.
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

    /// Waits for a reload and returns a client that can be used with the new configuration.
    pub(super) async fn successor(&self) -> Successor {
        loop {
            self.reconfigured.notified().await;
            loop {
                let tried = tokio::select! {
                    tried = self.try_settings() => tried,
                    // The configuration has changed again in the meantime.
                    () = self.reconfigured.notified() => continue,
                };
                match tried {
                    Ok(successor) => return successor,
                    Err(FailedTrial {
                        reason: FailureReason::Refused(refusal),
                        client,
                        config,
                    }) => {
                        self.refuse(&config, refusal);
                        end_slowly(client);
                        break;
                    }
                    Err(FailedTrial {
                        reason: FailureReason::NotConfirmed(error), client, ..
                    }) => {
                        let error = chain(&error);
                        tracing::warn!(
                            error,
                            "NATS has not confirmed the subscriptions with the reloaded settings; trying again"
                        );
                        end_slowly(client);
                        sleep(CREATE_RETRY).await;
                    }
                }
            }
        }
    }

    /// Connects with the new configuration and makes all accepted subscriptions on the new client.
    async fn try_settings(&self) -> Result<Successor, FailedTrial> {
        let (client, config) = self.connect_successor().await;
        match self.try_subscriptions(&client).await {
            Ok(subscriptions) => Ok(Successor { client, config, subscriptions }),
            Err(reason) => Err(FailedTrial { reason, client, config }),
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

    /// Makes all accepted subscriptions on a client that is not used yet, and waits until the server has processed
    /// them. Queue groups are joined only after the server has accepted the other subscriptions. A group delivers
    /// requests to a new member immediately, so they are read in the meantime. After a failure, the client leaves the
    /// groups without losing requests.
    async fn try_subscriptions(
        &self,
        client: &NatsClient,
    ) -> Result<Vec<TrialSubscription>, FailureReason> {
        let (groups, others): (Vec<_>, Vec<_>) =
            self.state.subscriptions.accepted().into_iter().partition(|one| one.group.is_some());
        let (mut made, mut joined) = (Vec::new(), JoinedGroups(Vec::new()));
        let confirmed = async {
            for handle in others {
                let subscriber = handle.subscribe(&client.inner).await?;
                made.push((handle, subscriber));
            }
            self.confirm(client).await?;
            if self.state.has_trial_refusal() {
                return Ok(());
            }
            for handle in groups {
                let subscriber = handle.subscribe(&client.inner).await?;
                joined.0.push((handle, subscriber));
            }
            joined.forward_until(self.confirm(client)).await
        };
        let limit = client.operation_timeout + self.config.load().ping_interval;
        let confirmed = timeout(limit, confirmed).await.unwrap_or(Err(TransportError::TimedOut));
        let refusals = self.state.end_trial();
        match (confirmed, refusals.first()) {
            (Ok(()), None) => {
                made.append(&mut joined.0);
                Ok(made)
            }
            (_, Some(refusal)) => {
                let more = refusals.len() - 1;
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                Err(FailureReason::Refused(format!("{refusal}{more}")))
            }
            (Err(error), None) => Err(FailureReason::NotConfirmed(error)),
        }
    }

    /// Waits until the server has processed the subscriptions of a client and reported all refusals.
    async fn confirm(&self, client: &NatsClient) -> Result<(), TransportError> {
        // No other client subscribes to this subject, so the message must have come back on this client's connection.
        let subject = convert::subject(&self.probes.trial_subject(client.number));
        let subscribed = client.inner.subscribe(subject.clone()).await;
        let mut returned = subscribed.map_err(|error| TransportError::Failed(error.into()))?;
        let sent = client.inner.publish(subject, Bytes::new()).await;
        sent.map_err(|error| TransportError::Failed(error.into()))?;
        if returned.next().await.is_none() {
            return Err(TransportError::Disconnected);
        }
        sleep(REFUSAL_DELAY_MAX).await;
        Ok(())
    }

    /// Keeps the previous client and its configuration because the server refuses subscriptions of the new client.
    fn refuse(&self, tried: &Arc<NatsConfig>, refusal: String) {
        tracing::error!(
            error = refusal,
            "NATS refuses the reloaded settings; the previous connection and settings stay in use"
        );
        if Arc::ptr_eq(tried, &self.config.load()) {
            self.config.store(self.config_in_use.load_full());
            // The next reload tries the same configuration again.
            self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.settings.send_replace(SettingsState::Refused(refusal));
        }
    }

    /// Switches to another client whose subscriptions the server has accepted. Messages that only the previous client
    /// receives are lost, as if its connection had been lost, so the link gets a new epoch.
    pub(super) async fn switch_to(&self, previous: Arc<NatsClient>, next: Successor) {
        let Successor { client, config, subscriptions } = next;
        self.state.switch_client(client.number);
        let mut left = JoinedGroups(Vec::new());
        for (handle, mut subscriber) in subscriptions {
            // Both clients have received these messages. In contrast, a group delivers each message only once.
            if handle.group.is_none() {
                while let Some(Some(_)) = subscriber.next().now_or_never() {}
            }
            let is_group = handle.group.is_some();
            if let Some(unused) = handle.carry_on(subscriber, client.number)
                && is_group
            {
                left.0.push((handle, unused));
            }
        }
        drop(left);
        self.client.store(Arc::clone(&client));
        self.use_config(config);
        // Makes the subscriptions that were added in the meantime.
        self.subscribe_all(&client).await;
        previous.retire();
        tracing::info!("connected to NATS with the reloaded settings");
        // Messages that were passed to the previous client may not have been written yet.
        end_slowly(previous);
    }
}

/// Drops a client after `PREVIOUS_KEPT`.
fn end_slowly(client: Arc<NatsClient>) {
    let _detached = Tasks::new().spawn_background(async move {
        sleep(PREVIOUS_KEPT).await;
        drop(client);
    });
}

/// The queue groups joined by a client that is not used yet. When this value is dropped, the client leaves the groups.
/// Requests that have already been delivered are still executed.
struct JoinedGroups(Vec<TrialSubscription>);

impl JoinedGroups {
    /// Passes the requests to their readers until `done` completes.
    async fn forward_until<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = pin!(done);
        poll_fn(|cx| {
            for (handle, subscriber) in &mut self.0 {
                // The subscriptions end only when the client does.
                let _ended = handle.poll_forward(subscriber, cx);
            }
            done.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for JoinedGroups {
    fn drop(&mut self) {
        let groups = std::mem::take(&mut self.0);
        if groups.is_empty() {
            return;
        }
        let _detached = Tasks::new().spawn_background(timeout(PREVIOUS_KEPT, async move {
            let leave = async |(handle, mut subscriber): TrialSubscription| {
                if subscriber.unsubscribe().await.is_err() {
                    return;
                }
                let mut all = pin!(poll_fn(|cx| handle.poll_forward(&mut subscriber, cx)));
                // The subscriptions are polled at intervals, because the reader may have made room.
                while timeout(CONNECT_CHECK, &mut all).await.is_err() {}
            };
            join_all(groups.into_iter().map(leave)).await
        }));
    }
}
