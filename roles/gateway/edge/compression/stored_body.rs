//! A body that is compressed once and stored only in that form. For clients that do not accept gzip, it is decompressed piece
//! by piece, and compressed with a coding that they accept.

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
use super::{VARY_ENCODING, set_encoding, stream_encoder};
use crate::roles::gateway::response::BodyEncoder;
use crate::roles::gateway::response::BodyProducer;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::ResponseBody;
use crate::roles::gateway::response::entity_tag::{Comparison, matching};

/// The size of a piece of a body that is decompressed while it is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// The maximum number of bodies that the process decompresses concurrently. Each of them needs about 110 KiB. The
/// requests for these bodies need no credentials, so they must not be able to occupy memory without limit. A body that
/// is compressed again counts as several.
const DECOMPRESSIONS_MAX: usize = 64;
static DECOMPRESSIONS: Semaphore = Semaphore::const_new(DECOMPRESSIONS_MAX);
/// The memory that one decompression needs, rounded up.
const DECOMPRESSION_BYTES: usize = 128 * 1024;
/// `Retry-After` for a request beyond `DECOMPRESSIONS_MAX`, in seconds.
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

/// The part of a request that determines the form in which a stored body is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::roles::gateway) struct StoredBodyRequest<'a> {
    /// The headers of the request.
    pub(in crate::roles::gateway) headers: &'a HeaderMap,
    /// The codings that the configuration offers.
    pub(in crate::roles::gateway) codings: &'a [Coding],
}

impl StoredBodyRequest<'_> {
    /// Returns the coding in which the body is sent: gzip if the client accepts gzip, because the body is stored in
    /// that form.
    fn coding(self) -> Option<Coding> {
        let accepted = |offered: &[Coding]| {
            let offered: Vec<Coding> =
                offered.iter().copied().filter(|it| self.codings.contains(it)).collect();
            AcceptedCodings::from_headers(self.headers, &offered).coding
        };
        accepted(&[Coding::Gzip]).or_else(|| accepted(&[Coding::Zstd, Coding::Brotli]))
    }

    fn accepts_identity(self) -> bool {
        AcceptedCodings::from_headers(self.headers, &[]).identity
    }

    /// Sets `Vary`, unless all clients get the same form.
    fn set_vary(self, headers: &mut HeaderMap) {
        if !self.codings.is_empty() {
            headers.append(header::VARY, VARY_ENCODING);
        }
    }
}

impl StoredBody {
    /// Creates a body from a gzip file with one member.
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
    /// The error that `fill` returns.
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

    /// Returns the response to a request. The response is a 503 without a body if too many bodies are being
    /// decompressed.
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
        let mut coding = request.coding();
        let mut body = match coding {
            Some(Coding::Gzip) => Some(self.gzip.clone().into()),
            Some(other) => self.recompressed(decompressions, other),
            None => self.decompressed(decompressions),
        };
        if body.is_none() && coding.is_some() && request.accepts_identity() {
            coding = None;
            body = self.decompressed(decompressions);
        }
        let Some(body) = body else {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            return response;
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

    /// Returns the uncompressed body, or `None` if too many bodies are being decompressed.
    fn decompressed(&self, decompressions: &'static Semaphore) -> Option<ResponseBody> {
        let permit = decompressions.try_acquire().ok()?;
        Some(ResponseBody::Produced(Box::new(self.decompression(permit))))
    }

    /// Returns the body in another coding, or `None` if too many bodies are being decompressed.
    fn recompressed(
        &self,
        decompressions: &'static Semaphore,
        coding: Coding,
    ) -> Option<ResponseBody> {
        let permits = stream_encoder::memory_bytes(coding).div_ceil(DECOMPRESSION_BYTES) + 1;
        let permit = decompressions.try_acquire_many(u32::try_from(permits).ok()?).ok()?;
        let encoder = Some(stream_encoder::new(coding).ok()?);
        let decompression = self.decompression(permit);
        Some(ResponseBody::Produced(Box::new(Recompression { decompression, encoder })))
    }

    fn decompression(&self, permit: SemaphorePermit<'static>) -> Decompression {
        let decoder = GzDecoder::new(self.gzip.clone().reader());
        Decompression { decoder, remaining: self.length, _permit: permit }
    }

    /// Returns the tag of a form of the body. The forms are different representations, which need
    /// different tags. The tag is weak if the body is compressed again, because another version of
    /// fjord may compress it to different bytes.
    fn tag(&self, coding: Option<&str>) -> Option<HeaderValue> {
        let hash = &self.hash;
        HeaderValue::try_from(match coding {
            None => format!("\"{hash}\""),
            Some(gzip @ "gzip") => format!("\"{hash}-{gzip}\""),
            Some(other) => format!("W/\"{hash}-{other}\""),
        })
        .ok()
    }

    /// Returns the response to a request. The response is a 304 if the client has the body (RFC 9110 §13.1.2). Clients
    /// may store the body as `cache_control` permits.
    pub(in crate::roles::gateway) fn cacheable_response(
        &self,
        request: StoredBodyRequest<'_>,
        media_type: &'static str,
        cache_control: &'static str,
    ) -> Response {
        let mut tag = self.tag(request.coding().map(Coding::name));
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
            let response = self.response(request, media_type);
            let coding = response.headers().get(header::CONTENT_ENCODING);
            tag = self.tag(coding.and_then(|coding| coding.to_str().ok()));
            response
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
    fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.remaining)
    }

    fn produce(&mut self) -> io::Result<Bytes> {
        let bytes = usize::try_from(self.remaining).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; bytes];
        self.decoder.read_exact(&mut piece)?;
        self.remaining -= piece.len() as u64;
        Ok(piece.into())
    }
}

/// A body that is being decompressed and compressed with another coding.
#[derive(Debug)]
struct Recompression {
    decompression: Decompression,
    /// The encoder, or `None` after the end.
    encoder: Option<Box<dyn BodyEncoder>>,
}

impl BodyProducer for Recompression {
    fn is_complete(&self) -> bool {
        self.encoder.is_none()
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn produce(&mut self) -> io::Result<Bytes> {
        if let Some(encoder) = self.encoder.as_mut().filter(|_| !self.decompression.is_complete()) {
            return encoder.encode(&self.decompression.produce()?);
        }
        self.encoder.take().map_or_else(|| Ok(Bytes::new()), BodyEncoder::finish)
    }
}

#[cfg(test)]
mod tests;
