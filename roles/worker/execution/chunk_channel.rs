//! The way of a large answer out of its job while it is still made: a piece at a time, and each only when it can be sent.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Where a handler leaves pieces of its answer. Closed until somebody opens it, and then costs nothing until it is used.
#[derive(Debug, Default)]
pub struct Outlet {
    /// Size of a piece; 0 while it is closed.
    piece_bytes: AtomicUsize,
    place: Mutex<Place>,
    /// The place has changed in a way that the handler waits for.
    ready: Notify,
    /// A piece is there.
    filled: Notify,
}

#[derive(Debug, Default)]
enum Place {
    /// Nothing was ever left here, and nothing is wanted.
    #[default]
    Unused,
    /// The last piece was taken; the next is not wanted yet.
    Taken,
    /// A piece can be sent.
    Wanted {
        is_first: bool,
    },
    Filled(Bytes),
    /// Nobody takes any more.
    Closed,
}

/// Nobody takes the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Outlet {
    /// Lets pieces of this size through.
    pub fn open(&self, piece_bytes: usize) {
        self.piece_bytes.store(piece_bytes, Ordering::Relaxed);
    }

    /// The size of the pieces to be left here; `None` while the answer has to stay together.
    #[must_use]
    pub fn piece_bytes(&self) -> Option<usize> {
        Some(self.piece_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Whether any piece was left here: then the answer has begun, and is no problem document any more.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(*self.place(), Place::Unused | Place::Wanted { is_first: true })
    }

    /// Waits until a piece is wanted. Safe to drop.
    ///
    /// # Errors
    /// `Gone` when none ever will be.
    pub async fn ready(&self) -> Result<(), Gone> {
        loop {
            match *self.place() {
                Place::Wanted { .. } => return Ok(()),
                Place::Closed => return Err(Gone),
                Place::Unused | Place::Taken | Place::Filled(_) => {}
            }
            self.ready.notified().await;
        }
    }

    /// Leaves a piece, once it is `ready`.
    pub fn put(&self, piece: Bytes) {
        let mut place = self.place();
        if !matches!(*place, Place::Closed) {
            *place = Place::Filled(piece);
            self.filled.notify_one();
        }
    }

    /// The next piece can be sent.
    pub fn want(&self) {
        let mut place = self.place();
        let is_first = match *place {
            Place::Unused => true,
            Place::Taken => false,
            Place::Wanted { .. } | Place::Filled(_) | Place::Closed => return,
        };
        *place = Place::Wanted { is_first };
        self.ready.notify_one();
    }

    /// Waits for the next piece. Safe to drop.
    pub async fn next(&self) -> Bytes {
        loop {
            if let Some(piece) = self.take() {
                return piece;
            }
            self.filled.notified().await;
        }
    }

    /// The piece that is here now.
    pub fn take(&self) -> Option<Bytes> {
        let mut place = self.place();
        match mem::replace(&mut *place, Place::Taken) {
            Place::Filled(piece) => Some(piece),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Takes nothing any more.
    pub fn close(&self) {
        *self.place() = Place::Closed;
        self.ready.notify_one();
    }

    /// Whether it takes nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.place(), Place::Closed)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_waits_until_it_is_wanted_and_goes_once() {
        let outlet = Outlet::default();
        assert_eq!(outlet.piece_bytes(), None);
        outlet.want();
        assert!(!outlet.has_begun(), "wanted is not begun");
        assert_eq!(outlet.ready().await, Ok(()));
        outlet.put(Bytes::from_static(b"1"));
        assert!(outlet.has_begun());
        assert_eq!(outlet.next().await, "1");
        assert_eq!(outlet.take(), None);
        let giving = async {
            outlet.ready().await.unwrap();
            outlet.put(Bytes::from_static(b"2"));
        };
        let taking = async {
            tokio::task::yield_now().await;
            assert_eq!(outlet.take(), None, "none is wanted yet");
            outlet.want();
            outlet.next().await
        };
        assert_eq!(tokio::join!(giving, taking).1, "2");
    }

    #[tokio::test]
    async fn who_waits_hears_that_nobody_takes_any_more() {
        let outlet = Outlet::default();
        let closing = async {
            tokio::task::yield_now().await;
            outlet.close();
        };
        assert_eq!(tokio::join!(outlet.ready(), closing).0, Err(Gone));
        outlet.want();
        outlet.put(Bytes::from_static(b"late"));
        assert_eq!((outlet.take(), outlet.has_begun()), (None, true));
    }
}
