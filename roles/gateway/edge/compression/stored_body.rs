//! A body that is compressed once and stored only in that form. It is decompressed, piece by piece, for clients that do not
//! accept gzip.

use std::io::{self, Read as _, Write};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes};
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::gateway::Coding;

use super::accept_encoding::AcceptedCodings;
use super::{VARY_ENCODING, set_encoding};
use crate::roles::gateway::response::BodyProducer;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::ResponseBody;
use crate::roles::gateway::response::entity_tag::{Comparison, matching};

/// The size of a piece of a body that is decompressed while it is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// The maximum number of bodies that the process decompresses concurrently, each with about 110 KiB. Such requests need no
/// credentials, so they must not occupy memory without limit.
const DECOMPRESSIONS_MAX: usize = 64;
static DECOMPRESSIONS: Semaphore = Semaphore::const_new(DECOMPRESSIONS_MAX);
/// `Retry-After` of the response beyond that, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// The level for bodies that are compressed once and sent many times.
const LEVEL: u32 = 6;
/// The number of bytes of a body's hash that identify the body.
const NAME_BYTES: usize = 9;

/// A body compressed with gzip.
#[derive(Clone, Debug)]
pub(in crate::roles::gateway) struct StoredBody {
    gzip: Bytes,
    /// The length of the uncompressed body in bytes.
    length: u64,
    /// The hash of the compressed body, in base64url.
    hash: Box<str>,
}

/// The part of a request that determines in which form a stored body is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::roles::gateway) struct StoredBodyRequest<'a> {
    /// The headers of the request.
    pub(in crate::roles::gateway) headers: &'a HeaderMap,
    /// Whether the configuration offers gzip.
    pub(in crate::roles::gateway) offers_gzip: bool,
}

impl StoredBodyRequest<'_> {
    fn coding(self) -> Option<Coding> {
        let offered: &[Coding] = if self.offers_gzip { &[Coding::Gzip] } else { &[] };
        AcceptedCodings::from_headers(self.headers, offered).coding
    }

    /// Sets `Vary`, unless all clients get the same form.
    fn set_vary(self, headers: &mut HeaderMap) {
        if self.offers_gzip {
            headers.append(header::VARY, VARY_ENCODING);
        }
    }
}

impl StoredBody {
    /// Takes a gzip file with one member.
    pub(in crate::roles::gateway) fn from_gzip(gzip: Bytes) -> Self {
        // The last four bytes are the uncompressed length (RFC 1952 §2.3.1).
        let length = gzip.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let hash = digest(&SHA256, &gzip);
        let hash = hash.as_ref().first_chunk::<NAME_BYTES>().copied().unwrap_or_default();
        Self { hash: URL_SAFE_NO_PAD.encode(hash).into(), length: length.into(), gzip }
    }

    /// Compresses the bytes that `fill` writes.
    ///
    /// # Errors
    /// The error of `fill`.
    pub(in crate::roles::gateway) fn write(
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Self> {
        let level = flate2::Compression::new(LEVEL);
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
        let mut buffered = io::BufWriter::new(&mut writer);
        fill(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        let mut gzip = writer.finish()?;
        gzip.shrink_to_fit();
        Ok(Self::from_gzip(gzip.into()))
    }

    /// Returns the size of the compressed body in bytes.
    pub(in crate::roles::gateway) fn stored_bytes(&self) -> usize {
        self.gzip.len()
    }

    /// Returns the uncompressed body.
    #[cfg(test)]
    pub(in crate::roles::gateway) fn text(&self) -> String {
        let mut text = String::new();
        GzDecoder::new(&self.gzip[..]).read_to_string(&mut text).unwrap();
        text
    }

    /// Returns the hash of the body, in base64url.
    pub(in crate::roles::gateway) fn hash(&self) -> &str {
        &self.hash
    }

    /// Returns the response to a request: 503 without a body if too many bodies are being decompressed.
    pub(in crate::roles::gateway) fn response(
        &self,
        request: StoredBodyRequest<'_>,
        media_type: &'static str,
    ) -> Response {
        self.response_within(&DECOMPRESSIONS, request, media_type)
    }

    fn response_within(
        &self,
        decompressions: &'static Semaphore,
        request: StoredBodyRequest<'_>,
        media_type: &'static str,
    ) -> Response {
        let coding = request.coding();
        let body = if coding.is_some() {
            self.gzip.clone().into()
        } else {
            let Ok(permit) = decompressions.try_acquire() else {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
                return response;
            };
            ResponseBody::Produced(Box::new(Decompression {
                decoder: GzDecoder::new(self.gzip.clone().reader()),
                remaining: self.length,
                _permit: permit,
            }))
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        request.set_vary(headers);
        if let Some(coding) = coding {
            set_encoding(headers, coding);
        }
        response
    }

    /// Returns the response to a request: 304 if the client has the body (RFC 9110 §13.1.2). Clients may
    /// store it as `cache_control` permits.
    pub(in crate::roles::gateway) fn cacheable_response(
        &self,
        request: StoredBodyRequest<'_>,
        media_type: &'static str,
        cache_control: &'static str,
    ) -> Response {
        // The forms of a body are different representations, which need different tags.
        let coding = if request.coding().is_some() { "-gzip" } else { "" };
        let tag = HeaderValue::try_from(format!("\"{}{coding}\"", self.hash)).ok();
        let has_tag = tag.as_ref().is_some_and(|tag| {
            let current = std::slice::from_ref(tag);
            matching(request.headers, header::IF_NONE_MATCH, current, Comparison::Weak).is_some()
        });
        let mut response = if has_tag {
            let mut unchanged = Response::default();
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            request.set_vary(unchanged.headers_mut());
            unchanged
        } else {
            self.response(request, media_type)
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// A body that is being decompressed.
#[derive(Debug)]
struct Decompression {
    decoder: GzDecoder<bytes::buf::Reader<Bytes>>,
    remaining: u64,
    _permit: SemaphorePermit<'static>,
}

impl BodyProducer for Decompression {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn produce(&mut self) -> io::Result<Bytes> {
        let bytes = usize::try_from(self.remaining).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; bytes];
        self.decoder.read_exact(&mut piece)?;
        self.remaining -= piece.len() as u64;
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_limited_number_of_bodies_is_decompressed_concurrently() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let (body, none) = (stored("text"), HeaderMap::new());
        let request = StoredBodyRequest { headers: &none, offers_gzip: true };
        let status = |response: &Response| response.status().as_u16();
        let first = body.response_within(&ONE, request, "text/plain");
        let second = body.response_within(&ONE, request, "text/plain");
        assert_eq!((status(&first), status(&second)), (200, 503));
        let gzip = headers(&[("accept-encoding", "gzip")]);
        let request = StoredBodyRequest { headers: &gzip, offers_gzip: true };
        let compressed = body.response_within(&ONE, request, "text/plain");
        assert_eq!(status(&compressed), 200, "gzip is sent as it is stored");
    }

    fn stored(text: &str) -> StoredBody {
        StoredBody::write(|out| out.write_all(text.as_bytes())).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_body_is_sent_as_it_is_stored_or_decompressed_in_pieces() {
        let text = "0123456789".repeat(20_000);
        let stored = stored(&text);
        assert!(stored.stored_bytes() < text.len() / 50);
        let respond = |accept: &str, offers_gzip| {
            let headers = headers(&[("accept-encoding", accept)]);
            stored.response(StoredBodyRequest { headers: &headers, offers_gzip }, "text/plain")
        };
        let packed = respond("br, gzip", true);
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        assert_eq!(packed.into_body().into_whole().unwrap(), stored.gzip);
        let plain = respond("br", true);
        assert!(!plain.headers().contains_key("content-encoding"));
        assert_eq!(plain.headers()["vary"], "Accept-Encoding");
        let ResponseBody::Produced(mut body) = plain.into_body() else { panic!("not produced") };
        assert_eq!(body.remaining(), 200_000);
        let (mut found, mut pieces) = (Vec::new(), 0);
        while body.remaining() > 0 {
            found.extend(body.produce().unwrap());
            pieces += 1;
        }
        assert_eq!((found == text.as_bytes(), pieces), (true, 4));
        let disabled = respond("gzip", false);
        assert!(!disabled.headers().contains_key("content-encoding"));
        assert!(!disabled.headers().contains_key("vary"));
    }

    #[test]
    fn a_client_that_has_the_body_gets_304() {
        let stored = stored("text");
        let respond = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            let request = StoredBodyRequest { headers: &headers, offers_gzip: true };
            stored.cacheable_response(request, "text/plain", "no-cache")
        };
        let whole = respond(&[]);
        assert_eq!(whole.status(), StatusCode::OK);
        assert_eq!(whole.headers()["cache-control"], "no-cache");
        let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
        let known = [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()];
        for known in known {
            let answer = respond(&[("if-none-match", &known)]);
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(answer.headers()["etag"].to_str().unwrap(), tag);
        }
        let gzip = respond(&[("accept-encoding", "gzip"), ("if-none-match", &tag)]);
        assert_eq!(gzip.status(), StatusCode::OK, "another representation");
        assert_ne!(gzip.headers()["etag"].to_str().unwrap(), tag);
    }
}
