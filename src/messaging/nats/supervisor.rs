//! Watches over the client: proves that it is alive, replaces it when it is not, and has subscriptions served again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::echo::Echoes;
use super::live::Live;
use super::round_trip::Measured;
use super::state::State;
use super::subscriptions::Handle;
use crate::config::messaging::NatsConfig;
use crate::lifecycle::Cancel;
use crate::messaging::{LinkState, TransportError};
use crate::telemetry::{counter, gauge, names};

/// Probes within the interval of pings.
const PROBES: u32 = 4;
/// Intervals of pings after which a link without an answer is dead.
const SILENT_PINGS: u32 = 2;
/// Within this time of the notice a server that is about to stop is left. Servers wait 10 s before they end connections.
const LEAVE_SPREAD: Duration = Duration::from_secs(2);
/// Pauses between attempts to have a refused subscription served: each is a line in the server's log.
const TRY_FIRST: Duration = Duration::from_secs(1);
const TRY_MAX: Duration = Duration::from_secs(10);
/// Subscriptions that are tried together: their refusals must not be more than the library keeps for us.
const TRY_TOGETHER: usize = 64;
/// A refusal is told by another task than an echo: how much later it may come.
const TELL_LIMIT: Duration = Duration::from_millis(50);
/// Pause before a client is made again that could not be made.
const MAKE_AGAIN: Duration = Duration::from_secs(1);

/// What the supervisor and the operations share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: NatsConfig,
    pub(super) name: String,
    pub(super) live: ArcSwap<Live>,
    pub(super) state: Arc<State>,
    pub(super) echoes: Arc<Echoes>,
    pub(super) measured: Mutex<Measured>,
    /// Given when nobody needs the transport any more.
    pub(super) stop: Cancel,
}

/// Why a client is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Its connection task has ended, which it does by a panic alone.
    Ended,
    /// Nothing came back for two pings.
    Silent,
    /// Subscriptions were refused, and nobody knows which.
    Unknown,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Unknown => "subscriptions",
        }
    }
}

/// Watches over the client until nobody needs it.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let live = shared.live.load_full();
        let reason = tokio::select! {
            () = shared.stop.cancelled() => return,
            reason = shared.watch_over(&live) => reason,
        };
        live.retire();
        // It may have been replaced while some were tried on it.
        let _not_finished = shared.state.subscriptions.end_to_try();
        shared.state.lost();
        let label = [(names::REASON, reason.as_str().to_owned())];
        counter(&names::NATS_CLIENTS_REPLACED, &label).increment(1);
        tracing::error!(reason = reason.as_str(), "the NATS client is replaced");
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replace(live.number + 1, reason) => {}
        }
    }
}

impl Shared {
    /// Returns when the client has to be replaced.
    async fn watch_over(&self, live: &Live) -> Reason {
        tokio::select! {
            () = live.ended.cancelled() => Reason::Ended,
            () = self.prove(live) => Reason::Silent,
            () = self.state.subscriptions.unknown.notified() => Reason::Unknown,
            () = self.renew(live) => Reason::Unknown,
            () = self.leave_in_time(live) => Reason::Ended,
        }
    }

    /// Sends messages to ourselves all the time; returns when none comes back.
    async fn prove(&self, live: &Live) {
        let ping_interval = self.config.ping_interval;
        let mut ticks = interval(ping_interval / PROBES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut proved = 0;
        let mut last = Instant::now();
        self.lock_measured().forget();
        loop {
            let is_told = tokio::select! {
                _ = ticks.tick() => false,
                () = self.state.changed.notified() => true,
            };
            // It connects by itself, for as long as it takes. It tells so a moment before its state does.
            if !is_told && !live.is_connected() {
                last = Instant::now();
                continue;
            }
            let connections = live.connections();
            if connections != proved {
                last = Instant::now();
            }
            let limit = last + ping_interval * SILENT_PINGS;
            self.lock_measured().sent(Instant::now());
            let answer = tokio::select! {
                answer = timeout_at(limit, live.round_trip(&self.echoes)) => answer,
                // What was sent before went with the connection.
                () = self.state.changed.notified() => {
                    self.lock_measured().forget();
                    ticks.reset_immediately();
                    continue;
                }
            };
            match answer {
                Ok(Ok(took)) => {
                    last = Instant::now();
                    self.measured(took);
                    // A loss may be told late, after the connection that followed it was proved.
                    let is_news = connections != proved || self.state.is_down();
                    if is_news && live.is_connected() && live.connections() == connections {
                        proved = connections;
                        self.state.proved();
                    }
                }
                // A process that was stopped for a while has not listened.
                Err(_) if limit.elapsed() > ping_interval / PROBES => last = Instant::now(),
                Err(_) if live.is_connected() => return,
                // Not connected any more, or ended: noticed elsewhere.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    pub(super) fn lock_measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measured(&self, took: Duration) {
        let mut measured = self.lock_measured();
        measured.add(took);
        let smoothed = measured.round_trip(Instant::now()).smoothed;
        drop(measured);
        gauge(&names::NATS_ROUND_TRIP, &[]).set(smoothed.as_secs_f64());
        self.state.look();
    }

    /// Makes another client, with every subscription. Only then it is used.
    async fn replace(&self, number: u64, reason: Reason) {
        sleep(self.state.pace.delay(0)).await;
        self.state.begin(number);
        let of = (&self.state, &self.echoes);
        let live = loop {
            match Live::start(&self.config, &self.name, number, of).await {
                Ok(live) => break Arc::new(live),
                Err(error) => tracing::error!(%error, "cannot make a NATS client"),
            }
            sleep(MAKE_AGAIN).await;
        };
        if reason == Reason::Unknown {
            // One after the other then, so that it is known which.
            self.state.subscriptions.refuse_all();
        }
        self.subscribe_all(&live).await;
        self.live.store(Arc::clone(&live));
        // Those that came meanwhile.
        self.subscribe_all(&live).await;
    }

    async fn subscribe_all(&self, live: &Live) {
        for handle in self.state.subscriptions.good() {
            if let Err(error) = handle.subscribe_on(live).await {
                tracing::warn!(%error, subject = %handle.subject, "cannot subscribe");
            }
        }
    }

    /// Tries to have refused subscriptions served, ever more rarely. Never returns.
    async fn renew(&self, live: &Live) {
        let subscriptions = &self.state.subscriptions;
        let mut link = self.state.link();
        let (mut pause, mut together) = (Duration::ZERO, TRY_TOGETHER);
        loop {
            let bad = subscriptions.bad();
            if bad.is_empty() {
                together = TRY_TOGETHER;
                subscriptions.refused.notified().await;
                pause = TRY_FIRST;
                sleep(jittered(pause)).await;
                if subscriptions.may_have_missed_some() {
                    tracing::warn!(
                        "refusals of subscriptions may have been missed, each is made anew"
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
            for handles in bad.chunks(together) {
                is_clear &= self.try_again(live, handles).await;
            }
            self.state.look();
            if !is_clear {
                // One after the other then, so that it is known which.
                together = 1;
            } else if !subscriptions.bad().is_empty() {
                pause = (pause * 2).clamp(TRY_FIRST, TRY_MAX);
                sleep(jittered(pause)).await;
            }
        }
    }

    /// Subscribes to some once more, and waits until the server has answered. Says whether it is known which it refused.
    async fn try_again(&self, live: &Live, handles: &[Arc<Handle>]) -> bool {
        let subscriptions = &self.state.subscriptions;
        subscriptions.begin_to_try(handles);
        let tried = self.tried(live, handles).await;
        let batch = subscriptions.end_to_try();
        let subscribers = match tried {
            Ok(subscribers) => subscribers,
            Err(error) => {
                tracing::debug!(%error, "cannot subscribe");
                return true;
            }
        };
        let served = handles.iter().zip(subscribers).filter(|(handle, _)| batch.serves(handle));
        let mut misses_answers = false;
        for (handle, subscriber) in served {
            subscriptions.serve(handle, subscriber, live.number);
            misses_answers |= handle.is_inbox();
            tracing::info!(subject = %handle.subject, "a subscription is served again");
        }
        if misses_answers {
            self.state.renewed();
        }
        !batch.is_unclear()
    }

    async fn tried(
        &self,
        live: &Live,
        handles: &[Arc<Handle>],
    ) -> Result<Vec<async_nats::Subscriber>, TransportError> {
        let mut subscribers = Vec::with_capacity(handles.len());
        for handle in handles {
            let taken = timeout(live.operation_timeout, handle.subscriber(live));
            subscribers.push(taken.await.map_err(|_| TransportError::TimedOut)??);
        }
        let proof = timeout(self.config.ping_interval, live.round_trip(&self.echoes));
        let _took = proof.await.map_err(|_| TransportError::TimedOut)??;
        sleep(TELL_LIMIT).await;
        Ok(subscribers)
    }

    /// Leaves a server that is about to stop (lame duck) before it ends the connection. Not all clients at once: the
    /// others would be met by everybody. Never returns.
    async fn leave_in_time(&self, live: &Live) {
        let mut link = self.state.link();
        loop {
            if link.wait_for(|link| link.state == LinkState::Leaving).await.is_err() {
                std::future::pending::<()>().await;
            }
            let pause = rand::rng().random_range(Duration::ZERO..=LEAVE_SPREAD);
            sleep(pause).await;
            if link.borrow().state == LinkState::Leaving
                && let Err(error) = self.move_on(live).await
            {
                tracing::warn!(error, "could not leave the NATS server early");
            }
            if link.wait_for(|link| link.state != LinkState::Leaving).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Connects anew. What was published goes over the old connection first.
    pub(super) async fn move_on(&self, live: &Live) -> Result<(), String> {
        let moved = timeout(self.config.operation_timeout, async {
            live.client.flush().await.map_err(|error| error.to_string())?;
            live.client.force_reconnect().await.map_err(|error| error.to_string())
        });
        moved.await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
