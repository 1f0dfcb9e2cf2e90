//! Makes a body smaller while it comes: what came of it so far can be read at the other end.

use std::fmt;
use std::io::{self, Write};
use std::mem;

use bytes::Bytes;

use super::{BROTLI_BUFFER_BYTES, BROTLI_QUALITY, GZIP_LEVEL, ZSTD_LEVEL};
use crate::config::gateway::Coding;
use crate::roles::gateway::respond::Coder;

/// Brotli's window for what streams: 256 KiB, twice a part. A larger one would be held for each answer.
const BROTLI_WINDOW_BITS: u32 = 18;

enum Pieces {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

/// What makes a body of this coding.
pub(super) fn coder(coding: Coding) -> io::Result<Box<dyn Coder>> {
    let out = Vec::new();
    Ok(Box::new(match coding {
        Coding::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            Pieces::Gzip(flate2::write::GzEncoder::new(out, level))
        }
        Coding::Brotli => {
            let (quality, window) = (BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            let writer = brotli::CompressorWriter::new(out, BROTLI_BUFFER_BYTES, quality, window);
            Pieces::Brotli(Box::new(writer))
        }
        Coding::Zstd => Pieces::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
    }))
}

impl Coder for Pieces {
    fn piece(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
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

    fn end(self: Box<Self>) -> io::Result<Bytes> {
        let out = match *self {
            Self::Gzip(writer) => writer.finish()?,
            Self::Brotli(writer) => writer.into_inner(),
            Self::Zstd(writer) => writer.finish()?,
        };
        Ok(out.into())
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
        })
    }
}
