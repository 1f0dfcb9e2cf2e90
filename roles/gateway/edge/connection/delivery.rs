//! What a peer has acknowledged of what was written to its connection. That the system took bytes from us says little: it
//! takes them by tens of KiB, and holds them for the peer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::sockopt::GetStruct;
use nix::{getsockopt_impl, libc, sys::socket::getsockopt};
use tokio::time::{Instant, Sleep};

use super::activity::TAKEN_BYTES_MIN;
use super::socket::Socket;

/// The first look comes after this part of the limit: it is what the others are compared with. Few connections are
/// blocked for so long, so the system is asked about few.
const FIRST_LOOK_PART: u32 = 10;

/// How `struct tcp_info` begins, in Linux from 4.6 on: later fields are not asked for.
type TcpInfoStart = [u64; 19];
/// `TCP_CLOSE`: the system holds nothing, whatever its counters say.
const CLOSED: u8 = 7;

/// The socket option (tcp(7)).
#[derive(Clone, Copy, Debug)]
struct TcpInfo;

getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoStart, GetStruct<TcpInfoStart>);

/// What the system says of a connection. Its bytes are those of the socket, over TLS the encrypted ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    pub(super) acknowledged_bytes: u64,
    /// Whether the system holds anything that the peer has not acknowledged, our end included.
    pub(super) is_pending: bool,
}

impl Delivery {
    /// Asks the system. Without a socket nothing was delivered, and nothing is pending.
    pub(super) fn of(io: &impl Socket) -> Self {
        let Some(socket) = io.socket() else { return Self::default() };
        match getsockopt(socket, TcpInfo) {
            Ok(info) => Self::parse(&info),
            Err(error) => {
                tracing::debug!(%error, "cannot get TCP_INFO");
                Self::default()
            }
        }
    }

    fn parse(info: &TcpInfoStart) -> Self {
        // Bytes 0: tcpi_state; 24 to 27: tcpi_unacked; 120 to 127: tcpi_bytes_acked; 144 to 147: tcpi_notsent_bytes.
        let [states, _, _, unacknowledged, .., acknowledged_bytes, _, _, unsent] = *info;
        let [state, ..] = states.to_ne_bytes();
        let first_half = |word: u64| {
            let [a, b, c, d, ..] = word.to_ne_bytes();
            u32::from_ne_bytes([a, b, c, d])
        };
        let is_pending =
            state != CLOSED && (first_half(unacknowledged) > 0 || first_half(unsent) > 0);
        Self { acknowledged_bytes, is_pending }
    }
}

/// Looks from time to time whether a peer acknowledges enough.
#[derive(Debug)]
pub(super) struct DeliveryWatch {
    look: Pin<Box<Sleep>>,
    interval: Duration,
    last: Option<Delivery>,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// What was acknowledged since the last look.
    pub(super) bytes: u64,
    /// Whether that is enough, or cannot be told yet.
    pub(super) is_enough: bool,
    /// Whether it is nothing, of what was pending at the last look.
    pub(super) is_stuck: bool,
    pub(super) is_pending: bool,
}

impl DeliveryWatch {
    /// A peer has to take `TAKEN_BYTES_MIN` in each interval.
    pub(super) fn new(interval: Duration) -> Self {
        Self::after(interval / FIRST_LOOK_PART, interval)
    }

    /// The same where nothing is blocked: the first look waits for a whole interval, by which nearly all is acknowledged.
    pub(super) fn later(interval: Duration) -> Self {
        Self::after(interval, interval)
    }

    fn after(first: Duration, interval: Duration) -> Self {
        Self { look: Box::pin(tokio::time::sleep(first)), interval, last: None }
    }

    /// Waits until an interval is over; what the peer has taken in it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, io: &impl Socket) -> Poll<Progress> {
        ready!(self.look.as_mut().poll(context));
        self.look.as_mut().reset(Instant::now() + self.interval);
        let now = Delivery::of(io);
        let before = self.last.replace(now);
        let bytes = before
            .map_or(0, |before| now.acknowledged_bytes.saturating_sub(before.acknowledged_bytes));
        let is_enough = before.is_none() || bytes >= TAKEN_BYTES_MIN;
        let is_stuck = bytes == 0 && before.is_some_and(|before| before.is_pending);
        Poll::Ready(Progress { bytes, is_enough, is_stuck, is_pending: now.is_pending })
    }
}
