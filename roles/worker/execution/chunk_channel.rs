//! Passes a large answer from its handler to the chunk sender, one chunk at a time and on demand.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// A channel that holds at most one chunk. It allocates nothing until it is enabled and used.
#[derive(Debug, Default)]
pub struct ChunkChannel {
    /// The size of a chunk, or 0 until the channel is enabled.
    chunk_bytes: AtomicUsize,
    state: Mutex<State>,
    /// Wakes the handler when a chunk is demanded or the channel is closed.
    demanded: Notify,
    /// Wakes the receiver when a chunk is sent.
    sent: Notify,
}

#[derive(Debug, Default)]
enum State {
    /// No chunk has been demanded or sent yet.
    #[default]
    Unused,
    /// The last chunk was received, and the next one has not been demanded.
    Idle,
    /// A chunk has been demanded and not sent yet.
    Demanded {
        /// Whether the demanded chunk will be the first.
        is_first: bool,
    },
    /// A chunk has been sent and not received yet.
    Full(Bytes),
    /// The receiver has closed the channel.
    Closed,
}

/// Error for a channel that the receiver has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelClosed;

impl ChunkChannel {
    /// Allows the answer to be sent in chunks of `chunk_bytes`.
    pub fn enable(&self, chunk_bytes: usize) {
        self.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
    }

    /// Returns the size of the chunks to send, or `None` if the answer must not be divided.
    #[must_use]
    pub fn chunk_bytes(&self) -> Option<usize> {
        Some(self.chunk_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Returns whether a chunk has been sent or the channel is closed. From then on the answer
    /// cannot be replaced by a problem document.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(*self.state(), State::Unused | State::Demanded { is_first: true })
    }

    /// Waits until a chunk is demanded. This method is cancel safe.
    ///
    /// # Errors
    /// `ChannelClosed` if no further chunk will be demanded.
    pub async fn wait_for_demand(&self) -> Result<(), ChannelClosed> {
        loop {
            match *self.state() {
                State::Demanded { .. } => return Ok(()),
                State::Closed => return Err(ChannelClosed),
                State::Unused | State::Idle | State::Full(_) => {}
            }
            self.demanded.notified().await;
        }
    }

    /// Sends a chunk, or drops it if the channel is closed. Must follow `wait_for_demand`.
    pub fn send(&self, chunk: Bytes) {
        let mut state = self.state();
        if !matches!(*state, State::Closed) {
            *state = State::Full(chunk);
            self.sent.notify_one();
        }
    }

    /// Demands the next chunk.
    pub fn demand(&self) {
        let mut state = self.state();
        let is_first = match *state {
            State::Unused => true,
            State::Idle => false,
            State::Demanded { .. } | State::Full(_) | State::Closed => return,
        };
        *state = State::Demanded { is_first };
        self.demanded.notify_one();
    }

    /// Receives the next chunk. This method is cancel safe.
    pub async fn receive(&self) -> Bytes {
        loop {
            if let Some(chunk) = self.try_receive() {
                return chunk;
            }
            self.sent.notified().await;
        }
    }

    /// Receives a chunk if one has already been sent.
    pub fn try_receive(&self) -> Option<Bytes> {
        let mut state = self.state();
        match mem::replace(&mut *state, State::Idle) {
            State::Full(chunk) => Some(chunk),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Closes the channel. A chunk that was sent but not yet received is dropped, as are further chunks.
    pub fn close(&self) {
        *self.state() = State::Closed;
        self.demanded.notify_one();
    }

    /// Returns whether the channel was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chunk_is_sent_on_demand_and_received_once() {
        let channel = ChunkChannel::default();
        assert_eq!(channel.chunk_bytes(), None);
        channel.demand();
        assert!(!channel.has_begun(), "demand alone does not begin the answer");
        assert_eq!(channel.wait_for_demand().await, Ok(()));
        channel.send(Bytes::from_static(b"1"));
        assert!(channel.has_begun());
        assert_eq!(channel.receive().await, "1");
        assert_eq!(channel.try_receive(), None);
        let sender = async {
            channel.wait_for_demand().await.unwrap();
            channel.send(Bytes::from_static(b"2"));
        };
        let receiver = async {
            tokio::task::yield_now().await;
            assert_eq!(channel.try_receive(), None, "there was no demand yet");
            channel.demand();
            channel.receive().await
        };
        assert_eq!(tokio::join!(sender, receiver).1, "2");
    }

    #[tokio::test]
    async fn closing_the_channel_ends_the_wait_and_drops_late_chunks() {
        let channel = ChunkChannel::default();
        let closing = async {
            tokio::task::yield_now().await;
            channel.close();
        };
        assert_eq!(tokio::join!(channel.wait_for_demand(), closing).0, Err(ChannelClosed));
        channel.demand();
        channel.send(Bytes::from_static(b"late"));
        assert_eq!((channel.try_receive(), channel.has_begun()), (None, true));
    }
}
