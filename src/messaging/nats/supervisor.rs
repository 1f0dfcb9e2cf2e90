//! Supervises the client: probes the link, replaces a dead client and retries refused subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::client::NatsClient;
use super::interest::InterestCheck;
use super::shared::{CREATE_RETRY, NatsShared, REFUSAL_DELAY_MAX};
use super::subscription_handle::SubscriptionHandle;
use super::successor::Successor;
use crate::config::limits::NATS_SILENT_PINGS;
use crate::jitter::jittered;
use crate::messaging::{LinkState, TransportError};
use crate::telemetry::{counter, gauge, names};

/// The number of probes per ping interval.
const PROBES_PER_PING: u32 = 4;
/// The longest random pause before leaving a server that is about to stop. The server closes connections after 10 s.
const LEAVE_SPREAD: Duration = Duration::from_secs(2);
/// The first pause before a refused subscription is retried. The server logs each attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause before a refused subscription is retried.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The number of subscriptions retried together. The library must be able to queue a refusal for each of them.
const RETRY_BATCH: usize = 64;

/// The reason why a client is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplaceReason {
    /// The client's connection task has ended. Only a panic can cause this.
    Ended,
    /// No probe came back for two ping intervals.
    Silent,
    /// The server refused subscriptions without naming them.
    UnknownRefusals,
}

impl ReplaceReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::UnknownRefusals => "subscriptions",
        }
    }

    /// Returns a description of the reason for operators.
    fn text(self) -> &'static str {
        match self {
            Self::Ended => "the client had ended, probably at a message that it could not read",
            Self::Silent => "no message came back for two ping intervals",
            Self::UnknownRefusals => "the server refused subscriptions without naming them",
        }
    }
}

/// The reason why a client is no longer used.
enum ClientEnd {
    /// The client has failed.
    Failed(ReplaceReason),
    /// A reload has changed the configuration, and this successor uses the new one.
    Succeeded(Successor),
}

/// Supervises the client until the transport is dropped.
pub(super) async fn run(shared: Arc<NatsShared>) {
    loop {
        let client = shared.client.load_full();
        let end = tokio::select! {
            () = shared.stop.cancelled() => return,
            end = shared.watch(&client) => end,
        };
        let reason = match end {
            ClientEnd::Failed(reason) => reason,
            ClientEnd::Succeeded(next) => {
                shared.switch_to(client, next).await;
                continue;
            }
        };
        client.retire();
        // A batch of subscriptions may have been in progress on this client.
        let _unfinished = shared.state.subscriptions.end_batch();
        shared.state.lost();
        let label = [(names::REASON, reason.as_str().to_owned())];
        counter(&names::NATS_CLIENTS_REPLACED, &label).increment(1);
        shared.state.problems.record_replaced(reason.text(), Instant::now());
        tracing::error!(reason = reason.as_str(), "the NATS client is replaced");
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replace(reason) => {}
        }
    }
}

impl NatsShared {
    /// Waits until the client must be replaced.
    async fn watch(&self, client: &NatsClient) -> ClientEnd {
        let reason = tokio::select! {
            () = client.ended.cancelled() => ReplaceReason::Ended,
            () = self.probe(client) => ReplaceReason::Silent,
            () = self.state.subscriptions.unknown_refusals.notified() => ReplaceReason::UnknownRefusals,
            () = self.retry_refused(client) => ReplaceReason::UnknownRefusals,
            () = self.leave_stopping_servers(client) => ReplaceReason::Ended,
            next = self.successor() => return ClientEnd::Succeeded(next),
        };
        ClientEnd::Failed(reason)
    }

    /// Sends probes periodically. Returns when no probe has come back for two ping intervals.
    async fn probe(&self, client: &NatsClient) {
        let ping_interval = self.config.load().ping_interval;
        let mut ticks = interval(ping_interval / PROBES_PER_PING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut confirmed = 0;
        let mut last = Instant::now();
        let (mut interest, mut last_check) = (InterestCheck::default(), Instant::now());
        self.lock_round_trip().cancel();
        loop {
            let is_event = tokio::select! {
                _ = ticks.tick() => false,
                () = self.state.changed.notified() => true,
            };
            // The client reconnects on its own. The event of a new connection arrives shortly before
            // the client's state changes.
            if !is_event && !client.is_connected() {
                last = Instant::now();
                continue;
            }
            let connections = client.connections();
            if connections != confirmed {
                last = Instant::now();
            }
            let limit = last + ping_interval * NATS_SILENT_PINGS;
            self.lock_round_trip().sent(Instant::now());
            let answer = tokio::select! {
                answer = timeout_at(limit, client.round_trip(&self.probes)) => answer,
                // The probe was lost with the connection.
                () = self.state.changed.notified() => {
                    self.lock_round_trip().cancel();
                    ticks.reset_immediately();
                    continue;
                }
            };
            match answer {
                Ok(Ok(took)) => {
                    last = Instant::now();
                    self.record_round_trip(took);
                    // A loss can be reported late, when the next connection has already been confirmed.
                    let is_change = connections != confirmed || self.state.is_down();
                    if is_change && client.is_connected() && client.connections() == connections {
                        confirmed = connections;
                        self.state.confirmed();
                    }
                    if last_check.elapsed() >= ping_interval {
                        last_check = Instant::now();
                        tokio::select! {
                            () = interest.run(self, client) => {}
                            // A new connection must be confirmed immediately.
                            () = self.state.changed.notified() => ticks.reset_immediately(),
                        }
                    }
                }
                // The process was suspended and could not receive the probe.
                Err(_) if limit.elapsed() > ping_interval / PROBES_PER_PING => {
                    last = Instant::now();
                }
                Err(_) if client.is_connected() => return,
                // Lost connections and ended clients are handled elsewhere.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    fn record_round_trip(&self, took: Duration) {
        let now = Instant::now();
        let mut meter = self.lock_round_trip();
        meter.add(took, now);
        let smoothed = meter.round_trip(now).smoothed;
        drop(meter);
        gauge(&names::NATS_ROUND_TRIP, &[]).set(smoothed.as_secs_f64());
        self.state.refresh();
    }

    /// Creates another client and makes all subscriptions on it before it is used.
    async fn replace(&self, reason: ReplaceReason) {
        sleep(self.state.backoff.delay(0)).await;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.state.use_client(number);
        let parts = (&self.state, &self.probes);
        // The reloaded settings are used only after a successor has confirmed them.
        let config = self.config_in_use.load_full();
        let client = loop {
            match NatsClient::start(&config, &self.name, number, parts).await {
                Ok(client) => break Arc::new(client),
                Err(error) => tracing::error!(%error, "cannot create a NATS client"),
            }
            sleep(CREATE_RETRY).await;
        };
        if reason == ReplaceReason::UnknownRefusals {
            // `retry_refused` determines which subscriptions are refused.
            self.state.subscriptions.refuse_all();
        }
        self.subscribe_all(&client).await;
        self.client.store(Arc::clone(&client));
        // Makes the subscriptions that were added in the meantime.
        self.subscribe_all(&client).await;
        self.resume_trial();
    }

    /// Retries refused subscriptions with growing pauses. Never returns.
    async fn retry_refused(&self, client: &NatsClient) {
        let subscriptions = &self.state.subscriptions;
        let mut link = self.state.link();
        let (mut pause, mut batch_size) = (Duration::ZERO, RETRY_BATCH);
        loop {
            let refused = subscriptions.refused();
            if refused.is_empty() {
                batch_size = RETRY_BATCH;
                subscriptions.new_refusal.notified().await;
                pause = RETRY_FIRST;
                sleep(jittered(pause, 0.5..=1.0)).await;
                if subscriptions.may_have_missed_refusals() {
                    tracing::warn!(
                        "refused subscriptions may have been missed; renewing all subscriptions"
                    );
                    subscriptions.refuse_all();
                }
                continue;
            }
            let connected = link.wait_for(|link| link.state != LinkState::Down);
            if connected.await.is_err() {
                std::future::pending::<()>().await;
            }
            let mut is_clear = true;
            for handles in refused.chunks(batch_size) {
                is_clear &= self.retry_batch(client, handles).await;
            }
            self.state.refresh();
            if !is_clear {
                // The subscriptions are retried one by one to determine which are refused.
                batch_size = 1;
            } else if !subscriptions.refused().is_empty() {
                pause = (pause * 2).clamp(RETRY_FIRST, RETRY_MAX);
                sleep(jittered(pause, 0.5..=1.0)).await;
            }
        }
    }

    /// Retries a batch of subscriptions. Returns whether it is known which of them the server refused.
    async fn retry_batch(&self, client: &NatsClient, handles: &[Arc<SubscriptionHandle>]) -> bool {
        let subscriptions = &self.state.subscriptions;
        subscriptions.begin_batch(handles);
        let result = self.subscribe_batch(client, handles).await;
        let batch = subscriptions.end_batch();
        let subscribers = match result {
            Ok(subscribers) => subscribers,
            Err(error) => {
                tracing::debug!(%error, "cannot subscribe");
                return true;
            }
        };
        let accepted =
            handles.iter().zip(subscribers).filter(|(handle, _)| batch.is_accepted(handle));
        let mut has_inbox = false;
        for (handle, subscriber) in accepted {
            subscriptions.accept(handle, subscriber, client.number);
            has_inbox |= handle.is_inbox();
            tracing::info!(subject = %handle.subject, "the server accepts the subscription again");
        }
        if has_inbox {
            self.state.inbox_restored();
        }
        !batch.is_unclear()
    }

    async fn subscribe_batch(
        &self,
        client: &NatsClient,
        handles: &[Arc<SubscriptionHandle>],
    ) -> Result<Vec<async_nats::Subscriber>, TransportError> {
        let mut subscribers = Vec::with_capacity(handles.len());
        for handle in handles {
            let subscribed = timeout(client.operation_timeout, handle.subscribe(&client.inner));
            subscribers.push(subscribed.await.map_err(|_| TransportError::TimedOut)??);
        }
        let returned = timeout(self.config.load().ping_interval, client.round_trip(&self.probes));
        let _took = returned.await.map_err(|_| TransportError::TimedOut)??;
        sleep(REFUSAL_DELAY_MAX).await;
        Ok(subscribers)
    }

    /// Leaves a server that is about to stop (lame duck mode) before the server closes the connection. A random pause
    /// prevents all clients from connecting to the other servers at once. Never returns.
    async fn leave_stopping_servers(&self, client: &NatsClient) {
        let mut link = self.state.link();
        loop {
            if link.wait_for(|link| link.state == LinkState::LameDuck).await.is_err() {
                std::future::pending::<()>().await;
            }
            let pause = rand::rng().random_range(Duration::ZERO..=LEAVE_SPREAD);
            sleep(pause).await;
            if link.borrow().state == LinkState::LameDuck
                && let Err(error) = self.reconnect(client).await
            {
                tracing::warn!(error, "cannot leave the NATS server that is about to stop");
            }
            if link.wait_for(|link| link.state != LinkState::LameDuck).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reconnects after all published messages have been written to the old connection.
    pub(super) async fn reconnect(&self, client: &NatsClient) -> Result<(), String> {
        let reconnected = timeout(self.config.load().operation_timeout, async {
            client.inner.flush().await.map_err(|error| error.to_string())?;
            client.inner.force_reconnect().await.map_err(|error| error.to_string())
        });
        reconnected.await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }
}
