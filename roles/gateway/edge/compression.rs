//! Compresses responses at a bounded cost. It uses fast compression levels, and compresses large bodies on blocking
//! threads, at most one for each core.

use std::io::{self, Write};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::config::gateway::{Coding, CompressionConfig};
use crate::envelope::reply::JSON;
use crate::telemetry::{self, names};

use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::ResponseBody;
use crate::roles::gateway::response::StreamedBody;
use crate::roles::gateway::response::entity_tag::{self, TagKind};

pub(in crate::roles::gateway) mod accept_encoding;
pub(in crate::roles::gateway) mod stored_body;
mod stream_encoder;

use accept_encoding::AcceptedCodings;

/// `Vary` for a response that can be compressed.
pub(in crate::roles::gateway) const VARY_ENCODING: HeaderValue =
    HeaderValue::from_static("Accept-Encoding");
/// The maximum size of a body that is compressed on the current thread. Compressing it takes at most a millisecond.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// The fastest level of each coding. For JSON, the next levels take twice as long and save only a few percent.
const GZIP_LEVEL: u32 = 1;
/// See `GZIP_LEVEL`.
const BROTLI_QUALITY: u32 = 1;
/// See `GZIP_LEVEL`.
const ZSTD_LEVEL: i32 = 1;
/// The longest time that a response waits for a core if its client does not accept an unencoded body.
const CORE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The size of the buffer into which brotli writes.
const BROTLI_BUFFER_BYTES: usize = 16 * 1024;
/// Brotli's window: 2^22 bytes (4 MiB), which every decoder supports.
const BROTLI_WINDOW_BITS: u32 = 22;

/// Compresses responses. Cheap to clone; all clones share the limit on concurrent compressions.
#[derive(Clone, Debug)]
pub(crate) struct Compressor(Arc<Semaphore>);

impl Compressor {
    /// Creates the compressor of a process.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Compresses a response if the client accepts a coding, and the body becomes smaller or must not be sent unencoded.
    pub(super) async fn compress(
        &self,
        response: Response,
        accepted: AcceptedCodings,
        config: &CompressionConfig,
    ) -> Response {
        if config.codings.is_empty() || !is_compressible(response.headers()) {
            return response;
        }
        let tag = entity_tag::kind(&response);
        let (mut parts, body) = response.into_parts();
        let body = match body {
            ResponseBody::Whole(body) => body,
            ResponseBody::Streamed(body) => {
                let body = compress_stream(body, &mut parts.headers, accepted);
                return Response::from_parts(parts, ResponseBody::Streamed(body));
            }
            // Such a body is produced only for a client that does not accept the stored coding.
            body @ ResponseBody::Produced(_) => return Response::from_parts(parts, body),
        };
        if !body.is_empty() {
            parts.headers.append(header::VARY, VARY_ENCODING);
        }
        // A strong tag from the procedure identifies the uncompressed body, and clients send it
        // back in `If-Match`.
        if tag == TagKind::Chosen && accepted.identity {
            return Response::from_parts(parts, body.into());
        }
        let is_large_enough = body.len() >= config.bytes_min || !accepted.identity;
        let coding = accepted.coding.filter(|_| is_large_enough && !body.is_empty());
        let Some(coding) = coding else { return Response::from_parts(parts, body.into()) };
        let smaller = self.run(body.clone(), coding, accepted.identity).await;
        let body = match smaller.filter(|bytes| !accepted.identity || bytes.len() < body.len()) {
            Some(smaller) => {
                set_encoding(&mut parts.headers, coding);
                entity_tag::on_encoded(&mut parts, coding.name());
                smaller
            }
            None => body,
        };
        Response::from_parts(parts, body.into())
    }

    /// Compresses a body. Returns `None` on an error or if no core is free. Waits for a core only if `identity` is not
    /// accepted.
    async fn run(&self, body: Bytes, coding: Coding, accepts_identity: bool) -> Option<Bytes> {
        if body.len() <= INLINE_BYTES_MAX {
            return compressed(&body, coding).ok();
        }
        let permit = match Arc::clone(&self.0).try_acquire_owned() {
            Err(TryAcquireError::NoPermits) if !accepts_identity => {
                let permit = Arc::clone(&self.0).acquire_owned();
                // After the timeout, the client gets an unencoded body rather than an error (RFC 9110 §12.5.3).
                tokio::time::timeout(CORE_WAIT_MAX, permit).await.ok()?.ok()?
            }
            permit => permit.ok()?,
        };
        let work = tokio::task::spawn_blocking(move || {
            let smaller = compressed(&body, coding);
            drop(permit);
            smaller
        });
        work.await.ok()?.ok()
    }
}

/// Attaches the codings that the client accepts to a conditional request, so that the pipeline can
/// evaluate its conditions.
pub(super) fn remember_codings(
    request: &mut Parts,
    accepted: AcceptedCodings,
    config: &CompressionConfig,
) {
    let is_conditional = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE]
        .iter()
        .any(|name| request.headers.contains_key(name));
    if is_conditional && !config.codings.is_empty() {
        request.extensions.insert(accepted);
    }
}

/// Compresses a streamed body chunk by chunk on the current thread. If the memory budget has no room for the encoder, the body
/// is sent unencoded.
fn compress_stream(
    mut body: StreamedBody,
    headers: &mut HeaderMap,
    accepted: AcceptedCodings,
) -> StreamedBody {
    headers.append(header::VARY, VARY_ENCODING);
    let Some(coding) = accepted.coding else { return body };
    if body.reserve_encoder(stream_encoder::memory_bytes(coding)).is_err() {
        return body;
    }
    let Ok(encoder) = stream_encoder::new(coding) else { return body };
    set_encoding(headers, coding);
    body.encoded(encoder)
}

/// Sets `Content-Encoding` and counts the response.
fn set_encoding(headers: &mut HeaderMap, coding: Coding) {
    let name = coding.name();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    let label = [(names::CODING, name.to_owned())];
    telemetry::counter(&names::GATEWAY_COMPRESSED, &label).increment(1);
}

fn compressed(body: &[u8], coding: Coding) -> io::Result<Bytes> {
    let output = Vec::with_capacity(body.len() / 4);
    match coding {
        Coding::Gzip => {
            let mut writer =
                flate2::write::GzEncoder::new(output, flate2::Compression::new(GZIP_LEVEL));
            writer.write_all(body)?;
            writer.finish().map(Bytes::from)
        }
        Coding::Brotli => {
            let (quality, window) = (BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            let mut writer =
                brotli::CompressorWriter::new(output, BROTLI_BUFFER_BYTES, quality, window);
            writer.write_all(body)?;
            Ok(writer.into_inner().into())
        }
        Coding::Zstd => {
            let mut writer = zstd::Encoder::new(output, ZSTD_LEVEL)?;
            // This makes the zstd frame contain the size of the body.
            writer.set_pledged_src_size(u64::try_from(body.len()).ok())?;
            writer.write_all(body)?;
            writer.finish().map(Bytes::from)
        }
    }
}

/// Returns whether a body may be transformed and is of a type that compresses well. Event streams are not compressed, because
/// each event must be readable as soon as it arrives.
pub(in crate::roles::gateway) fn is_compressible(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE);
    // Compared first, because nearly every response has exactly this type.
    let may_shrink = content_type == JSON || is_text(content_type);
    let forbids_transform = text(header::CACHE_CONTROL)
        .split(',')
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"));
    may_shrink && !forbids_transform && !headers.contains_key(header::CONTENT_ENCODING)
}

fn is_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "text/event-stream" => false,
        JSON
        | "application/x-ndjson"
        | "application/xml"
        | "application/javascript"
        | "image/svg+xml" => true,
        other => other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTS_ALL: AcceptedCodings =
        AcceptedCodings { coding: Some(Coding::Gzip), identity: true };

    fn config() -> CompressionConfig {
        CompressionConfig { codings: Coding::ALL.to_vec(), bytes_min: 100 }
    }

    fn response(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
        let response = headers.iter().fold(http::Response::builder(), |response, (name, value)| {
            response.header(*name, *value)
        });
        response.body(body.into().into()).unwrap()
    }

    /// Returns the `Content-Encoding` and `Vary` headers of a response.
    async fn encoding(response: Response, accepted: AcceptedCodings) -> (String, String) {
        let response = Compressor::new().compress(response, accepted, &config()).await;
        let text = |name: &str| {
            response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        (text("content-encoding"), text("vary"))
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-8")];

    #[tokio::test]
    async fn only_compressible_bodies_that_may_be_transformed_are_compressed() {
        let long = || "a".repeat(100);
        let encoding_of =
            async |headers, body: String| encoding(response(headers, body), ACCEPTS_ALL).await;
        let is = |coding: &str, vary: &str| (coding.to_owned(), vary.to_owned());
        assert_eq!(encoding_of(JSON, long()).await, is("gzip", "Accept-Encoding"));
        assert_eq!(encoding_of(JSON, "a".repeat(99)).await, is("", "Accept-Encoding"));
        assert_eq!(encoding_of(JSON, String::new()).await, is("", ""));
        for kind in ["image/png", "text/event-stream", "application/octet-stream", ""] {
            assert_eq!(
                encoding(response(&[("content-type", kind)], long()), ACCEPTS_ALL).await,
                is("", ""),
                "{kind}"
            );
        }
        for kind in ["text/html", "application/problem+json", "Text/CSV"] {
            assert_eq!(
                encoding(response(&[("content-type", kind)], long()), ACCEPTS_ALL).await.0,
                "gzip",
                "{kind}"
            );
        }
        let kept = [JSON, &[("cache-control", "max-age=60, no-transform")]].concat();
        assert_eq!(encoding(response(&kept, long()), ACCEPTS_ALL).await, is("", ""));
        let encoded = [JSON, &[("content-encoding", "br")]].concat();
        assert_eq!(encoding(response(&encoded, long()), ACCEPTS_ALL).await, is("br", ""));
    }

    #[tokio::test]
    async fn a_body_that_would_grow_is_sent_unencoded_if_that_is_accepted() {
        let noise = (0..200_u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect::<Vec<_>>();
        assert_eq!(encoding(response(JSON, noise.clone()), ACCEPTS_ALL).await.0, "");
        let without_identity = AcceptedCodings { identity: false, ..ACCEPTS_ALL };
        assert_eq!(encoding(response(JSON, noise), without_identity).await.0, "gzip");
        assert_eq!(encoding(response(JSON, "tiny"), without_identity).await.0, "gzip");
    }

    #[tokio::test]
    async fn large_bodies_wait_for_a_core_only_without_identity() {
        let compressor = Compressor(Arc::new(Semaphore::new(0)));
        let large = || response(JSON, "a".repeat(INLINE_BYTES_MAX + 1));
        let sent = compressor.compress(large(), ACCEPTS_ALL, &config()).await;
        assert!(!sent.headers().contains_key("content-encoding"));
        let without_identity = AcceptedCodings { identity: false, ..ACCEPTS_ALL };
        let config = config();
        let waiting = compressor.compress(large(), without_identity, &config);
        let freeing = async { compressor.0.add_permits(1) };
        let (sent, ()) = tokio::join!(waiting, freeing);
        assert_eq!(sent.headers()["content-encoding"], "gzip");
        assert_eq!(compressor.0.available_permits(), 1);
    }

    #[test]
    fn each_coding_restores_a_body_that_was_encoded_in_chunks() {
        use std::io::Read;
        for coding in Coding::ALL {
            let (mut encoder, mut smaller) = (stream_encoder::new(coding).unwrap(), Vec::new());
            let chunk = "{\"name\": \"Donnerhall\"}".repeat(1000);
            for _ in 0..20 {
                let bytes = encoder.encode(chunk.as_bytes()).unwrap();
                assert!(!bytes.is_empty() && bytes.len() < chunk.len() / 10, "{coding:?}");
                smaller.extend_from_slice(&bytes);
            }
            smaller.extend_from_slice(&encoder.finish().unwrap());
            let mut back = String::new();
            let read = match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*smaller).read_to_string(&mut back),
                Coding::Brotli => {
                    brotli::Decompressor::new(&*smaller, 4096).read_to_string(&mut back)
                }
                Coding::Zstd => zstd::Decoder::new(&*smaller).unwrap().read_to_string(&mut back),
            };
            read.unwrap();
            assert!(back == chunk.repeat(20), "{coding:?}");
        }
    }

    #[test]
    fn each_coding_restores_the_body() {
        use std::io::Read;
        for body in ["", "x", &"{\"name\": \"Donnerhall\"}".repeat(10_000)] {
            for coding in Coding::ALL {
                let smaller = compressed(body.as_bytes(), coding).unwrap();
                assert!(body.len() < 100 || smaller.len() * 10 < body.len(), "{coding:?}");
                let mut back = String::new();
                let read = match coding {
                    Coding::Gzip => {
                        flate2::read::GzDecoder::new(&*smaller).read_to_string(&mut back)
                    }
                    Coding::Brotli => {
                        brotli::Decompressor::new(&*smaller, 4096).read_to_string(&mut back)
                    }
                    Coding::Zstd => {
                        zstd::Decoder::new(&*smaller).unwrap().read_to_string(&mut back)
                    }
                };
                read.unwrap();
                assert!(back == body, "{coding:?}");
            }
        }
    }
}
