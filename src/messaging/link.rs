//! Whether messages can be sent, how often that began anew, and how long they take.

use std::time::Duration;

use tokio::sync::watch;

/// The link to the message bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether messages can be sent now.
    pub state: LinkState,
    /// Grows whenever answers to this process may have been lost: with every new connection (the first is 1), and
    /// with every inbox that is served again.
    pub epoch: u64,
}

/// Whether messages can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected.
    Up,
    /// Not connected, or not proved to be: the transport tries again by itself.
    Down,
    /// Connected, but the server refuses a subscription that this process needs: what is sent to it is lost.
    Deaf,
    /// Connected to a server that is about to stop (lame duck); it moves by itself.
    Leaving,
}

impl Link {
    /// Not connected yet.
    pub(super) const NEW: Self = Self { state: LinkState::Down, epoch: 0 };

    /// Whether messages can be sent now.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::Leaving)
    }
}

/// Waits until messages can be sent; `None` when the transport is gone. Safe to drop.
pub async fn up(link: &mut watch::Receiver<Link>) -> Option<Link> {
    link.wait_for(|link| link.is_up()).await.ok().map(|link| *link)
}

/// Waits for the next epoch after `seen` in which messages can be sent; `None` when the transport is gone. Safe to drop.
pub async fn next_epoch(link: &mut watch::Receiver<Link>, seen: u64) -> Option<u64> {
    let next = link.wait_for(|link| link.is_up() && link.epoch > seen).await;
    next.ok().map(|link| link.epoch)
}

/// How long a message of ours to ourselves takes through the server. Zero until it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// The smoothed mean (RFC 6298: each measurement counts an eighth).
    pub smoothed: Duration,
    /// The longest of the last 8 to 16 measurements.
    pub recent_max: Duration,
    /// How long the one that is under way has taken so far; zero while none is.
    pub pending: Duration,
}

/// What a round trip may take longer than usual.
const STALL_MIN: Duration = Duration::from_millis(250);

impl RoundTrip {
    /// Whether the way through the server stands still: then the silence of others says nothing about them.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.pending > self.smoothed * 2 + STALL_MIN
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_broke_and_came_back_unseen_is_a_new_epoch() {
        let up = |epoch| Link { state: LinkState::Up, epoch };
        let (sender, mut link) = watch::channel(up(1));
        assert_eq!(next_epoch(&mut link, 1).now_or_never(), None);
        // Nobody looks between these two.
        sender.send_replace(Link { state: LinkState::Down, epoch: 1 });
        sender.send_replace(up(2));
        assert_eq!(next_epoch(&mut link, 1).now_or_never(), Some(Some(2)));
        assert_eq!(next_epoch(&mut link, 2).now_or_never(), None, "and told once");
        sender.send_replace(Link { state: LinkState::Down, epoch: 3 });
        assert_eq!(next_epoch(&mut link, 2).now_or_never(), None, "not before it is up");
        drop(sender);
        assert_eq!(next_epoch(&mut link, 3).now_or_never(), Some(None));
    }
}
