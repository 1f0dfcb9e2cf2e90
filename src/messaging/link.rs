//! The link to the message bus: its state, epoch and round-trip time.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Transport;

/// The link to the message bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether messages can be sent now.
    pub state: LinkState,
    /// The epoch. It is incremented whenever replies to this process may have been lost. This happens with every new
    /// connection (the first is 1), and when the server accepts a previously refused inbox subscription.
    pub epoch: u64,
}

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The link is connected.
    Up,
    /// The link is disconnected or not yet confirmed by a probe. The transport reconnects on its own.
    Down,
    /// The server refuses a subscription that the process needs, so messages on the subject of that subscription are
    /// lost.
    SubscriptionRefused,
    /// The server is about to stop (lame duck mode). The transport reconnects on its own.
    LameDuck,
}

impl Link {
    /// The link before the first connection.
    pub(super) const NEW: Self = Self { state: LinkState::Down, epoch: 0 };

    /// Returns whether messages can be sent now.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::LameDuck)
    }
}

/// Waits until messages can be sent. Returns `None` if the transport was dropped. Cancel safe.
pub async fn wait_until_up(link: &mut watch::Receiver<Link>) -> Option<Link> {
    link.wait_for(|link| link.is_up()).await.ok().map(|link| *link)
}

/// Waits until messages can be sent in an epoch later than `seen`, and returns that epoch. Returns `None` if the
/// transport was dropped. Cancel safe.
pub async fn next_epoch(link: &mut watch::Receiver<Link>, seen: u64) -> Option<u64> {
    let next = link.wait_for(|link| link.is_up() && link.epoch > seen).await;
    next.ok().map(|link| link.epoch)
}

/// Whether the connection uses the configuration of the last reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsState {
    /// The connection uses that configuration, or the reload changed nothing.
    InUse,
    /// No connection uses the new configuration yet.
    Pending,
    /// The server refuses the new configuration for this reason. The previous configuration stays in use.
    Refused(String),
}

/// Waits until the connection uses the configuration of the last reload, but at most until `deadline`. Cancel safe.
///
/// # Errors
/// Returns the reason why the connection does not use the configuration.
pub async fn settings_applied(transport: &dyn Transport, deadline: Instant) -> Result<(), String> {
    let mut settings = transport.settings();
    let decided = settings.wait_for(|state| *state != SettingsState::Pending);
    match timeout_at(deadline, decided).await.map(|state| state.map(|state| state.clone())) {
        Ok(Ok(SettingsState::Refused(why))) => Err(format!(
            "NATS refuses the reloaded settings; the previous settings stay in use: {why}"
        )),
        Ok(Ok(_) | Err(_)) => Ok(()),
        Err(_) => {
            let cause = transport.connect_failure();
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(format!("no connection to NATS with the reloaded settings yet{cause}"))
        }
    }
}

/// The round-trip time of a message from this process to itself. Zero before the first measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// The smoothed mean (RFC 6298). A new measurement has a weight of one eighth.
    pub smoothed: Duration,
    /// The longest of the last 9 to 16 measurements.
    pub recent_max: Duration,
    /// The time for which the pending measurement has been running. Zero if none is pending.
    pub pending: Duration,
    /// The latest time at which the link was stalled. If it is stalled now, this is the current time. Replies that are
    /// missing shortly after this time do not indicate that other processes have failed.
    pub stalled_at: Option<Instant>,
}

impl RoundTrip {
    /// Returns the time until which silence from a process that reports every `interval` does not indicate a failure. A
    /// stalled link delays reports, and the next report arrives at most one interval after the stall.
    #[must_use]
    pub fn silence_excused_until(&self, interval: Duration) -> Option<Instant> {
        self.stalled_at.map(|stalled_at| stalled_at + interval)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_reconnect_between_two_checks_is_a_new_epoch() {
        let up = |epoch| Link { state: LinkState::Up, epoch };
        let (sender, mut link) = watch::channel(up(1));
        assert_eq!(next_epoch(&mut link, 1).now_or_never(), None);
        // The receiver does not observe the intermediate state.
        sender.send_replace(Link { state: LinkState::Down, epoch: 1 });
        sender.send_replace(up(2));
        assert_eq!(next_epoch(&mut link, 1).now_or_never(), Some(Some(2)));
        assert_eq!(next_epoch(&mut link, 2).now_or_never(), None, "each epoch is returned once");
        sender.send_replace(Link { state: LinkState::Down, epoch: 3 });
        assert_eq!(next_epoch(&mut link, 2).now_or_never(), None, "not before the link is up");
        drop(sender);
        assert_eq!(next_epoch(&mut link, 3).now_or_never(), Some(None));
    }
}
