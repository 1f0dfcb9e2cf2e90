//! NATS as the transport: the only home of `async_nats`.

use std::fmt;
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, poll};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{
    Link, LinkState, Message, RoundTrip, Subject, Subscription, Transport, TransportError,
};
use crate::config::messaging::NatsConfig;
use crate::future::BoxFuture;
use crate::lifecycle::Tasks;

mod connect;
mod convert;
mod echo;
mod outbox;
mod probe;
mod round_trip;
pub mod trial;

use outbox::{Outbox, Outgoing};
use probe::Probe;

/// Within this time of the notice a server that is about to stop is left. Servers wait 10 s before they end connections.
const LEAVE_SPREAD: Duration = Duration::from_secs(2);

/// A connection to a NATS cluster.
pub struct Nats {
    client: Client,
    link: watch::Receiver<Link>,
    inbox: Subject,
    operation_timeout: Duration,
    flushes: AtomicU64,
    outbox: Outbox,
    probe: Arc<Probe>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

/// Starts connecting and returns at once: the link comes up when a server answers, however late that is.
///
/// # Errors
/// `TransportError` when a file that the configuration names cannot be read, or a server's address is malformed.
pub async fn connect(
    config: &NatsConfig,
    name: &str,
) -> Result<Arc<dyn Transport>, TransportError> {
    let (report, link) = watch::channel(Link::NEW);
    let client = connect::client(config, name, report).await?;
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let leaving = leave_in_time(client.clone(), link.clone(), config.operation_timeout);
    let _detached = Tasks::new().spawn_background(leaving);
    let inbox = config.inbox_prefix.join(&unique).map_err(|e| TransportError::Refused(e.into()))?;
    let outbox = Outbox::open(client.clone(), config.commands_max, config.operation_timeout);
    let probe = Probe::start(&client, &inbox, config.ping_interval).await?;
    Ok(Arc::new(Nats {
        outbox,
        probe,
        client,
        link,
        inbox,
        operation_timeout: config.operation_timeout,
        flushes: AtomicU64::new(0),
    }))
}

/// Leaves a server that is about to stop (lame duck) before it ends the connection. Not all clients at once: the
/// others would be met by everybody.
async fn leave_in_time(client: Client, mut link: watch::Receiver<Link>, limit: Duration) {
    while link.wait_for(|link| link.state == LinkState::Leaving).await.is_ok() {
        let pause = rand::rng().random_range(Duration::ZERO..=LEAVE_SPREAD);
        sleep(pause).await;
        if link.borrow().state == LinkState::Leaving {
            // What was published goes to the old server first.
            let moved = timeout(limit, async {
                client.flush().await.map_err(|error| error.to_string())?;
                client.force_reconnect().await.map_err(|error| error.to_string())
            });
            match moved.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error, "could not leave the NATS server early"),
                Err(_) => tracing::warn!("could not leave the NATS server early: no answer"),
            }
        }
        if link.wait_for(|link| link.state != LinkState::Leaving).await.is_err() {
            return;
        }
    }
}

impl Nats {
    /// Runs an operation of the client library under a deadline: none of them ends by itself while the
    /// link is down and the library's command channel is full.
    async fn bounded<T, E>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransportError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match timeout(self.operation_timeout, operation).await {
            Ok(result) => result.map_err(|e| TransportError::Refused(e.into())),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    /// The message as the library takes it, when it can be sent now.
    fn outgoing(&self, message: Message) -> Result<Outgoing, TransportError> {
        // The state and not the last event: events go through a small channel and can be lost.
        if self.client.connection_state() != State::Connected {
            return Err(TransportError::Disconnected);
        }
        let headers = convert::headers(message.headers)?;
        if headers.wire_len() + message.payload.len() > self.client.max_payload() {
            return Err(TransportError::TooLarge);
        }
        Ok(Outgoing {
            subject: convert::subject(&message.subject),
            reply: message.reply.as_ref().map(convert::subject),
            headers: headers.into(),
            payload: message.payload,
        })
    }

    async fn put(&self, message: Outgoing) -> Result<(), TransportError> {
        let mut putting = pin!(self.outbox.put(message));
        // Nearly every message is taken at once: that needs no timer.
        if let Poll::Ready(result) = poll!(&mut putting) {
            return result;
        }
        let bounded = Box::pin(timeout(self.operation_timeout, putting));
        bounded.await.unwrap_or(Err(TransportError::TimedOut))
    }
}

impl Transport for Nats {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        // Nearly every message finds room at once: its future has nothing to do, and nothing to carry.
        match self.outgoing(message).map(|outgoing| self.outbox.try_put(outgoing)) {
            Err(error) => Box::pin(ready(Err(error))),
            Ok(None) => Box::pin(ready(Ok(()))),
            Ok(Some(outgoing)) => Box::pin(self.put(outgoing)),
        }
    }

    fn subscribe<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(async move {
            let inner = self.bounded(self.client.subscribe(convert::subject(subject))).await?;
            Ok(Box::new(NatsSubscription { inner, seen: 0 }) as Box<dyn Subscription>)
        })
    }

    fn queue_subscribe<'a>(
        &'a self,
        subject: &'a Subject,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, TransportError>> {
        Box::pin(async move {
            let subject = convert::subject(subject);
            let inner =
                self.bounded(self.client.queue_subscribe(subject, group.to_owned())).await?;
            Ok(Box::new(NatsSubscription { inner, seen: 0 }) as Box<dyn Subscription>)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        // The library's own flush empties the socket's buffer and no more. A message to ourselves comes
        // back when the server has read everything before it.
        Box::pin(async move {
            if self.client.connection_state() != State::Connected {
                return Err(TransportError::Disconnected);
            }
            let number = self.flushes.fetch_add(1, Ordering::Relaxed);
            let echo = self
                .inbox
                .join(format_args!("flush.{number}"))
                .map_err(|e| TransportError::Refused(e.into()))?;
            let subject = convert::subject(&echo);
            let mut back = self.bounded(self.client.subscribe(subject.clone())).await?;
            self.put(Outgoing {
                subject,
                reply: None,
                headers: HeaderMap::new(),
                payload: Bytes::new(),
            })
            .await?;
            match timeout(self.operation_timeout, back.next()).await {
                Ok(_) => Ok(()),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }

    fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    fn round_trip(&self) -> RoundTrip {
        self.probe.round_trip()
    }

    fn payload_bytes_max(&self) -> usize {
        self.client.max_payload()
    }

    fn inbox(&self) -> Subject {
        self.inbox.clone()
    }
}

/// A subscription that counts what it has seen: leaving without loss needs the number.
struct NatsSubscription {
    inner: async_nats::Subscriber,
    seen: u64,
}

impl fmt::Debug for NatsSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSubscription").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Stream for NatsSubscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        this.inner.poll_next_unpin(cx).map(|message| {
            message.map(|message| {
                this.seen += 1;
                convert::received(message)
            })
        })
    }
}

impl Subscription for NatsSubscription {
    fn leave_after(&mut self, more: u64) -> BoxFuture<'_, Result<(), TransportError>> {
        // `drain` and `unsubscribe` of the library lose messages that are on their way; a maximum beyond
        // what was seen is agreed upon by both sides and loses none.
        let last = self.seen.saturating_add(more);
        Box::pin(async move {
            match timeout(Duration::from_secs(2), self.inner.unsubscribe_after(last)).await {
                Ok(result) => result.map_err(|e| TransportError::Refused(e.into())),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }
}
