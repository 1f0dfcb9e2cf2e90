//! `[gateway.compression]`: compression of answers.

use crate::config::limits;
use crate::config::settings::SettingsTable;

/// A content coding. The variants are ordered from the most to the least preferred.
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
    /// All codings in order of preference. The order decides between equally acceptable codings.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Returns the name used in HTTP and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Compression of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionConfig {
    /// The offered codings in order of preference. If empty, nothing is compressed.
    pub codings: Vec<Coding>,
    /// The minimum body size in bytes for compression.
    pub bytes_min: usize,
}

impl CompressionConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let all = Coding::ALL.map(|coding| coding.name().to_owned()).to_vec();
        let names: Vec<String> = table.get_or("codings", all);
        let coding = |name: &String| Coding::ALL.into_iter().find(|coding| coding.name() == name);
        let codings: Option<Vec<Coding>> = names.iter().map(coding).collect();
        if codings.is_none() {
            table.error(
                "codings",
                "expected a list of zstd, br and gzip, or an empty list".to_owned(),
            );
        }
        Self {
            codings: codings.unwrap_or_default(),
            bytes_min: table.get_bytes("bytes_min", limits::COMPRESSION_BYTES_MIN),
        }
    }
}
