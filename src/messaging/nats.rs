//! NATS as the transport. Only this module and its children use `async_nats`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::poll;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Link, LinkState, RoundTrip, SettingsState, Subscription, Transport, TransportError};
use crate::config::messaging::{NatsConfig, TransportConfig};
use crate::future::BoxFuture;
use crate::lifecycle::{Cancel, Tasks};
use crate::message::{Message, Subject, SubjectError};

mod backoff;
mod client;
mod connect;
mod connection_state;
mod convert;
mod credentials;
mod interest;
mod outbox;
mod payload_limit;
pub mod permission_check;
mod probe;
mod problems;
mod refusal;
mod round_trip;
mod shared;
mod subscription;
mod subscription_handle;
mod subscriptions;
mod successor;
mod supervisor;

use backoff::ReconnectBackoff;
use client::NatsClient;
use connection_state::ConnectionState;
use outbox::{Outbox, OutgoingMessage};
use probe::LinkProbes;
use shared::NatsShared;
use subscription::NatsSubscription;
use subscription_handle::SubscriptionKind;

/// A connection to a NATS cluster.
pub struct Nats {
    shared: Arc<NatsShared>,
    inbox: Subject,
    outbox: Outbox,
    limit_query_throttle: payload_limit::QueryThrottle,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Starts connecting without waiting for a server. The link comes up when a server responds.
///
/// # Errors
/// Returns `TransportError` if a server's address is malformed.
pub async fn connect(
    config: &NatsConfig,
    name: &str,
) -> Result<Arc<dyn Transport>, TransportError> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let refused = |error: SubjectError| TransportError::Failed(error.into());
    let inbox = config.inbox_prefix.join(&unique).map_err(refused)?;
    let probes = Arc::new(LinkProbes::new(&inbox).map_err(refused)?);
    let state = Arc::new(ConnectionState::new(ReconnectBackoff::new(config.reconnect_delay_max)));
    state.use_client(1);
    // The servers list connections by name, even while the process hangs.
    let name = format!("{name} {unique}");
    let client = NatsClient::start(config, &name, 1, (&state, &probes)).await?;
    let shared = Arc::new(NatsShared {
        config: ArcSwap::from_pointee(config.clone()),
        files: std::sync::Mutex::new(config.file_versions()),
        reconfigured: Notify::new(),
        name,
        client: ArcSwap::from_pointee(client),
        config_in_use: ArcSwap::from_pointee(config.clone()),
        settings: watch::Sender::new(SettingsState::InUse),
        next_number: AtomicU64::new(2),
        state,
        probes,
        round_trip: std::sync::Mutex::default(),
        stop: Cancel::new(),
    });
    let _detached = Tasks::new().spawn_background(supervisor::run(Arc::clone(&shared)));
    let outbox = Outbox::open(Arc::clone(&shared));
    Ok(Arc::new(Nats {
        shared,
        inbox,
        outbox,
        limit_query_throttle: payload_limit::QueryThrottle::default(),
    }))
}

/// The reason why a message cannot be sent at the moment.
enum SendError {
    /// The link is down, or the message is invalid.
    Refused(TransportError),
    /// The message exceeds the size limit that the server announced when the client connected. The
    /// first field is the message size in bytes.
    TooLarge(usize, Box<OutgoingMessage>),
}

impl Nats {
    /// Converts a message if it can be sent now.
    fn outgoing(&self, message: Message) -> Result<OutgoingMessage, SendError> {
        let client = self.shared.client.load();
        if !client.is_connected() {
            return Err(SendError::Refused(TransportError::Disconnected));
        }
        let headers = convert::headers(message.headers).map_err(SendError::Refused)?;
        let bytes = headers.wire_len() + message.payload.len();
        let outgoing = OutgoingMessage {
            subject: convert::subject(&message.subject),
            reply: message.reply.as_ref().map(convert::subject),
            headers: headers.into(),
            payload: message.payload,
        };
        if bytes > client.inner.max_payload() {
            return Err(SendError::TooLarge(bytes, Box::new(outgoing)));
        }
        Ok(outgoing)
    }

    async fn send(&self, message: OutgoingMessage) -> Result<(), TransportError> {
        let mut sending = pin!(self.outbox.send(message));
        // Nearly all messages are accepted immediately and need no timer.
        if let Poll::Ready(result) = poll!(&mut sending) {
            return result;
        }
        let bounded = Box::pin(timeout(self.shared.config.load().operation_timeout, sending));
        bounded.await.unwrap_or(Err(TransportError::TimedOut))
    }

    async fn send_large(
        &self,
        bytes: usize,
        message: Box<OutgoingMessage>,
    ) -> Result<(), TransportError> {
        if payload_limit::has_grown(&self.shared, &self.limit_query_throttle, bytes).await {
            self.send(*message).await
        } else {
            Err(TransportError::TooLarge)
        }
    }

    async fn add_subscription(
        &self,
        subject: &Subject,
        group: Option<&str>,
        kind: SubscriptionKind,
    ) -> Result<Box<dyn Subscription>, TransportError> {
        let subscriptions = &self.shared.state.subscriptions;
        let handle = subscriptions.add(subject, group, kind);
        let subscription = NatsSubscription::new(Arc::clone(&handle), Arc::clone(subscriptions));
        let client = self.shared.client.load_full();
        let limit = self.shared.config.load().operation_timeout;
        match timeout(limit, handle.subscribe_on(&client.inner, client.number)).await {
            Ok(Ok(())) => {}
            // The next client will make the subscription.
            Ok(Err(_)) if client.ended.is_cancelled() || !client.is_in_use() => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(TransportError::TimedOut),
        }
        Ok(Box::new(subscription))
    }

    fn kind(&self, subject: &Subject) -> SubscriptionKind {
        let is_inbox = subject.as_str().starts_with(self.inbox.as_str());
        if is_inbox { SubscriptionKind::Inbox } else { SubscriptionKind::Control }
    }

    async fn flush_until(&self, end: Instant) -> Result<(), TransportError> {
        // The library's flush only empties the socket buffer. A probe comes back only after the
        // server has read everything that was sent before it.
        let mut probe = self.shared.probes.start();
        let sent_at = Instant::now();
        self.send(OutgoingMessage {
            subject: convert::subject(&probe.subject()),
            reply: None,
            headers: HeaderMap::new(),
            payload: Bytes::new(),
        })
        .await?;
        if timeout_at(end, probe.returned()).await.is_ok() {
            return Ok(());
        }
        let subject = probe.subject();
        let refused = self.shared.state.problems.refused_publish(subject.as_str(), sent_at);
        Err(refused.map_or(TransportError::TimedOut, TransportError::PublishNotPermitted))
    }
}

impl Transport for Nats {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        // Nearly all messages are queued immediately, so an already completed future suffices.
        match self.outgoing(message).map(|outgoing| self.outbox.try_send(outgoing)) {
            Ok(None) => Box::pin(ready(Ok(()))),
            Ok(Some(outgoing)) => Box::pin(self.send(outgoing)),
            Err(SendError::Refused(error)) => Box::pin(ready(Err(error))),
            Err(SendError::TooLarge(bytes, outgoing)) => Box::pin(self.send_large(bytes, outgoing)),
        }
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.add_subscription(subject, None, self.kind(subject)))
    }

    fn subscribe_optional<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.add_subscription(subject, None, SubscriptionKind::Optional))
    }

    fn queue_subscribe<'a>(
        &'a self,
        subject: &'a Subject,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.add_subscription(subject, Some(group), SubscriptionKind::Queue))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move {
            if !self.shared.client.load().is_connected() {
                return Err(TransportError::Disconnected);
            }
            let mut link = self.shared.state.link();
            let before = *link.borrow_and_update();
            // A link that has not been confirmed yet cannot be lost. It comes up with a new epoch.
            let was_confirmed = before.state != LinkState::Down;
            let lost = link.wait_for(|link| {
                was_confirmed && (link.state == LinkState::Down || link.epoch != before.epoch)
            });
            let end = Instant::now() + self.shared.config.load().operation_timeout;
            tokio::select! {
                flushed = self.flush_until(end) => flushed,
                // The probe was lost with the connection.
                Ok(_) = lost => Err(TransportError::Disconnected),
            }
        })
    }

    fn flush_within(&self, limit: Duration) -> BoxFuture<'_, Result<(), TransportError>> {
        let end = Instant::now() + limit;
        let mut link = self.shared.state.link();
        Box::pin(async move {
            if link.borrow().epoch == 0 {
                // The process has never been connected, so there is nothing to flush.
                return Ok(());
            }
            loop {
                // Messages can also be sent while a subscription is refused.
                let connected = link.wait_for(|link| link.state != LinkState::Down);
                let connected = timeout_at(end, connected).await;
                let Ok(Ok(epoch)) = connected.map(|link| link.map(|link| link.epoch)) else {
                    return Err(TransportError::Disconnected);
                };
                let lost =
                    link.wait_for(|link| link.state == LinkState::Down || link.epoch != epoch);
                let flushed = tokio::select! {
                    flushed = self.flush_until(end) => flushed,
                    // The probe was lost with the connection.
                    _ = lost => continue,
                };
                match flushed {
                    Err(TransportError::Disconnected) if Instant::now() < end => {
                        tokio::task::yield_now().await;
                    }
                    flushed => return flushed,
                }
            }
        })
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.shared.state.link()
    }

    fn round_trip(&self) -> RoundTrip {
        self.shared.lock_round_trip().round_trip(Instant::now())
    }

    fn payload_bytes_max(&self) -> usize {
        self.shared.client.load().inner.max_payload()
    }

    fn reconfigure(&self, config: &TransportConfig) {
        let TransportConfig::Nats(config) = config;
        self.shared.reconfigure(config);
    }

    fn settings(&self) -> watch::Receiver<SettingsState> {
        self.shared.settings.subscribe()
    }

    fn connect_failure(&self) -> Option<String> {
        self.shared.state.problems.connect_failure()
    }

    fn problems(&self) -> BTreeMap<String, String> {
        self.shared.state.problems()
    }

    fn inbox(&self) -> Subject {
        self.inbox.clone()
    }
}
