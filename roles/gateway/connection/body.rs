//! Reads a request's body whole, within its limits.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use crate::config::gateway::HttpLimits;
use crate::problem::{Problem, ProblemKind};

/// Reads a body of at most so many bytes. Trailers are dropped. Safe to drop: the connection closes then.
///
/// # Errors
/// `BodyTooLarge`, before anything is read when the length is announced; `RequestTimeout` when a piece or
/// the whole is late; `MalformedBody` when the framing is broken.
pub async fn read_body<B>(body: B, bytes_max: usize, limits: &HttpLimits) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let too_large = || {
        let detail = format!("the body may have {bytes_max} bytes at most");
        Problem::with_detail(ProblemKind::BodyTooLarge, detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        // Most requests have none, and nothing to wait for.
        return Ok(Bytes::new());
    }
    let mut body = body;
    let deadline = Instant::now() + limits.body_timeout;
    let mut read = Pieces::None;
    loop {
        let idle = Instant::now() + limits.body_idle_timeout;
        let next = timeout_at(deadline.min(idle), body.frame()).await;
        let frame = match next {
            Err(_) => return Err(Problem::new(ProblemKind::RequestTimeout)),
            Ok(None) => return Ok(read.into_bytes()),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a request's body cannot be read");
                let detail = "the body is not framed as HTTP requires";
                return Err(Problem::with_detail(ProblemKind::MalformedBody, detail));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else { continue };
        if read.len() + piece.len() > bytes_max {
            return Err(too_large());
        }
        read = read.with(piece);
    }
}

/// Most bodies come in one piece, which then is not copied.
enum Pieces {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.len(),
        }
    }

    fn with(self, piece: Bytes) -> Self {
        match self {
            Self::None => Self::One(piece),
            Self::One(first) => {
                let mut pieces = BytesMut::with_capacity(first.len() + piece.len());
                pieces.extend_from_slice(&first);
                pieces.extend_from_slice(&piece);
                Self::Many(pieces)
            }
            Self::Many(mut pieces) => {
                pieces.extend_from_slice(&piece);
                Self::Many(pieces)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.freeze(),
        }
    }
}
