//! The body of a response: there as a whole, or still on its way from a worker.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

use crate::lifecycle::Cancel;
use crate::roles::gateway::client::byte_budget::NoRoom;
use crate::roles::gateway::client::byte_budget::Reservation;

/// The body of every response.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// What comes.
    Streamed(Streamed),
}

/// A body whose end is not known yet.
#[derive(Debug)]
pub struct Streamed {
    pieces: mpsc::Receiver<Piece>,
    /// The number of pieces that the client's connection has consumed.
    consumed: watch::Sender<u32>,
    is_whole: bool,
    ended: Cancel,
    /// What makes it smaller on the way.
    coder: Option<Box<dyn Coder>>,
    /// For whom that, and what comes of it, are counted.
    room: Option<Reservation>,
}

/// Makes a body smaller while it comes.
pub trait Coder: Debug + Send {
    /// What is to be sent for these bytes.
    ///
    /// # Errors
    /// When they cannot be coded: the body is cut off then.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<Bytes>;
    /// What is to be sent at the end.
    ///
    /// # Errors
    /// As above.
    fn end(self: Box<Self>) -> io::Result<Bytes>;
}

/// What comes of a body.
#[derive(Debug)]
pub(in crate::roles::gateway) enum Piece {
    /// Bytes of it.
    Bytes(Bytes),
    /// That was all. Without it the body is cut off.
    Whole,
}

/// The answer ends before its end: nobody must take it for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut off")]
pub struct CutOff;

impl Streamed {
    /// A body of what comes. `ended` is given once nothing more will.
    pub(in crate::roles::gateway) fn new(
        pieces: mpsc::Receiver<Piece>,
        consumed: watch::Sender<u32>,
        ended: Cancel,
        room: Option<Reservation>,
    ) -> Self {
        Self { pieces, consumed, is_whole: false, ended, coder: None, room }
    }

    /// A body that nobody reads, and of which only is known that there is one: HEAD's.
    #[must_use]
    pub fn unread() -> Self {
        let (ended, (_, pieces)) = (Cancel::new(), mpsc::channel(1));
        ended.cancel();
        Self::new(pieces, watch::Sender::new(0), ended, None)
    }

    /// Makes room for what makes it smaller, which takes so many bytes.
    ///
    /// # Errors
    /// `NoRoom`: it has to go as it is, so that there is room for answers.
    pub fn make_room(&mut self, coder_bytes: usize) -> Result<(), NoRoom> {
        self.room.as_mut().map_or(Ok(()), |room| room.grow_within_half(coder_bytes))
    }

    /// The same body, made smaller.
    #[must_use]
    pub fn coded(self, coder: Box<dyn Coder>) -> Self {
        Self { coder: Some(coder), ..self }
    }

    /// What a coder made, counted.
    fn counted(&self, coded: io::Result<Bytes>) -> Result<Frame<Bytes>, CutOff> {
        let coded = coded.map_err(|_| CutOff)?;
        let room = self.room.as_ref().map(Reservation::another);
        Ok(Frame::data(match room {
            Some(room) => room.holding(coded),
            None => coded,
        }))
    }

    /// Given once nothing more will come of it: what is left is for the client to take.
    #[must_use]
    pub fn ended(&self) -> &Cancel {
        &self.ended
    }
}

impl AnswerBody {
    /// The whole body, or the one that is not whole yet.
    ///
    /// # Errors
    /// The body itself, when it still comes.
    pub fn into_whole(self) -> Result<Bytes, Streamed> {
        match self {
            Self::Whole(body) => Ok(body),
            Self::Streamed(body) => Err(body),
        }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for AnswerBody {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let body = std::mem::take(body);
                Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
            }
            Self::Streamed(body) => body.poll_piece(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Streamed(body) => body.is_whole,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}

impl Streamed {
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        match ready!(self.pieces.poll_recv(context)) {
            Some(Piece::Bytes(bytes)) => {
                self.consumed.send_modify(|pieces| *pieces += 1);
                let Some(coder) = &mut self.coder else {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                };
                let smaller = coder.piece(&bytes);
                Poll::Ready(Some(self.counted(smaller)))
            }
            Some(Piece::Whole) => {
                self.is_whole = true;
                let last = self.coder.take().map(Coder::end);
                Poll::Ready(last.map(|last| self.counted(last)))
            }
            None => Poll::Ready(Some(Err(CutOff))),
        }
    }
}
