//! NATS as the transport: the only home of `async_nats`.

use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::poll;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Link, LinkState, RoundTrip, Subscription, Transport, TransportError};
use crate::config::messaging::NatsConfig;
use crate::future::BoxFuture;
use crate::lifecycle::{Cancel, Tasks};
use crate::message::{Message, Subject, SubjectError};

mod connect;
mod convert;
mod credentials;
mod echo;
mod live;
mod outbox;
mod pace;
mod payload;
mod refusal;
mod round_trip;
mod state;
mod subscriptions;
mod supervisor;
pub mod trial;

use echo::Echoes;
use live::Live;
use outbox::{Outbox, Outgoing};
use pace::Pace;
use state::State;
use subscriptions::{Kind, NatsSubscription};
use supervisor::Shared;

/// A connection to a NATS cluster.
pub struct Nats {
    shared: Arc<Shared>,
    inbox: Subject,
    outbox: Outbox,
    asked: payload::Asked,
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

/// Starts connecting and returns at once: the link comes up when a server answers, however late that is.
///
/// # Errors
/// `TransportError` when a server's address is malformed.
pub async fn connect(
    config: &NatsConfig,
    name: &str,
) -> Result<Arc<dyn Transport>, TransportError> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let refused = |error: SubjectError| TransportError::Refused(error.into());
    let inbox = config.inbox_prefix.join(&unique).map_err(refused)?;
    let echoes = Arc::new(Echoes::new(&inbox).map_err(refused)?);
    let state = Arc::new(State::new(Pace::new(config.reconnect_delay_max)));
    state.begin(1);
    let live = Live::start(config, name, 1, (&state, &echoes)).await?;
    let shared = Arc::new(Shared {
        config: config.clone(),
        name: name.to_owned(),
        live: ArcSwap::from_pointee(live),
        state,
        echoes,
        measured: std::sync::Mutex::default(),
        stop: Cancel::new(),
    });
    let _detached = Tasks::new().spawn_background(supervisor::run(Arc::clone(&shared)));
    let outbox = Outbox::open(Arc::clone(&shared));
    Ok(Arc::new(Nats { shared, inbox, outbox, asked: payload::Asked::default() }))
}

/// Why a message cannot be sent now.
enum Unsent {
    /// It cannot.
    Refused(TransportError),
    /// It is larger than the server took when we connected: its size, and the message.
    TooLarge(usize, Box<Outgoing>),
}

impl Nats {
    /// The message as the library takes it, when it can be sent now.
    fn outgoing(&self, message: Message) -> Result<Outgoing, Unsent> {
        let live = self.shared.live.load();
        if !live.is_connected() {
            return Err(Unsent::Refused(TransportError::Disconnected));
        }
        let headers = convert::headers(message.headers).map_err(Unsent::Refused)?;
        let bytes = headers.wire_len() + message.payload.len();
        let outgoing = Outgoing {
            subject: convert::subject(&message.subject),
            reply: message.reply.as_ref().map(convert::subject),
            headers: headers.into(),
            payload: message.payload,
        };
        if bytes > live.client.max_payload() {
            return Err(Unsent::TooLarge(bytes, Box::new(outgoing)));
        }
        Ok(outgoing)
    }

    async fn put(&self, message: Outgoing) -> Result<(), TransportError> {
        let mut putting = pin!(self.outbox.put(message));
        // Nearly every message is taken at once: that needs no timer.
        if let Poll::Ready(result) = poll!(&mut putting) {
            return result;
        }
        let bounded = Box::pin(timeout(self.shared.config.operation_timeout, putting));
        bounded.await.unwrap_or(Err(TransportError::TimedOut))
    }

    async fn put_large(&self, bytes: usize, message: Box<Outgoing>) -> Result<(), TransportError> {
        if payload::has_grown(&self.shared, &self.asked, bytes).await {
            self.put(*message).await
        } else {
            Err(TransportError::TooLarge)
        }
    }

    async fn listen(
        &self,
        subject: &Subject,
        group: Option<&str>,
        kind: Kind,
    ) -> Result<Box<dyn Subscription>, TransportError> {
        let subscriptions = &self.shared.state.subscriptions;
        let handle = subscriptions.add(subject, group, kind);
        let subscription = NatsSubscription::new(Arc::clone(&handle), Arc::clone(subscriptions));
        let live = self.shared.live.load_full();
        let limit = self.shared.config.operation_timeout;
        match timeout(limit, handle.subscribe_on(&live)).await {
            Ok(Ok(())) => {}
            // The client that follows will have it.
            Ok(Err(_)) if live.ended.is_cancelled() || !live.is_in_use() => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(TransportError::TimedOut),
        }
        Ok(Box::new(subscription))
    }

    fn kind(&self, subject: &Subject) -> Kind {
        let is_inbox = subject.as_str().starts_with(self.inbox.as_str());
        if is_inbox { Kind::Inbox } else { Kind::Control }
    }

    async fn flush_until(&self, end: Instant) -> Result<(), TransportError> {
        // The library's own flush empties the socket's buffer and no more. A message to ourselves comes
        // back when the server has read everything before it.
        let mut echo = self.shared.echoes.expect();
        self.put(Outgoing {
            subject: convert::subject(&echo.subject()),
            reply: None,
            headers: HeaderMap::new(),
            payload: Bytes::new(),
        })
        .await?;
        timeout_at(end, echo.came()).await.map_err(|_| TransportError::TimedOut)
    }
}

impl Transport for Nats {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        // Nearly every message finds room at once: its future has nothing to do, and nothing to carry.
        match self.outgoing(message).map(|outgoing| self.outbox.try_put(outgoing)) {
            Ok(None) => Box::pin(ready(Ok(()))),
            Ok(Some(outgoing)) => Box::pin(self.put(outgoing)),
            Err(Unsent::Refused(error)) => Box::pin(ready(Err(error))),
            Err(Unsent::TooLarge(bytes, outgoing)) => Box::pin(self.put_large(bytes, outgoing)),
        }
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.listen(subject, None, self.kind(subject)))
    }

    fn subscribe_optional<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.listen(subject, None, Kind::Optional))
    }

    fn queue_subscribe<'a>(
        &'a self,
        subject: &'a Subject,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(self.listen(subject, Some(group), Kind::Queue))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move {
            if !self.shared.live.load().is_connected() {
                return Err(TransportError::Disconnected);
            }
            self.flush_until(Instant::now() + self.shared.config.operation_timeout).await
        })
    }

    fn flush_within(&self, limit: Duration) -> BoxFuture<'_, Result<(), TransportError>> {
        let end = Instant::now() + limit;
        let mut link = self.shared.state.link();
        Box::pin(async move {
            if link.borrow().epoch == 0 {
                // Never connected, so nothing was ever sent.
                return Ok(());
            }
            loop {
                // A process that is deaf can still speak.
                let connected = link.wait_for(|link| link.state != LinkState::Down);
                let connected = timeout_at(end, connected).await;
                let Ok(Ok(epoch)) = connected.map(|link| link.map(|link| link.epoch)) else {
                    return Err(TransportError::Disconnected);
                };
                let lost =
                    link.wait_for(|link| link.state == LinkState::Down || link.epoch != epoch);
                let flushed = tokio::select! {
                    flushed = self.flush_until(end) => flushed,
                    // What was sent went with the connection.
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
        self.shared.lock_measured().round_trip(Instant::now())
    }

    fn payload_bytes_max(&self) -> usize {
        self.shared.live.load().client.max_payload()
    }

    fn inbox(&self) -> Subject {
        self.inbox.clone()
    }
}
