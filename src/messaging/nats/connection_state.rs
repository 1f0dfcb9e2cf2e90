//! The state of the link, derived from the client's events and from probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{ClientError, Event, ServerError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::backoff::ReconnectBackoff;
use super::problems::LinkProblems;
use super::refusal::{SubscriptionRefusal, owner_part, refused_publish, repeated_part};
use super::subscriptions::Subscriptions;
use crate::messaging::{Link, LinkState};
use crate::telemetry::conditions::{self, ConditionKind};
use crate::telemetry::{counter, gauge, names};

/// Messages arrive faster than they are read.
const DROPPED: ConditionKind = ConditionKind::new("messages from NATS are dropped");
/// The server refuses operations of this process.
const REFUSED: ConditionKind = ConditionKind::new("NATS refuses operations");

/// The events that the alert rules use.
const SLOW_CONSUMER: &str = "slow_consumer";
const SERVER_ERROR: &str = "server_error";
/// The operations that require a permission.
const PUBLISH: &str = "publish";
const SUBSCRIBE: &str = "subscribe";

/// The maximum number of refusals that are remembered for a client that is not used yet.
const TRIAL_REFUSALS_MAX: usize = 1_000;

/// The state of the link, shared by the client's callbacks and the supervisor.
#[derive(Debug)]
pub(super) struct ConnectionState {
    state: Mutex<State>,
    link: watch::Sender<Link>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) problems: LinkProblems,
    pub(super) backoff: ReconnectBackoff,
    /// Notified when a connection is made or lost.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the client in use. Events of other clients are counted but have no other effect.
    client: u64,
    is_confirmed: bool,
    is_leaving: bool,
    epoch: u64,
    /// A client that is not used yet.
    trial: Option<ClientTrial>,
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
        // The counters are exported as zero from the start, so that rates include the first event.
        for event in [SLOW_CONSUMER, SERVER_ERROR] {
            count_event(event, 0);
        }
        counter(&names::NATS_SUBSCRIPTIONS_LOST, &[]).increment(0);
        for operation in [PUBLISH, SUBSCRIBE] {
            count_violation(operation, 0);
        }
        Self {
            state: Mutex::default(),
            link: watch::Sender::new(Link::NEW),
            subscriptions: Arc::default(),
            problems: LinkProblems::default(),
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

    /// Switches to another client that is already connected. The link stays up, and its next probe starts a new epoch.
    pub(super) fn switch_client(&self, client: u64) {
        self.change(|state| (state.client, state.is_leaving) = (client, false));
    }

    /// Starts recording the refusals that the server sends to another client, which is not used yet.
    pub(super) fn begin_trial(&self, client: u64) {
        self.lock().trial = Some(ClientTrial { client, refusals: Vec::new() });
        // The earlier failures occurred with other settings.
        self.problems.connected();
    }

    /// Returns whether the server has refused a subscription since `begin_trial`.
    pub(super) fn has_trial_refusal(&self) -> bool {
        self.lock().trial.as_ref().is_some_and(|trial| !trial.refusals.is_empty())
    }

    /// Returns the refusals since `begin_trial`.
    pub(super) fn end_trial(&self) -> Vec<String> {
        self.lock().trial.take().map(|trial| trial.refusals).unwrap_or_default()
    }

    /// Returns the current problems, keyed by the part of the connection that they affect.
    pub(super) fn problems(&self) -> BTreeMap<String, String> {
        let mut problems = self.problems.notes(Instant::now());
        if self.is_down()
            && let Some(failure) = self.problems.connect_failure()
        {
            problems.insert("nats connection".to_owned(), failure);
        }
        if let Some(text) = self.subscriptions.problem() {
            problems.insert("nats subscriptions".to_owned(), text);
        }
        problems
    }

    /// Records that the link was lost.
    pub(super) fn lost(&self) {
        self.backoff.lost(Instant::now());
        self.change(|state| (state.is_confirmed, state.is_leaving) = (false, false));
    }

    /// Records that a probe has come back over a new connection. The probe was sent after all subscriptions were made.
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

    /// Records that the server accepts a previously refused inbox subscription. Replies sent to the inbox in the
    /// meantime are lost.
    pub(super) fn inbox_restored(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Updates the link after a change to the subscriptions.
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
            Event::SlowConsumer(_) => SLOW_CONSUMER,
            Event::ServerError(_) => SERVER_ERROR,
            Event::ClientError(_) => "client_error",
            Event::Draining => "draining",
            Event::Closed => "closed",
        };
        count_event(word, 1);
        // Connection failures are recorded even for a client that is not used yet.
        match event {
            Event::Connected => self.problems.connected(),
            Event::ClientError(ClientError::Other(error)) => {
                self.problems.record_connect_failure(error.clone());
            }
            _ => {}
        }
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
                self.problems.record_dropped(Instant::now());
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
        let Some(refusal) = subscription else { return self.server_error(error) };
        if matches!(refusal, SubscriptionRefusal::Subject { .. }) {
            count_violation(SUBSCRIBE, 1);
        }
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

    fn server_error(&self, error: &ServerError) {
        let text = error.to_string();
        let refused = match error {
            ServerError::Other(error) => refused_publish(error),
            ServerError::AuthorizationViolation | ServerError::SlowConsumer(_) => None,
        };
        let subject = refused.map(owner_part);
        if let Some(subject) = subject {
            count_violation(PUBLISH, 1);
            self.problems.record_refused_publish(subject, Instant::now());
        }
        if !conditions::raise(&REFUSED, repeated_part(&text)) {
            return;
        }
        if let Some(subject) = subject {
            tracing::error!(
                subject,
                error = text,
                "NATS does not permit this user to publish to the subject; messages to it are lost"
            );
        } else {
            tracing::error!(error = text, "the NATS server has reported an error");
        }
    }
}

fn count_event(event: &str, number: u64) {
    counter(&names::NATS_EVENTS, &[(names::EVENT, event.to_owned())]).increment(number);
}

/// Counts a subject that the server does not permit this user to use.
fn count_violation(operation: &str, number: u64) {
    let label = [(names::OPERATION, operation.to_owned())];
    counter(&names::NATS_PERMISSION_VIOLATIONS, &label).increment(number);
}
