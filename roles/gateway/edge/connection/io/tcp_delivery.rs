//! Reads from `TCP_INFO` the number of bytes that a peer has acknowledged. A completed write does not mean that the
//! peer has accepted the data, because the kernel buffers tens of KiB.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::sockopt::GetStruct;
use nix::{getsockopt_impl, libc, sys::socket::getsockopt};
use tokio::time::{Instant, Sleep};

use super::super::activity::DELIVERED_BYTES_MIN;
use super::socket::HasTcpSocket;

/// The first check, which is the baseline for the later checks, occurs after the interval divided by this number. Few
/// connections are blocked for that long, so the checks cost few system calls.
const FIRST_CHECK_PART: u32 = 10;

/// The beginning of `struct tcp_info`, as in Linux since 4.6. Later fields are not requested.
type TcpInfoStart = [u64; 19];
/// The state `TCP_CLOSE`, in which the kernel holds no data, regardless of the counters.
const CLOSED: u8 = 7;

/// The socket option `TCP_INFO` (tcp(7)).
#[derive(Clone, Copy, Debug)]
struct TcpInfo;

getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoStart, GetStruct<TcpInfoStart>);

/// Delivery counters of a socket. Over TLS, they count encrypted bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpDelivery {
    pub(super) acknowledged_bytes: u64,
    /// Whether the kernel holds anything that the peer has not acknowledged, including our FIN.
    pub(super) is_pending: bool,
}

impl TcpDelivery {
    /// Queries the kernel. If there is no socket or the query fails, reports that nothing was delivered and nothing is
    /// pending.
    pub(super) fn query(io: &impl HasTcpSocket) -> Self {
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
        let first_half = |field: u64| {
            let [a, b, c, d, ..] = field.to_ne_bytes();
            u32::from_ne_bytes([a, b, c, d])
        };
        let is_pending =
            state != CLOSED && (first_half(unacknowledged) > 0 || first_half(unsent) > 0);
        Self { acknowledged_bytes, is_pending }
    }
}

/// Periodically checks whether a peer acknowledges enough.
#[derive(Debug)]
pub(super) struct DeliveryWatch {
    next_check: Pin<Box<Sleep>>,
    interval: Duration,
    last: Option<TcpDelivery>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryProgress {
    /// Bytes acknowledged since the previous check.
    pub(super) bytes: u64,
    /// Whether these bytes are enough. Always true for the first check.
    pub(super) is_enough: bool,
    /// Whether nothing was acknowledged although something was pending at the previous check.
    pub(super) is_stuck: bool,
    pub(super) is_pending: bool,
}

impl DeliveryWatch {
    /// Creates a watch that requires `DELIVERED_BYTES_MIN` in each interval.
    pub(super) fn new(interval: Duration) -> Self {
        Self::with_first_check(interval / FIRST_CHECK_PART, interval)
    }

    /// Creates a watch for a connection that is not blocked. The first check occurs after a whole interval, when the peer has
    /// usually acknowledged everything.
    pub(super) fn new_unblocked(interval: Duration) -> Self {
        Self::with_first_check(interval, interval)
    }

    fn with_first_check(first: Duration, interval: Duration) -> Self {
        Self { next_check: Box::pin(tokio::time::sleep(first)), interval, last: None }
    }

    /// Waits for the next check and returns its result.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        io: &impl HasTcpSocket,
    ) -> Poll<DeliveryProgress> {
        ready!(self.next_check.as_mut().poll(context));
        self.next_check.as_mut().reset(Instant::now() + self.interval);
        let now = TcpDelivery::query(io);
        let before = self.last.replace(now);
        let bytes = before
            .map_or(0, |before| now.acknowledged_bytes.saturating_sub(before.acknowledged_bytes));
        let is_enough = before.is_none() || bytes >= DELIVERED_BYTES_MIN;
        let is_stuck = bytes == 0 && before.is_some_and(|before| before.is_pending);
        Poll::Ready(DeliveryProgress { bytes, is_enough, is_stuck, is_pending: now.is_pending })
    }
}
