//! `[gateway.compression]`: how answers are made smaller.

use crate::config::limits;
use crate::config::settings::Table;

/// A content coding, best first: of those that a client likes equally the first one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in HTTP, and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// How answers are made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionConfig {
    /// What is offered, best first; none: nothing is compressed.
    pub codings: Vec<Coding>,
    /// Smaller bodies are sent as they are.
    pub bytes_min: usize,
}

impl CompressionConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let all = Coding::ALL.map(|coding| coding.name().to_owned()).to_vec();
        let names: Vec<String> = table.get_or("codings", all);
        let coding = |name: &String| Coding::ALL.into_iter().find(|coding| coding.name() == name);
        let codings: Option<Vec<Coding>> = names.iter().map(coding).collect();
        if codings.is_none() {
            table.error("codings", "expected any of zstd, br, gzip, or none".to_owned());
        }
        Self {
            codings: codings.unwrap_or_default(),
            bytes_min: table.bytes("bytes_min", limits::COMPRESSION_BYTES_MIN),
        }
    }
}
