//! Wrappers around the byte stream of a connection, below hyper.

mod frame_counter;
mod half_close;
mod request_framing;
mod response_gate;
mod socket;
mod stall_timeout;
mod tcp_delivery;
mod write_coalescer;

pub(super) use frame_counter::FrameCounter;
pub(super) use response_gate::{OpenResponse, ResponseGate, ResponseTracker};
pub(super) use socket::HasTcpSocket;
pub(super) use stall_timeout::{LINGER, LINGER_AT_STOP, LINGER_BYTES_MAX, StallTimeout};
pub(super) use write_coalescer::coalesce_writes;
