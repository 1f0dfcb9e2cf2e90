//! Measures the round trip through the server all the time.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::convert;
use super::echo::Echoes;
use super::round_trip::Measured;
use crate::lifecycle::Tasks;
use crate::messaging::{RoundTrip, Subject, TransportError};

/// Probes within the interval of pings.
const PROBES: u32 = 4;

/// What is measured.
#[derive(Debug)]
pub(super) struct Probe {
    echoes: Echoes,
    measured: Mutex<Measured>,
}

impl Probe {
    /// Starts to measure; ends with what it gives back.
    pub(super) async fn start(
        client: &Client,
        inbox: &Subject,
        ping_interval: Duration,
    ) -> Result<Arc<Self>, TransportError> {
        let echoes = Echoes::new(inbox).map_err(|e| TransportError::Refused(e.into()))?;
        let subject = convert::subject(&echoes.subject());
        let subscription = client.subscribe(subject).await;
        let mut back = subscription.map_err(|e| TransportError::Refused(e.into()))?;
        let probe = Arc::new(Self { echoes, measured: Mutex::default() });
        let sending = send(Arc::downgrade(&probe), client.clone(), ping_interval);
        let _detached = Tasks::new().spawn_background(sending);
        let reading = Arc::downgrade(&probe);
        let _detached = Tasks::new().spawn_background(async move {
            while let Some(message) = back.next().await {
                let Some(probe) = reading.upgrade() else { return };
                probe.echoes.arrived(&message.subject);
            }
        });
        Ok(probe)
    }

    /// What was measured of late.
    pub(super) fn round_trip(&self) -> RoundTrip {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).round_trip()
    }
}

async fn send(probe: Weak<Probe>, client: Client, ping_interval: Duration) {
    let mut ticks = interval(ping_interval / PROBES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(probe) = probe.upgrade() else { return };
        if client.connection_state() != State::Connected {
            continue;
        }
        let mut echo = probe.echoes.expect();
        let began = Instant::now();
        let there_and_back = async {
            client.publish(convert::subject(&echo.subject()), Bytes::new()).await.ok()?;
            echo.came().await;
            Some(began.elapsed())
        };
        if let Ok(Some(took)) = timeout(ping_interval, there_and_back).await {
            probe.measured.lock().unwrap_or_else(PoisonError::into_inner).add(took);
        }
    }
}
