//! Compresses a streamed body chunk by chunk. After each chunk, the client can decode everything sent so far.

use std::fmt;
use std::io::{self, Write};
use std::mem;

use bytes::Bytes;

use super::{BROTLI_BUFFER_BYTES, BROTLI_QUALITY, GZIP_LEVEL, ZSTD_LEVEL};
use crate::config::gateway::Coding;
use crate::roles::gateway::response::BodyEncoder;

/// The window of a streamed body: 256 KiB, twice the default size of a chunk. It is small because each response has its
/// own window.
const WINDOW_BITS: u32 = 18;

enum StreamEncoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

pub(super) fn new(coding: Coding) -> io::Result<Box<dyn BodyEncoder>> {
    let out = Vec::new();
    Ok(Box::new(match coding {
        Coding::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            StreamEncoder::Gzip(flate2::write::GzEncoder::new(out, level))
        }
        Coding::Brotli => {
            let (quality, window) = (BROTLI_QUALITY, WINDOW_BITS);
            let writer = brotli::CompressorWriter::new(out, BROTLI_BUFFER_BYTES, quality, window);
            StreamEncoder::Brotli(Box::new(writer))
        }
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
            encoder.window_log(WINDOW_BITS)?;
            StreamEncoder::Zstd(encoder)
        }
    }))
}

/// Returns the memory that an encoder occupies while a response is streamed. A test below checks the values.
pub(super) fn memory_bytes(coding: Coding) -> usize {
    match coding {
        Coding::Gzip => 352 * 1024,
        Coding::Brotli => 1024 * 1024,
        Coding::Zstd => 1120 * 1024,
    }
}

impl BodyEncoder for StreamEncoder {
    fn encode(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        let writer: &mut dyn Write = match self {
            Self::Gzip(writer) => writer,
            Self::Brotli(writer) => writer,
            Self::Zstd(writer) => writer,
        };
        writer.write_all(bytes)?;
        writer.flush()?;
        let out = match self {
            Self::Gzip(writer) => writer.get_mut(),
            Self::Brotli(writer) => writer.get_mut(),
            Self::Zstd(writer) => writer.get_mut(),
        };
        Ok(mem::take(out).into())
    }

    fn finish(self: Box<Self>) -> io::Result<Bytes> {
        let out = match *self {
            Self::Gzip(writer) => writer.finish()?,
            Self::Brotli(writer) => writer.into_inner(),
            Self::Zstd(writer) => writer.finish()?,
        };
        Ok(out.into())
    }
}

impl fmt::Debug for StreamEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer};

    /// Returns a part of a response that compresses only moderately.
    fn part() -> Vec<u8> {
        (0..6000_u64)
            .flat_map(|n| format!("{{\"id\":{}}},", n.pow(3) % 99_991).into_bytes())
            .collect()
    }

    /// Returns the number of bytes that the C library of zstd allocates.
    fn zstd_bytes() -> usize {
        let (mut context, part) = (CCtx::create(), part());
        context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).unwrap();
        context.set_parameter(CParameter::WindowLog(WINDOW_BITS)).unwrap();
        let mut out = vec![0; zstd_safe::compress_bound(part.len())];
        for _ in 0..4 {
            let mut out = OutBuffer::around(&mut out[..]);
            context.compress_stream(&mut out, &mut InBuffer::around(&part)).unwrap();
        }
        context.sizeof()
    }

    #[test]
    fn an_encoder_occupies_the_memory_that_is_reserved_for_it() {
        let part = part();
        for coding in Coding::ALL {
            let measured = allocation_counter::measure(|| {
                let mut encoder = new(coding).unwrap();
                for _ in 0..4 {
                    assert!(encoder.encode(&part).unwrap().len() < part.len());
                }
            });
            let of_rust = usize::try_from(measured.bytes_max).unwrap();
            let of_c = if coding == Coding::Zstd { zstd_bytes() } else { 0 };
            // The encoded parts are counted separately.
            let (used, counted) = (of_rust + of_c, memory_bytes(coding));
            assert!(used <= counted + part.len(), "{coding:?}: {used}");
            assert!(used * 2 > counted, "{coding:?}: {used}");
        }
    }
}
