//! What is known of the link: what the client reports, and what was proved.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Event, ServerError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::pace::Pace;
use super::refusal::{Refusal, about};
use super::subscriptions::Subscriptions;
use crate::messaging::{Link, LinkState};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{counter, gauge, names};

/// Messages came faster than they were read.
const DROPPED: Condition = Condition::new("messages of NATS are dropped");
/// The server does not let us do something.
const REFUSED: Condition = Condition::new("NATS refuses");

/// What is known of the link.
#[derive(Debug)]
pub(super) struct State {
    known: Mutex<Known>,
    link: watch::Sender<Link>,
    /// Every subscription.
    pub(super) subscriptions: Arc<Subscriptions>,
    /// When to connect again.
    pub(super) pace: Pace,
    /// Told when a connection was made or lost.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The number of the client that counts.
    client: u64,
    is_proved: bool,
    is_leaving: bool,
    epoch: u64,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(pace: Pace) -> Self {
        gauge(&names::NATS_CONNECTED, &[]).set(0.0);
        Self {
            known: Mutex::default(),
            link: watch::Sender::new(Link::NEW),
            subscriptions: Arc::default(),
            pace,
            changed: Notify::new(),
        }
    }

    /// The link, and every change of it.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// From here on another client counts.
    pub(super) fn begin(&self, client: u64) {
        self.change(|known| {
            (known.client, known.is_proved, known.is_leaving) = (client, false, false);
        });
    }

    /// The link was lost.
    pub(super) fn lost(&self) {
        self.pace.lost(Instant::now());
        self.change(|known| (known.is_proved, known.is_leaving) = (false, false));
    }

    /// A message to ourselves came back over a new connection, after all subscriptions were made again.
    pub(super) fn proved(&self) {
        self.change(|known| (known.is_proved, known.epoch) = (true, known.epoch + 1));
        if self.link.borrow().epoch > 1 {
            counter(&names::NATS_RECONNECTS, &[]).increment(1);
        }
    }

    /// Whether nothing was proved since the link was lost.
    pub(super) fn is_down(&self) -> bool {
        self.link.borrow().state == LinkState::Down
    }

    /// An inbox is served again: the answers that were sent to it meanwhile are lost.
    pub(super) fn renewed(&self) {
        self.change(|known| known.epoch += 1);
    }

    /// Looks whether the subscriptions are served.
    pub(super) fn look(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let state = if !known.is_proved {
            LinkState::Down
        } else if self.subscriptions.is_deaf() {
            LinkState::Deaf
        } else if known.is_leaving {
            LinkState::Leaving
        } else {
            LinkState::Up
        };
        gauge(&names::NATS_CONNECTED, &[]).set(if known.is_proved { 1.0 } else { 0.0 });
        let now = Link { state, epoch: known.epoch };
        self.link.send_if_modified(|link| std::mem::replace(link, now) != now);
    }

    fn counts(&self, client: u64) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).client == client
    }

    /// Counts and logs what a client reports. Must not block: the library awaits it.
    pub(super) fn on_event(&self, client: u64, event: &Event) {
        let word = match event {
            Event::Connected => "connected",
            Event::Disconnected => "disconnected",
            Event::LameDuckMode => "lame_duck",
            Event::SlowConsumer(_) => "slow_consumer",
            Event::ServerError(_) => "server_error",
            Event::ClientError(_) => "client_error",
            Event::Draining => "draining",
            Event::Closed => "closed",
        };
        counter(&names::NATS_EVENTS, &[(names::EVENT, word.to_owned())]).increment(1);
        if !self.counts(client) {
            return;
        }
        match event {
            Event::Connected => {
                tracing::info!("connected to NATS");
                self.pace.connected(Instant::now());
                self.changed.notify_one();
            }
            Event::Disconnected => {
                tracing::warn!("connection to NATS lost, connecting again");
                self.lost();
                self.changed.notify_one();
            }
            Event::LameDuckMode => {
                tracing::warn!("the NATS server is about to stop, moving to another");
                self.change(|known| known.is_leaving = true);
            }
            Event::SlowConsumer(subscription) => {
                if conditions::begins(&DROPPED, "") {
                    tracing::error!(subscription, "messages were dropped: read too slowly");
                }
            }
            Event::ServerError(error) => self.refused(error),
            // Why a connection failed is said where it is known: `connect`.
            Event::ClientError(error) => tracing::debug!(%error, "NATS client error"),
            Event::Draining | Event::Closed => {}
        }
    }

    fn refused(&self, error: &ServerError) {
        let subscription = match error {
            ServerError::Other(text) => Refusal::parse(text),
            ServerError::AuthorizationViolation | ServerError::SlowConsumer(_) => None,
        };
        let Some(refusal) = subscription else {
            if conditions::begins(&REFUSED, about(&error.to_string())) {
                tracing::error!(%error, "NATS refused; check the account's permissions");
            }
            return;
        };
        if self.subscriptions.refuse(&refusal) {
            // One that is not named is told of for each subscription that there is.
            if refusal != Refusal::TooMany || conditions::begins(&REFUSED, "subscriptions") {
                tracing::error!(%error, "NATS refuses a subscription; trying again until it is served");
            }
            self.look();
        }
    }
}
