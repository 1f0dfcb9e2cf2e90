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
use crate::messaging::{self, Subscription, Transport, TransportError};
use crate::procedures::Backend;
use crate::telemetry::{gauge, names};

use super::health::Health;
use super::queue::Queue;

/// Pause before a queue that could not start is tried again.
const START_AGAIN: Duration = Duration::from_secs(5);

/// A queue's membership with all it depends on.
#[derive(Debug)]
pub struct Intake {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The message bus.
    pub transport: Arc<dyn Transport>,
    /// The backend of its procedures; none for handlers that need none.
    pub backend: Option<Arc<dyn Backend>>,
    /// Whether that backend answers.
    pub backend_up: Option<watch::Receiver<bool>>,
    /// The worker's configuration.
    pub config: WorkerConfig,
    /// Where readiness is reported.
    pub health: Arc<Health>,
    /// Given when the queue is to be left for good.
    pub stop: Cancel,
}

/// Why a queue was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// For good.
    Stopped,
    /// Its backend went away.
    BackendDown,
    /// The transport closed the subscription.
    Closed,
}

impl Intake {
    /// Serves the queue until `stop`: waits for its backend, checks that they fit, joins, and joins again.
    pub async fn serve(mut self) {
        while !self.stop.is_cancelled() {
            if !self.is_fit().await {
                self.pause(START_AGAIN).await;
                continue;
            }
            match self.join().await {
                Ok(subscription) => {
                    self.report(Ok(()));
                    let left = self.read(subscription).await;
                    tracing::info!(queue = %self.queue.name, ?left, "left the queue group");
                    if left == Left::BackendDown {
                        self.report(Err("its database is not available".to_owned()));
                    }
                }
                Err(error) => {
                    self.report(Err(error.to_string()));
                    self.pause(START_AGAIN).await;
                }
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
        Ok(subscription)
    }

    /// Whether the backend is up and has the procedures that the catalogue names.
    async fn is_fit(&mut self) -> bool {
        if let Some(up) = &mut self.backend_up
            && !*up.borrow_and_update()
        {
            self.report(Err("its database is not available".to_owned()));
            return false;
        }
        let Some(backend) = self.backend.clone() else { return true };
        for need in self.queue.needs() {
            if let Err(error) = backend.verify(&need).await {
                tracing::error!(
                    queue = %self.queue.name, procedure = %need.procedure, %error,
                    "a queue does not fit its database and is not served"
                );
                self.report(Err(error.to_string()));
                return false;
            }
        }
        true
    }

    async fn read(&mut self, mut subscription: Box<dyn Subscription>) -> Left {
        tracing::info!(queue = %self.queue.name, limit = self.queue.slots().limit(), "joined the queue group");
        self.queue.available();
        let left = self.read_on(&mut subscription).await;
        match left {
            Left::Stopped => self.queue.drain().await,
            Left::BackendDown => self.queue.unavailable().await,
            Left::Closed => return left,
        }
        self.leave(subscription).await;
        left
    }

    /// Reads until the group is to be left.
    async fn read_on(&mut self, subscription: &mut Box<dyn Subscription>) -> Left {
        // Made once: made for each message they are most of what it costs to wait for one.
        let mut stopped = pin!(self.stop.cancelled());
        let mut down = pin!(down(&mut self.backend_up));
        let mut look = pin!(sleep(OFFER_LOOK));
        loop {
            tokio::select! {
                // Messages come last: a queue that is never quiet could not be left otherwise.
                biased;
                () = &mut stopped => return Left::Stopped,
                () = &mut down => return Left::BackendDown,
                message = subscription.next() => match message {
                    Some(message) => self.queue.arrived(message).await,
                    None => return Left::Closed,
                },
                () = &mut look => {}
            }
            let look_at = look.deadline();
            if look_at <= Instant::now()
                || self.queue.slots().next_lapse().is_some_and(|at| at < look_at)
            {
                let lapse = self.queue.lapse().await;
                self.queue.note_load();
                let later = Instant::now() + OFFER_LOOK;
                look.as_mut().reset(lapse.map_or(later, |at| at.min(later)));
            }
        }
    }

    /// Leaves the group: the server stops after a number of messages beyond what was seen, and whatever
    /// still comes is refused. The group is left when it is silent.
    async fn leave(&self, mut subscription: Box<dyn Subscription>) {
        if let Err(error) = subscription.leave_after(self.config.leave_messages).await {
            tracing::warn!(queue = %self.queue.name, %error, "could not leave the queue group in order");
        }
        while let Ok(Some(message)) = timeout(self.config.leave_idle, subscription.next()).await {
            self.queue.arrived(message).await;
        }
    }

    fn report(&self, state: Result<(), String>) {
        let label = [(names::QUEUE, self.queue.name.to_string())];
        gauge(&names::WORKER_QUEUE_READY, &label).set(if state.is_ok() { 1.0 } else { 0.0 });
        self.health.queue(self.queue.name.as_str(), state);
    }

    async fn pause(&mut self, limit: Duration) {
        let up = async {
            match &mut self.backend_up {
                Some(up) if !*up.borrow() => {
                    if up.wait_for(|up| *up).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = up => {}
            () = sleep(limit) => {}
        }
    }
}

/// Waits until the backend is away; for ever when there is none.
async fn down(backend_up: &mut Option<watch::Receiver<bool>>) {
    let away = match backend_up {
        Some(up) => up.wait_for(|up| !*up).await.is_ok(),
        None => false,
    };
    if !away {
        std::future::pending::<()>().await;
    }
}
