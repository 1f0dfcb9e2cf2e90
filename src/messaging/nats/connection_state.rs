//! The state of the link, derived from the events of the client and from probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Event, ServerError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::backoff::ReconnectBackoff;
use super::refusal::{SubscriptionRefusal, repeated_part};
use super::subscriptions::Subscriptions;
use crate::messaging::{Link, LinkState};
use crate::telemetry::conditions::{self, ConditionKind};
use crate::telemetry::{counter, gauge, names};

/// Messages arrive faster than they are read.
const DROPPED: ConditionKind = ConditionKind::new("messages from NATS are dropped");
/// The server refuses operations of this process.
const REFUSED: ConditionKind = ConditionKind::new("NATS refuses operations");

/// The maximum number of refusals that are remembered for a client that is not used yet.
const TRIAL_REFUSALS_MAX: usize = 1_000;

/// The state of the link, shared by the client's callbacks and the supervisor.
#[derive(Debug)]
pub(super) struct ConnectionState {
    state: Mutex<State>,
    link: watch::Sender<Link>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) backoff: ReconnectBackoff,
    /// Notified when a connection is made or lost.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the client in use. Events of other clients are counted, but otherwise ignored.
    client: u64,
    is_confirmed: bool,
    is_leaving: bool,
    epoch: u64,
    /// A client that is not used yet.
    trial: Option<ClientTrial>,
    /// The server to which the last failed attempt to connect was made, and the cause.
    connect_failure: Option<String>,
}

/// The subscriptions that the server has refused to a client that is not used yet.
#[derive(Debug)]
struct ClientTrial {
    client: u64,
    refusals: Vec<String>,
}

impl ConnectionState {
    /// Creates the state of a link that is down.
    pub(super) fn new(backoff: ReconnectBackoff) -> Self {
        gauge(&names::NATS_CONNECTED, &[]).set(0.0);
        Self {
            state: Mutex::default(),
            link: watch::Sender::new(Link::NEW),
            subscriptions: Arc::default(),
            backoff,
            changed: Notify::new(),
        }
    }

    /// Returns a receiver that watches the link.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Switches to another client.
    pub(super) fn use_client(&self, client: u64) {
        self.change(|state| {
            (state.client, state.is_confirmed, state.is_leaving) = (client, false, false);
        });
    }

    /// Switches to another client that is connected. The link stays up, and its next probe starts a new epoch.
    pub(super) fn switch_client(&self, client: u64) {
        self.change(|state| (state.client, state.is_leaving) = (client, false));
    }

    /// Records refusals that the server sends to another client, which is not used yet.
    pub(super) fn begin_trial(&self, client: u64) {
        let mut state = self.lock();
        state.trial = Some(ClientTrial { client, refusals: Vec::new() });
        // The earlier failures were those of other settings.
        state.connect_failure = None;
    }

    /// Returns whether the server has refused a subscription since `begin_trial`.
    pub(super) fn has_trial_refusal(&self) -> bool {
        self.lock().trial.as_ref().is_some_and(|trial| !trial.refusals.is_empty())
    }

    /// Returns the refusals since `begin_trial`.
    pub(super) fn end_trial(&self) -> Vec<String> {
        self.lock().trial.take().map(|trial| trial.refusals).unwrap_or_default()
    }

    /// Records why a connection could not be made.
    pub(super) fn record_connect_failure(&self, failure: String) {
        self.lock().connect_failure = Some(failure);
    }

    /// Returns why the last failed connection attempt did not succeed.
    pub(super) fn connect_failure(&self) -> Option<String> {
        self.lock().connect_failure.clone()
    }

    /// Records that the link was lost.
    pub(super) fn lost(&self) {
        self.backoff.lost(Instant::now());
        self.change(|state| (state.is_confirmed, state.is_leaving) = (false, false));
    }

    /// Records that a probe, sent after all subscriptions, came back over a new connection.
    pub(super) fn confirmed(&self) {
        self.change(|state| (state.is_confirmed, state.epoch) = (true, state.epoch + 1));
        if self.link.borrow().epoch > 1 {
            counter(&names::NATS_RECONNECTS, &[]).increment(1);
        }
    }

    /// Returns whether no probe has come back since the link was lost.
    pub(super) fn is_down(&self) -> bool {
        self.link.borrow().state == LinkState::Down
    }

    /// Records that the server accepts a refused inbox subscription again. Replies sent to the
    /// inbox in the meantime are lost.
    pub(super) fn inbox_restored(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Updates the link after a change of the subscriptions.
    pub(super) fn refresh(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let link_state = if !state.is_confirmed {
            LinkState::Down
        } else if self.subscriptions.is_deaf() {
            LinkState::SubscriptionRefused
        } else if state.is_leaving {
            LinkState::LameDuck
        } else {
            LinkState::Up
        };
        gauge(&names::NATS_CONNECTED, &[]).set(if state.is_confirmed { 1.0 } else { 0.0 });
        let now = Link { state: link_state, epoch: state.epoch };
        self.link.send_if_modified(|link| std::mem::replace(link, now) != now);
    }

    fn is_in_use(&self, client: u64) -> bool {
        self.lock().client == client
    }

    fn record_trial(&self, client: u64, event: &Event) {
        let Event::ServerError(ServerError::Other(error)) = event else { return };
        if SubscriptionRefusal::parse(error).is_none() {
            return;
        }
        if let Some(trial) = self.lock().trial.as_mut().filter(|trial| trial.client == client)
            && trial.refusals.len() < TRIAL_REFUSALS_MAX
        {
            trial.refusals.push(error.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, logs and applies a client's event. Must not block: the library waits for it.
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
        if !self.is_in_use(client) {
            return self.record_trial(client, event);
        }
        match event {
            Event::Connected => {
                tracing::info!("connected to NATS");
                self.backoff.connected(Instant::now());
                self.changed.notify_one();
            }
            Event::Disconnected => {
                tracing::warn!("connection to NATS lost, reconnecting");
                self.lost();
                self.changed.notify_one();
            }
            Event::LameDuckMode => {
                tracing::warn!("the NATS server is about to stop, reconnecting to another");
                self.change(|state| state.is_leaving = true);
            }
            Event::SlowConsumer(subscription) => {
                if conditions::raise(&DROPPED, "") {
                    tracing::error!(
                        subscription,
                        "messages were dropped because they were not read fast enough"
                    );
                }
            }
            Event::ServerError(error) => self.refused(error),
            // `connect` logs why connections fail.
            Event::ClientError(error) => tracing::debug!(%error, "NATS client error"),
            Event::Draining | Event::Closed => {}
        }
    }

    fn refused(&self, error: &ServerError) {
        let subscription = match error {
            ServerError::Other(text) => SubscriptionRefusal::parse(text),
            ServerError::AuthorizationViolation | ServerError::SlowConsumer(_) => None,
        };
        let Some(refusal) = subscription else {
            if conditions::raise(&REFUSED, repeated_part(&error.to_string())) {
                tracing::error!(%error, "NATS refused an operation; check the permissions of the account");
            }
            return;
        };
        if self.subscriptions.refuse(&refusal) {
            // The server may report `TooMany` once for each subscription.
            if refusal != SubscriptionRefusal::TooMany
                || conditions::raise(&REFUSED, "subscriptions")
            {
                tracing::error!(%error, "NATS refuses a subscription; retrying until it is accepted");
            }
            self.refresh();
        }
    }
}
