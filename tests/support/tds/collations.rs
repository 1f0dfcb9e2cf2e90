//! The collations of the fake server: their wire format, and the conversion of text as on SQL
//! Server.

use encoding_rs::{EncoderResult, Encoding};
use oem_cp::code_table::DECODING_TABLE_CP437;

/// A collation of the fake server.
#[derive(Debug)]
pub(crate) struct Collation {
    name: &'static str,
    /// The wire format (MS-TDS 2.2.5.1.2): language, flags, version, and sort id.
    pub(crate) wire: [u8; 5],
    /// The value of `COLLATIONPROPERTY(name, 'CodePage')`.
    pub(crate) page: u16,
}

/// All collations. The first one is the database's collation, which is the default of a US English
/// installation.
static ALL: [Collation; 6] = [
    Collation { name: "SQL_Latin1_General_CP1_CI_AS", wire: [0x09, 0x04, 0xd0, 0, 52], page: 1252 },
    Collation { name: "Japanese_CI_AS", wire: [0x11, 0x04, 0xd0, 0, 0], page: 932 },
    Collation { name: "Chinese_PRC_CI_AS", wire: [0x04, 0x08, 0xd0, 0, 0], page: 936 },
    Collation {
        name: "SQL_Latin1_General_CP437_CI_AS",
        wire: [0x09, 0x04, 0xd0, 0, 32],
        page: 437,
    },
    Collation {
        name: "Latin1_General_100_CI_AS_SC_UTF8",
        wire: [0x09, 0x04, 0xd0, 0x24, 0],
        page: 65001,
    },
    Collation {
        name: "Japanese_XJIS_140_CI_AS_UTF8",
        wire: [0x11, 0x04, 0xd0, 0x34, 0],
        page: 65001,
    },
];

impl Collation {
    /// Returns the collation of the database.
    pub(crate) fn default() -> &'static Self {
        &ALL[0]
    }

    pub(crate) fn named(name: &str) -> &'static Self {
        ALL.iter().find(|one| one.name == name).expect("the fake server has this collation")
    }

    /// Returns the collation of a code page, or the default.
    pub(crate) fn for_page(page: i64) -> &'static Self {
        ALL.iter().find(|one| i64::from(one.page) == page).unwrap_or(&ALL[0])
    }

    pub(crate) fn from_wire(wire: &[u8]) -> &'static Self {
        ALL.iter().find(|one| one.wire == wire).expect("the fake server has this collation")
    }

    fn encoding(&self) -> &'static Encoding {
        match self.page {
            932 => encoding_rs::SHIFT_JIS,
            936 => encoding_rs::GBK,
            65001 => encoding_rs::UTF_8,
            _ => encoding_rs::WINDOWS_1252,
        }
    }

    /// Encodes text. A character that the code page lacks silently becomes a similar character or a
    /// question mark.
    pub(crate) fn encode(&self, text: &str) -> Vec<u8> {
        text.chars().flat_map(|c| self.encode_char(c)).collect()
    }

    fn encode_char(&self, c: char) -> Vec<u8> {
        if self.page == 437 && !c.is_ascii() {
            let place = DECODING_TABLE_CP437.iter().position(|one| *one == c);
            return vec![place.map_or(b'?', |place| {
                u8::try_from(place + 128).expect("the index fits the upper half of a byte")
            })];
        }
        let mut bytes = Vec::with_capacity(16);
        let (result, _) = self
            .encoding()
            .new_encoder()
            .encode_from_utf8_to_vec_without_replacement(&c.to_string(), &mut bytes, true);
        match (result, c) {
            (EncoderResult::InputEmpty, _) => bytes,
            (_, 'Ā') => vec![b'A'],
            _ => vec![b'?'],
        }
    }

    pub(crate) fn decode(&self, bytes: &[u8]) -> String {
        if self.page == 437 {
            let upper = |byte: u8| DECODING_TABLE_CP437[usize::from(byte - 128)];
            let one = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { upper(*byte) };
            return bytes.iter().map(one).collect();
        }
        self.encoding().decode_without_bom_handling(bytes).0.into_owned()
    }

    /// Returns the text that SQL Server stores in a column of at most `bytes_max` bytes.
    pub(crate) fn store(&self, text: &str, bytes_max: Option<usize>) -> String {
        let mut bytes = Vec::new();
        for c in text.chars() {
            let more = self.encode_char(c);
            if bytes_max.is_some_and(|most| bytes.len() + more.len() > most) {
                break;
            }
            bytes.extend_from_slice(&more);
        }
        self.decode(&bytes)
    }
}
