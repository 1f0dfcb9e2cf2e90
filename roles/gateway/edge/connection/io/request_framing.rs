//! Follows the framing of HTTP/1.1 requests below hyper, and corrupts the first byte that hyper would accept but another parser
//! might interpret differently. hyper then rejects the request at that byte.
//!
//! - A line that ends with LF alone. RFC 9112 §2.2 lets us accept it, but a parser that requires CRLF treats this line
//!   and the next one as a single line.
//! - White space after a chunk size, or a bare LF in trailers (RFC 9112 §7.1).
//! - `#` in a request line (RFC 9112 §3.2). The `http` crate drops the rest of the target.

use memchr::memchr;

/// A byte that every parser rejects in a head, in a chunk size and in trailers.
const INVALID_BYTE: u8 = 0;
/// The number of bytes of a header line that are kept: enough to tell whether and how it frames the body.
const START_BYTES: usize = 48;
/// The maximum number of digits in a `Content-Length`.
const LENGTH_DIGITS_MAX: usize = 18;

/// The parser's position in the stream of requests.
#[derive(Debug, Default)]
pub(super) struct RequestFraming {
    position: Position,
    line: HeadLine,
    body: BodyFraming,
}

#[derive(Clone, Copy, Debug, Default)]
enum Position {
    /// In a request line, or before it.
    #[default]
    Request,
    /// In the header lines.
    Headers,
    /// In a body. The value is the number of remaining bytes.
    Body(u64),
    /// In the digits of a chunk size. The value is the size so far.
    Size(u64),
    /// After the digits of a chunk size, up to the end of the line. The value is the size.
    Extension(u64),
    /// In a chunk. The value is the number of remaining bytes, including the line break of two bytes at its end.
    Chunk(u64),
    /// After the last chunk.
    Trailers,
    /// After a corrupted byte. The rest is ignored.
    Corrupted,
}

/// The framing of the body that follows a head (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyFraming {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// The current line.
#[derive(Debug)]
struct HeadLine {
    start: [u8; START_BYTES],
    bytes: usize,
    last: u8,
}

impl Default for HeadLine {
    fn default() -> Self {
        Self { start: [0; START_BYTES], bytes: 0, last: 0 }
    }
}

impl HeadLine {
    fn add(&mut self, bytes: &[u8]) {
        let room = self.start.get_mut(self.bytes..).unwrap_or_default();
        for (kept, byte) in room.iter_mut().zip(bytes) {
            *kept = *byte;
        }
        self.bytes += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn ends_with_cr(&self) -> bool {
        self.last == b'\r' && self.bytes > 0
    }

    fn is_empty(&self) -> bool {
        self.bytes == 1
    }

    /// Returns the kept part of a header's name and value, and whether it is complete.
    fn field(&self) -> Option<(&[u8], &[u8], bool)> {
        let kept = self.start.get(..self.bytes.min(START_BYTES))?;
        let (name, value) = kept.split_at_checked(memchr(b':', kept)?)?;
        Some((name, value.get(1..)?.trim_ascii(), self.bytes <= START_BYTES))
    }

    fn clear(&mut self) {
        self.bytes = 0;
        self.last = 0;
    }
}

impl RequestFraming {
    /// Returns whether every request has arrived completely.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.position, Position::Request) && self.line.bytes == 0
    }

    /// Advances over received bytes, and corrupts the first byte that hyper must not accept.
    pub(super) fn advance(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let consumed = match &mut self.position {
                Position::Corrupted => return,
                Position::Body(left) | Position::Chunk(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= now as u64;
                    now
                }
                Position::Size(size) => {
                    let size = *size;
                    self.size(size, bytes)
                }
                Position::Request
                | Position::Headers
                | Position::Extension(_)
                | Position::Trailers => self.line(bytes),
            };
            match self.position {
                Position::Body(0) => self.position = Position::Request,
                Position::Chunk(0) => self.position = Position::Size(0),
                _ => {}
            }
            bytes = bytes.get_mut(consumed..).unwrap_or_default();
        }
    }

    /// Reads one byte of a chunk size.
    fn size(&mut self, size: u64, bytes: &mut [u8]) -> usize {
        let Some(byte) = bytes.first_mut() else { return 0 };
        self.position = match (char::from(*byte).to_digit(16), *byte) {
            (Some(digit), _) => {
                Position::Size(size.saturating_mul(16).saturating_add(digit.into()))
            }
            (None, b'\r' | b';') => {
                self.line.add(&[*byte]);
                Position::Extension(size)
            }
            (None, _) => {
                *byte = INVALID_BYTE;
                Position::Corrupted
            }
        };
        1
    }

    /// Reads a line, or the part of it that has arrived.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr(b'\n', bytes);
        let length = end.unwrap_or(bytes.len());
        let Some((text, rest)) = bytes.split_at_mut_checked(length) else { return length };
        if matches!(self.position, Position::Request)
            && let Some(hash) = memchr(b'#', text)
            && let Some(hash) = text.get_mut(hash)
        {
            *hash = INVALID_BYTE;
            self.position = Position::Corrupted;
            return length;
        }
        self.line.add(text);
        let Some(end) = rest.first_mut() else { return length };
        let next = if self.line.ends_with_cr() { self.next() } else { None };
        self.line.clear();
        self.position = next.unwrap_or_else(|| {
            // A bare LF in a chunk extension is kept: hyper rejects it there, but would accept `INVALID_BYTE` in its place.
            if !matches!(self.position, Position::Extension(_)) {
                *end = INVALID_BYTE;
            }
            Position::Corrupted
        });
        length + 1
    }

    /// Returns the position after the current line, or `None` if the line must be rejected.
    fn next(&mut self) -> Option<Position> {
        Some(match (self.position, self.line.is_empty()) {
            (Position::Request, false) => {
                self.body = BodyFraming::None;
                Position::Headers
            }
            (Position::Headers, false) => {
                self.body = body_framing(self.body, &self.line)?;
                Position::Headers
            }
            (Position::Headers, true) => match self.body {
                BodyFraming::None | BodyFraming::Length(0) => Position::Request,
                BodyFraming::Length(length) => Position::Body(length),
                BodyFraming::Chunked => Position::Size(0),
            },
            (Position::Extension(0), _) | (Position::Trailers, false) => Position::Trailers,
            (Position::Extension(size), _) => Position::Chunk(size.saturating_add(2)),
            // RFC 9112 §2.2: an empty line before a request is ignored.
            (Position::Request | Position::Trailers, true) => Position::Request,
            (position, _) => position,
        })
    }
}

/// Returns the framing of the body, given one more header line. Headers that hyper rejects do not matter here. Headers
/// that hyper accepts must be interpreted as hyper interprets them.
fn body_framing(body: BodyFraming, line: &HeadLine) -> Option<BodyFraming> {
    let Some((name, value, is_whole)) = line.field() else { return Some(body) };
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        return Some(BodyFraming::Chunked);
    }
    if !name.eq_ignore_ascii_case(b"content-length") || body == BodyFraming::Chunked {
        return Some(body);
    }
    if !is_whole || value.len() > LENGTH_DIGITS_MAX {
        return None;
    }
    let length = std::str::from_utf8(value).ok()?.parse().ok()?;
    (body == BodyFraming::None || body == BodyFraming::Length(length))
        .then_some(BodyFraming::Length(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Returns the bytes that hyper reads when `text` arrives in chunks of `cut` bytes.
    fn read(text: &str, cut: usize) -> String {
        let mut framing = RequestFraming::default();
        let mut bytes = text.as_bytes().to_vec();
        for chunk in bytes.chunks_mut(cut) {
            framing.advance(chunk);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn valid_requests_are_not_changed_however_they_are_split() {
        let requests = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "\r\nPOST / HTTP/1.1\r\ncontent-LENGTH:\t 9 \r\n\r\n#\n\n\n #\n\r\n".to_owned(),
            format!("{HEAD}5\r\nab\n#\n\r\nA;x=\"#\"\r\n\n\n\n\n\n\n\n\n\n\n\r\n0\r\nX: #\r\n\r\n"),
            format!("{HEAD}000\r\n\r\n"),
            "POST /?a HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\nA: #\r\n\r\n\n#"
                .to_owned(),
            format!("GET / HTTP/1.1\r\nA: {}\r\n: x\r\n\r\n", "content-length: 5".repeat(99)),
        ];
        let text = [requests.concat(), requests.concat()].concat();
        for cut in [1, 2, 3, 7, 48, 1000, text.len()] {
            assert_eq!(read(&text, cut), text, "in chunks of {cut}");
        }
    }

    #[test]
    fn ambiguity_that_hyper_would_accept_is_corrupted_at_its_first_byte() {
        let valid = format!("{HEAD}2\r\nhi\r\n0\r\nX: y\r\n\r\n");
        for invalid in [
            "GET /\u{1}a HTTP/1.1\r\n".replace('\u{1}', "#"),
            "GET / HTTP/1.1\n".to_owned(),
            "\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(),
            format!("POST / HTTP/1.1\r\nContent-Length: {}5\r\n", "0".repeat(40)),
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n".to_owned(),
            format!("{HEAD}2 "),
            format!("{HEAD}2\t"),
            format!("{HEAD}2\n"),
            format!("{HEAD}0\r\n\n"),
            format!("{HEAD}0\r\nX: y\n"),
        ] {
            let text = format!("{valid}{invalid}");
            let position =
                if text.contains('#') { text.find('#').unwrap() } else { text.len() - 1 };
            for cut in [1, 5, text.len()] {
                let read = read(&format!("{text} and more\n"), cut);
                assert_eq!(
                    read.find('\0'),
                    Some(position),
                    "{invalid:?} in chunks of {cut}: {read:?}"
                );
            }
        }
    }
}
