//! Membership of one queue group: joins, reads eagerly, leaves without losing a message.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::config::WorkerConfig;
use crate::config::limits::OFFER_LOOK;
use crate::lifecycle::Cancel;
use crate::messaging::{self, Link, LinkState, Subscription, Transport, TransportError};
use crate::procedures::databases::Fitness;
use crate::telemetry::{gauge, names};

use crate::roles::worker::intake::queue::Queue;
use crate::roles::worker::observation::readiness::Health;

/// Pause before a queue that could not start is tried again.
const START_AGAIN: Duration = Duration::from_secs(5);
/// How much later than an answer of the server its refusal may be told.
const REFUSAL_LIMIT: Duration = Duration::from_millis(20);
/// Why a queue is not served.
const REFUSED: &str = "NATS refuses a subscription: see the log";

/// A queue's membership with all it depends on.
#[derive(Debug)]
pub struct Intake {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The message bus.
    pub transport: Arc<dyn Transport>,
    /// Whether its database answers and has what it needs; none for handlers that need no database.
    pub fitness: Option<watch::Receiver<Fitness>>,
    /// The worker's configuration.
    pub config: WorkerConfig,
    /// Where readiness is reported.
    pub health: Arc<Health>,
    /// Given when the queue is to be left for good.
    pub stop: Cancel,
    /// Longest wait for the proof that it was left.
    pub leave_limit: Duration,
}

/// Why a queue was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// For good.
    Stopped,
    /// Its database went away, or has no longer what it needs.
    Unfit,
    /// NATS refuses what the worker needs beside the queue: consents and cancels would not reach it.
    Deaf,
    /// The transport closed the subscription.
    Closed,
}

impl Intake {
    /// Serves the queue until `stop`: waits until its database has what it needs, joins, and joins again.
    pub async fn serve(mut self) {
        let mut is_back = false;
        while self.fits().await {
            match self.join().await {
                Ok(subscription) => {
                    self.log_joined(is_back);
                    let left = self.read(subscription).await;
                    self.log_left(left);
                    is_back = left == Left::Unfit;
                    if left == Left::Deaf {
                        self.report(Err(REFUSED.to_owned()));
                    }
                }
                Err(error) => {
                    self.report(Err(error.to_string()));
                    self.pause(START_AGAIN).await;
                }
            }
        }
    }

    /// Waits until the database has what the queue needs; `false` when it is to stop.
    async fn fits(&mut self) -> bool {
        while !self.stop.is_cancelled() {
            let Some(fitness) = &mut self.fitness else { return true };
            let why = match &*fitness.borrow_and_update() {
                Fitness::Fits => return true,
                Fitness::Unfit(why) => why.to_string(),
            };
            self.report(Err(why));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = changed(&mut self.fitness) => {}
            }
        }
        false
    }

    /// A queue that comes back with its database is one of many: the database has a line for all.
    fn log_joined(&self, is_back: bool) {
        let (queue, limit) = (self.queue.name.as_str(), self.queue.slots().limit());
        if is_back {
            tracing::debug!(queue, limit, "joined the queue group");
        } else {
            tracing::info!(queue, limit, "joined the queue group");
        }
    }

    fn log_left(&self, left: Left) {
        let queue = self.queue.name.as_str();
        match left {
            Left::Unfit => tracing::debug!(queue, ?left, "left the queue group"),
            Left::Stopped | Left::Deaf | Left::Closed => {
                tracing::info!(queue, ?left, "left the queue group");
            }
        }
    }

    /// Joins the group; returns once the server knows it.
    async fn join(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let mut link = self.transport.link();
        tokio::select! {
            // A transport that closed refuses what follows.
            _ = messaging::up(&mut link) => {}
            () = self.stop.cancelled() => return Err(TransportError::Disconnected),
        }
        let group = self.queue.name.as_str();
        let subscription = self.transport.queue_subscribe(&self.queue.subject, group).await?;
        self.transport.flush().await?;
        // The server has answered by now, but its refusal may reach us a moment after that.
        let mut served = subscription.served();
        let _served = timeout(REFUSAL_LIMIT, served.wait_for(|served| !served)).await;
        Ok(subscription)
    }

    async fn read(&mut self, mut subscription: Box<dyn Subscription>) -> Left {
        self.queue.available();
        let left = self.read_on(&mut subscription).await;
        match left {
            Left::Stopped => self.queue.drain(),
            Left::Unfit | Left::Deaf => self.queue.unavailable(),
            Left::Closed => return left,
        }
        self.leave(subscription).await;
        left
    }

    /// Reads until the group is to be left.
    async fn read_on(&mut self, subscription: &mut Box<dyn Subscription>) -> Left {
        // Made once: made for each message they are most of what it costs to wait for one.
        let mut stopped = pin!(self.stop.cancelled());
        let mut unfit = pin!(unfit(&mut self.fitness));
        let mut deaf = pin!(deaf(self.transport.link()));
        let (queue, health) = (&self.queue, &self.health);
        let mut told = pin!(tell(subscription.served(), |state| report(queue, health, state)));
        let mut look = pin!(sleep(OFFER_LOOK));
        loop {
            tokio::select! {
                // Messages come last: a queue that is never quiet could not be left otherwise.
                biased;
                () = &mut stopped => return Left::Stopped,
                () = &mut unfit => return Left::Unfit,
                () = &mut deaf => return Left::Deaf,
                () = &mut told => {}
                message = subscription.next() => match message {
                    Some(message) => self.queue.arrived(message),
                    None => return Left::Closed,
                },
                () = self.queue.waits() => {}
                () = &mut look => {}
            }
            let look_at = look.deadline();
            if look_at <= Instant::now()
                || self.queue.slots().next_lapse().is_some_and(|at| at < look_at)
            {
                let lapse = self.queue.lapse();
                self.queue.note_load();
                let later = Instant::now() + OFFER_LOOK;
                look.as_mut().reset(lapse.map_or(later, |at| at.min(later)));
            }
        }
    }

    /// Leaves the group: the server stops after a number of messages beyond what was seen, and whatever
    /// still comes is refused. The group is left when it was silent for a while, and a message to ourselves
    /// has come back since: silence alone may be a server that stands still.
    async fn leave(&self, mut subscription: Box<dyn Subscription>) {
        if let Err(error) = subscription.leave_after(self.config.leave_messages).await {
            tracing::warn!(queue = %self.queue.name, %error, "could not leave the queue group in order");
        }
        let end = Instant::now() + self.leave_limit;
        while self.refuse_until_silent(&mut subscription).await {
            let left = end.saturating_duration_since(Instant::now());
            let mut proof = pin!(self.transport.flush_within(left));
            let mut is_silent = true;
            let proved = loop {
                tokio::select! {
                    biased;
                    message = subscription.next() => match message {
                        Some(message) => {
                            is_silent = false;
                            self.queue.arrived(message);
                        }
                        None => return,
                    },
                    proved = &mut proof => break proved,
                }
            };
            match proved {
                Ok(()) if is_silent => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(queue = %self.queue.name, %error, "not proved to have left the queue group");
                    return;
                }
            }
        }
    }

    /// Refuses what comes until nothing has come for a while; not when there is nothing more to come.
    async fn refuse_until_silent(&self, subscription: &mut Box<dyn Subscription>) -> bool {
        while let Ok(message) = timeout(self.config.leave_idle, subscription.next()).await {
            let Some(message) = message else { return false };
            self.queue.arrived(message);
        }
        true
    }

    fn report(&self, state: Result<(), String>) {
        report(&self.queue, &self.health, state);
    }

    async fn pause(&self, limit: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(limit) => {}
        }
    }
}

fn report(queue: &Queue, health: &Health, state: Result<(), String>) {
    let label = [(names::QUEUE, queue.name.to_string())];
    gauge(&names::WORKER_QUEUE_READY, &label).set(if state.is_ok() { 1.0 } else { 0.0 });
    health.queue(queue.name.as_str(), state);
}

/// Tells whether the queue's subscription is served, and every change of that; never returns.
async fn tell(mut served: watch::Receiver<bool>, report: impl Fn(Result<(), String>)) {
    loop {
        let is_served = *served.borrow_and_update();
        report(if is_served { Ok(()) } else { Err(REFUSED.to_owned()) });
        if served.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until what the worker needs beside its queues is refused.
async fn deaf(mut link: watch::Receiver<Link>) {
    if link.wait_for(|link| link.state == LinkState::Deaf).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until more is known; for ever when nothing more comes.
async fn changed(fitness: &mut Option<watch::Receiver<Fitness>>) {
    let changed = match fitness {
        Some(fitness) => fitness.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

/// Waits until the queue cannot be served; for ever when it needs no database.
async fn unfit(fitness: &mut Option<watch::Receiver<Fitness>>) {
    let unfit = match fitness {
        Some(fitness) => fitness.wait_for(|fitness| *fitness != Fitness::Fits).await.is_ok(),
        None => false,
    };
    if !unfit {
        std::future::pending::<()>().await;
    }
}
