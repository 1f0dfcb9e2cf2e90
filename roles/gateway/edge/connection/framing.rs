//! Follows the framing of HTTP/1.1 requests below hyper, and makes what hyper lets pass unreadable to it: hyper then
//! refuses it where it stands, as it refuses everything else that two readers might read differently.
//!
//! - A line that ends with LF alone (RFC 9112 §2.2 lets us read on): to whoever wants CRLF it is a part of the line before.
//! - White space behind the size of a chunk, or a bare LF in its trailers (RFC 9112 §7.1).
//! - `#` in a request line (RFC 9112 §3.2): what follows it is dropped when the target is parsed.

use memchr::memchr;

/// What no reader takes: neither in a head nor in the size of a chunk nor in trailers.
const UNREADABLE: u8 = 0;
/// As much of a header line as tells whether it frames the body, and how.
const START_BYTES: usize = 48;
/// The digits of the largest length of a body that is followed.
const LENGTH_DIGITS_MAX: usize = 18;

/// Where in the requests the next byte is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    line: Line,
    body: Body,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// In a request line, or in front of it.
    #[default]
    Request,
    /// In the lines of the headers.
    Headers,
    /// In a body, with so many bytes left.
    Body(u64),
    /// In the digits of a chunk's size.
    Size(u64),
    /// Behind them, up to the end of the line.
    Extension(u64),
    /// In a chunk, with so many bytes left; the line break behind it is two of them.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers,
    /// Behind what was made unreadable: nobody reads on.
    Refused,
}

/// How the body behind a head is framed (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// The line that is read.
#[derive(Debug)]
struct Line {
    start: [u8; START_BYTES],
    bytes: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Self { start: [0; START_BYTES], bytes: 0, last: 0 }
    }
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        let room = self.start.get_mut(self.bytes..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
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

    /// The name and the value of a header, as far as they were kept; whether that is all of it.
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

impl Framing {
    /// Whether all that came were whole requests.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.place, Place::Request) && self.line.bytes == 0
    }

    /// Goes on by these bytes, and changes them from where they are not to be read.
    pub(super) fn check(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let passed = match &mut self.place {
                Place::Refused => return,
                Place::Body(left) | Place::Chunk(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= now as u64;
                    now
                }
                Place::Size(size) => {
                    let size = *size;
                    self.size(size, bytes)
                }
                Place::Request | Place::Headers | Place::Extension(_) | Place::Trailers => {
                    self.line(bytes)
                }
            };
            match self.place {
                Place::Body(0) => self.place = Place::Request,
                Place::Chunk(0) => self.place = Place::Size(0),
                _ => {}
            }
            bytes = bytes.get_mut(passed..).unwrap_or_default();
        }
    }

    /// One byte of a chunk's size.
    fn size(&mut self, size: u64, bytes: &mut [u8]) -> usize {
        let Some(byte) = bytes.first_mut() else { return 0 };
        self.place = match (char::from(*byte).to_digit(16), *byte) {
            (Some(digit), _) => Place::Size(size.saturating_mul(16).saturating_add(digit.into())),
            (None, b'\r' | b';') => {
                self.line.add(&[*byte]);
                Place::Extension(size)
            }
            (None, _) => {
                *byte = UNREADABLE;
                Place::Refused
            }
        };
        1
    }

    /// A line, or as much of it as there is.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr(b'\n', bytes);
        let length = end.unwrap_or(bytes.len());
        let Some((text, rest)) = bytes.split_at_mut_checked(length) else { return length };
        if matches!(self.place, Place::Request)
            && let Some(hash) = memchr(b'#', text)
            && let Some(hash) = text.get_mut(hash)
        {
            *hash = UNREADABLE;
            self.place = Place::Refused;
            return length;
        }
        self.line.add(text);
        let Some(end) = rest.first_mut() else { return length };
        let next = if self.line.ends_with_cr() { self.next() } else { None };
        self.line.clear();
        self.place = next.unwrap_or_else(|| {
            // In an extension hyper refuses a bare LF, and nothing else.
            if !matches!(self.place, Place::Extension(_)) {
                *end = UNREADABLE;
            }
            Place::Refused
        });
        length + 1
    }

    /// What follows a line that has ended; nothing when it is not to be read.
    fn next(&mut self) -> Option<Place> {
        Some(match (self.place, self.line.is_empty()) {
            (Place::Request, false) => {
                self.body = Body::None;
                Place::Headers
            }
            (Place::Headers, false) => {
                self.body = framed(self.body, &self.line)?;
                Place::Headers
            }
            (Place::Headers, true) => match self.body {
                Body::None | Body::Length(0) => Place::Request,
                Body::Length(length) => Place::Body(length),
                Body::Chunked => Place::Size(0),
            },
            (Place::Extension(0), _) | (Place::Trailers, false) => Place::Trailers,
            (Place::Extension(size), _) => Place::Chunk(size.saturating_add(2)),
            // RFC 9112 §2.2: an empty line before a request is passed over.
            (Place::Request | Place::Trailers, true) => Place::Request,
            (place, _) => place,
        })
    }
}

/// How the body is framed by one header line more. What hyper refuses is of no matter here; of what it takes, nothing
/// may be read in another way.
fn framed(body: Body, line: &Line) -> Option<Body> {
    let Some((name, value, is_whole)) = line.field() else { return Some(body) };
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        return Some(Body::Chunked);
    }
    if !name.eq_ignore_ascii_case(b"content-length") || body == Body::Chunked {
        return Some(body);
    }
    if !is_whole || value.len() > LENGTH_DIGITS_MAX {
        return None;
    }
    let length = std::str::from_utf8(value).ok()?.parse().ok()?;
    (body == Body::None || body == Body::Length(length)).then_some(Body::Length(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// What hyper gets to read, however the bytes are cut.
    fn read(text: &str, cut: usize) -> String {
        let mut framing = Framing::default();
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(cut) {
            framing.check(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn good_requests_are_read_as_they_are_however_they_follow_each_other() {
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
            assert_eq!(read(&text, cut), text, "in pieces of {cut}");
        }
    }

    #[test]
    fn what_hyper_would_let_pass_is_made_unreadable_at_its_place() {
        let good = format!("{HEAD}2\r\nhi\r\n0\r\nX: y\r\n\r\n");
        for bad in [
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
            let text = format!("{good}{bad}");
            let place = if text.contains('#') { text.find('#').unwrap() } else { text.len() - 1 };
            for cut in [1, 5, text.len()] {
                let read = read(&format!("{text} and more\n"), cut);
                assert_eq!(read.find('\0'), Some(place), "{bad:?} in pieces of {cut}: {read:?}");
            }
        }
    }
}
