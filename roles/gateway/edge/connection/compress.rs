//! Makes answers smaller, at a bounded cost: fast levels, large bodies away from the network's threads, and as many of
//! them at once as there are cores.

use std::io::{self, Write};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::config::gateway::{Coding, CompressionConfig};
use crate::envelope::reply::JSON;
use crate::telemetry::{self, names};

use super::encoding::Accepted;
use crate::roles::gateway::response::AnswerBody;
use crate::roles::gateway::response::Response;
use crate::roles::gateway::response::Streamed;

mod pieces;

/// What an answer that may be compressed depends on.
const VARIES: HeaderValue = HeaderValue::from_static("Accept-Encoding");
/// What is compressed where it stands: a millisecond at most.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;
/// The fast end of each: for JSON the next levels cost twice the time and save a few percent.
const GZIP_LEVEL: u32 = 1;
/// See `GZIP_LEVEL`.
const BROTLI_QUALITY: u32 = 1;
/// See `GZIP_LEVEL`.
const ZSTD_LEVEL: i32 = 1;
/// Longest wait for a turn, for a client that takes nothing else.
const TURN_MAX: Duration = Duration::from_secs(1);
/// What brotli writes at a time.
const BROTLI_BUFFER_BYTES: usize = 16 * 1024;
/// Brotli's window: 4 MiB is what decoders always take.
const BROTLI_WINDOW_BITS: u32 = 22;

/// Compresses large bodies, some at once. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Compressor(Arc<Semaphore>);

impl Compressor {
    /// One for the whole process.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// The same answer, smaller where the client takes that and it pays.
    pub(super) async fn compress(
        &self,
        response: Response,
        accepted: Accepted,
        config: &CompressionConfig,
    ) -> Response {
        if config.codings.is_empty() || !is_compressible(response.headers()) {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let body = match body.into_whole() {
            Ok(body) => body,
            Err(body) => {
                let body = streamed(body, &mut parts.headers, accepted);
                return Response::from_parts(parts, AnswerBody::Streamed(body));
            }
        };
        if !body.is_empty() {
            parts.headers.append(header::VARY, VARIES);
        }
        let is_large = body.len() >= config.bytes_min || !accepted.identity;
        let coding = accepted.coding.filter(|_| is_large && !body.is_empty());
        let Some(coding) = coding else { return Response::from_parts(parts, body.into()) };
        let smaller = self.run(body.clone(), coding, accepted.identity).await;
        let body = match smaller.filter(|bytes| !accepted.identity || bytes.len() < body.len()) {
            Some(smaller) => {
                tell(&mut parts.headers, coding);
                smaller
            }
            None => body,
        };
        Response::from_parts(parts, body.into())
    }

    /// Compresses; nothing when all cores are at it and the client takes the body as it is.
    async fn run(&self, body: Bytes, coding: Coding, takes_identity: bool) -> Option<Bytes> {
        if body.len() <= AT_ONCE_BYTES_MAX {
            return compressed(&body, coding).ok();
        }
        let turn = match Arc::clone(&self.0).try_acquire_owned() {
            Err(TryAcquireError::NoPermits) if !takes_identity => {
                let turn = Arc::clone(&self.0).acquire_owned();
                // Past that it gets what it does not take: better than nothing (RFC 9110 §12.5.3).
                tokio::time::timeout(TURN_MAX, turn).await.ok()?.ok()?
            }
            turn => turn.ok()?,
        };
        let work = tokio::task::spawn_blocking(move || {
            let smaller = compressed(&body, coding);
            drop(turn);
            smaller
        });
        work.await.ok()?.ok()
    }
}

/// A body that still comes, made smaller piece by piece: each is large, and small enough to be done where it stands.
/// Where there is no room for what does that, it goes as it is.
fn streamed(mut body: Streamed, headers: &mut HeaderMap, accepted: Accepted) -> Streamed {
    headers.append(header::VARY, VARIES);
    let Some(coding) = accepted.coding else { return body };
    if body.make_room(pieces::coder_bytes(coding)).is_err() {
        return body;
    }
    let Ok(coder) = pieces::coder(coding) else { return body };
    tell(headers, coding);
    body.coded(coder)
}

/// Says and counts how an answer was made smaller.
fn tell(headers: &mut HeaderMap, coding: Coding) {
    let name = coding.name();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    let label = [(names::CODING, name.to_owned())];
    telemetry::counter(&names::GATEWAY_COMPRESSED, &label).increment(1);
}

fn compressed(body: &[u8], coding: Coding) -> io::Result<Bytes> {
    let room = Vec::with_capacity(body.len() / 4);
    match coding {
        Coding::Gzip => {
            let mut writer =
                flate2::write::GzEncoder::new(room, flate2::Compression::new(GZIP_LEVEL));
            writer.write_all(body)?;
            writer.finish().map(Bytes::from)
        }
        Coding::Brotli => {
            let (quality, window) = (BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            let mut writer =
                brotli::CompressorWriter::new(room, BROTLI_BUFFER_BYTES, quality, window);
            writer.write_all(body)?;
            Ok(writer.into_inner().into())
        }
        Coding::Zstd => {
            let mut writer = zstd::Encoder::new(room, ZSTD_LEVEL)?;
            // The frame then tells how much room its content takes.
            writer.set_pledged_src_size(u64::try_from(body.len()).ok())?;
            writer.write_all(body)?;
            writer.finish().map(Bytes::from)
        }
    }
}

/// Whether a body may become another on the way, and is of a kind that gets smaller. Events are not: each has to be
/// read when it comes.
fn is_compressible(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE);
    // Nearly every answer is what the first look finds.
    let may_shrink = content_type == JSON || is_text(content_type);
    let keeps = text(header::CACHE_CONTROL)
        .split(',')
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"));
    may_shrink && !keeps && !headers.contains_key(header::CONTENT_ENCODING)
}

fn is_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "text/event-stream" => false,
        JSON | "application/xml" | "application/javascript" | "image/svg+xml" => true,
        other => other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES_ALL: Accepted = Accepted { coding: Some(Coding::Gzip), identity: true };

    fn config() -> CompressionConfig {
        CompressionConfig { codings: Coding::ALL.to_vec(), bytes_min: 100 }
    }

    fn answer(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
        let response = headers.iter().fold(http::Response::builder(), |response, (name, value)| {
            response.header(*name, *value)
        });
        response.body(body.into().into()).unwrap()
    }

    /// `Content-Encoding` and `Vary` of an answer.
    async fn told(answer: Response, accepted: Accepted) -> (String, String) {
        let answer = Compressor::new().compress(answer, accepted, &config()).await;
        let text = |name: &str| {
            answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        (text("content-encoding"), text("vary"))
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-8")];

    #[tokio::test]
    async fn only_what_gets_smaller_and_may_is_compressed() {
        let long = || "a".repeat(100);
        let told_of = async |headers, body: String| told(answer(headers, body), TAKES_ALL).await;
        let is = |coding: &str, vary: &str| (coding.to_owned(), vary.to_owned());
        assert_eq!(told_of(JSON, long()).await, is("gzip", "Accept-Encoding"));
        assert_eq!(told_of(JSON, "a".repeat(99)).await, is("", "Accept-Encoding"));
        assert_eq!(told_of(JSON, String::new()).await, is("", ""));
        for kind in ["image/png", "text/event-stream", "application/octet-stream", ""] {
            assert_eq!(
                told(answer(&[("content-type", kind)], long()), TAKES_ALL).await,
                is("", ""),
                "{kind}"
            );
        }
        for kind in ["text/html", "application/problem+json", "Text/CSV"] {
            assert_eq!(
                told(answer(&[("content-type", kind)], long()), TAKES_ALL).await.0,
                "gzip",
                "{kind}"
            );
        }
        let kept = [JSON, &[("cache-control", "max-age=60, no-transform")]].concat();
        assert_eq!(told(answer(&kept, long()), TAKES_ALL).await, is("", ""));
        let encoded = [JSON, &[("content-encoding", "br")]].concat();
        assert_eq!(told(answer(&encoded, long()), TAKES_ALL).await, is("br", ""));
    }

    #[tokio::test]
    async fn a_body_that_would_grow_is_sent_as_it_is_where_that_is_taken() {
        let noise = (0..200_u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect::<Vec<_>>();
        assert_eq!(told(answer(JSON, noise.clone()), TAKES_ALL).await.0, "");
        let never_as_it_is = Accepted { identity: false, ..TAKES_ALL };
        assert_eq!(told(answer(JSON, noise), never_as_it_is).await.0, "gzip");
        assert_eq!(told(answer(JSON, "tiny"), never_as_it_is).await.0, "gzip");
    }

    #[tokio::test]
    async fn large_bodies_wait_for_no_core_unless_they_have_to() {
        let compressor = Compressor(Arc::new(Semaphore::new(0)));
        let large = || answer(JSON, "a".repeat(AT_ONCE_BYTES_MAX + 1));
        let sent = compressor.compress(large(), TAKES_ALL, &config()).await;
        assert!(!sent.headers().contains_key("content-encoding"));
        let never_as_it_is = Accepted { identity: false, ..TAKES_ALL };
        let config = config();
        let waiting = compressor.compress(large(), never_as_it_is, &config);
        let freeing = async { compressor.0.add_permits(1) };
        let (sent, ()) = tokio::join!(waiting, freeing);
        assert_eq!(sent.headers()["content-encoding"], "gzip");
        assert_eq!(compressor.0.available_permits(), 1);
    }

    #[test]
    fn each_coding_gives_the_same_bytes_back_piece_by_piece() {
        use std::io::Read;
        for coding in Coding::ALL {
            let (mut coder, mut smaller) = (pieces::coder(coding).unwrap(), Vec::new());
            let piece = "{\"name\": \"Donnerhall\"}".repeat(1000);
            for _ in 0..20 {
                let bytes = coder.piece(piece.as_bytes()).unwrap();
                assert!(!bytes.is_empty() && bytes.len() < piece.len() / 10, "{coding:?}");
                smaller.extend_from_slice(&bytes);
            }
            smaller.extend_from_slice(&coder.end().unwrap());
            let mut back = String::new();
            let read = match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*smaller).read_to_string(&mut back),
                Coding::Brotli => {
                    brotli::Decompressor::new(&*smaller, 4096).read_to_string(&mut back)
                }
                Coding::Zstd => zstd::Decoder::new(&*smaller).unwrap().read_to_string(&mut back),
            };
            read.unwrap();
            assert!(back == piece.repeat(20), "{coding:?}");
        }
    }

    #[test]
    fn each_coding_gives_the_same_bytes_back() {
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
