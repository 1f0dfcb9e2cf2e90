//! The code pages of `char`, `varchar` and `text`. Determines the length of a string in a code page, and
//! the characters that a code page lacks.

use encoding_rs::{
    BIG5, EUC_KR, EncoderResult, Encoding, GBK, SHIFT_JIS, WINDOWS_874, WINDOWS_1250, WINDOWS_1251,
    WINDOWS_1252, WINDOWS_1253, WINDOWS_1254, WINDOWS_1255, WINDOWS_1256, WINDOWS_1257,
    WINDOWS_1258,
};
use oem_cp::OEMCPHashMap;
use oem_cp::code_table::{ENCODING_TABLE_CP437, ENCODING_TABLE_CP850};

/// The size of a buffer that holds any encoded character, plus the extra bytes that the encoder requires.
const CHAR_BYTES_MAX: usize = 16;

/// A code page, identified by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodePage(u16);

/// A character that cannot be represented in a code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmappable(pub(crate) char);

/// The character table of a code page.
enum CodePageTable {
    /// The characters of the upper half of a single-byte code page.
    UpperHalf(&'static OEMCPHashMap<char, u8>),
    /// An encoding from the WHATWG Encoding Standard.
    Encoding(&'static Encoding),
}

impl CodePage {
    /// UTF-16, the encoding of `nchar`, `nvarchar` and `ntext`.
    pub(crate) const UTF_16: Self = Self(1200);
    /// UTF-8, the encoding of collations whose names end with `_UTF8`.
    pub(crate) const UTF_8: Self = Self(65001);
    /// A code page that the server does not report. All SQL Server code pages contain ASCII.
    pub(crate) const UNKNOWN: Self = Self(0);

    /// Creates a code page from a number that `COLLATIONPROPERTY` returns.
    pub(crate) fn new(number: Option<i64>) -> Self {
        number.and_then(|number| u16::try_from(number).ok()).map_or(Self::UNKNOWN, Self)
    }

    /// Returns the number, or 0 if the server does not report it.
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    /// Returns whether the code page's characters are known. Otherwise, only its ASCII characters are
    /// known.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::UTF_16 | Self::UTF_8) || self.table().is_some()
    }

    /// Returns whether the driver encodes table cells in this code page correctly. The driver does not support
    /// collations that use 437 or 850, confuses UTF-8 with the code page of the collation's language, and uses GB 18030
    /// instead of 936.
    pub(crate) fn is_written_by_driver(self) -> bool {
        matches!(self.0, 874 | 932 | 949 | 950 | 1200 | 1250..=1258)
    }

    /// Returns the length of a string in this code page, in bytes, or in byte pairs for UTF-16.
    pub(crate) fn length(self, text: &str) -> Result<usize, Unmappable> {
        match self {
            _ if text.is_ascii() => Ok(text.len()),
            Self::UTF_16 => Ok(text.encode_utf16().count()),
            Self::UTF_8 => Ok(text.len()),
            _ => {
                let table = self.table();
                text.chars().try_fold(0, |length: usize, c| {
                    let bytes = if c.is_ascii() { 1 } else { self.bytes_of(c, table.as_ref())? };
                    Ok(length.saturating_add(bytes))
                })
            }
        }
    }

    fn bytes_of(self, c: char, table: Option<&CodePageTable>) -> Result<usize, Unmappable> {
        let bytes = match table {
            Some(CodePageTable::UpperHalf(chars)) => chars.contains_key(&c).then_some(1),
            Some(CodePageTable::Encoding(encoding)) => encoded(encoding, c)
                .filter(|(bytes, length)| self.has(c, bytes.get(..*length).unwrap_or_default()))
                .map(|(_, length)| length),
            None => None,
        };
        bytes.ok_or(Unmappable(c))
    }

    /// Returns whether the code page has a character that the WHATWG encoding has. The exceptions were
    /// found by comparing all of Unicode with Python's `cp936` and `cp950`, which are Microsoft's tables.
    /// The mapping of private-use characters depends on the server.
    fn has(self, c: char, bytes: &[u8]) -> bool {
        let pair = match bytes {
            [lead, trail] => u16::from_be_bytes([*lead, *trail]),
            _ => return true,
        };
        let is_private = matches!(c, '\u{e000}'..='\u{f8ff}');
        match self.0 {
            936 => {
                !is_private
                    && !matches!(pair, 0xa6d9..=0xa6df | 0xa6ec | 0xa6ed | 0xa6f3 | 0xa8bc | 0xa8bf
                    | 0xa989..=0xa995 | 0xfe50..=0xfea0)
            }
            950 => !is_private && !matches!(pair, 0xa3c0..=0xa3e0 | 0xc6a1..=0xc8fe | 0xf9fe..),
            _ => true,
        }
    }

    fn table(self) -> Option<CodePageTable> {
        Some(CodePageTable::Encoding(match self.0 {
            437 => return Some(CodePageTable::UpperHalf(&ENCODING_TABLE_CP437)),
            850 => return Some(CodePageTable::UpperHalf(&ENCODING_TABLE_CP850)),
            874 => WINDOWS_874,
            932 => SHIFT_JIS,
            936 => GBK,
            949 => EUC_KR,
            950 => BIG5,
            1250 => WINDOWS_1250,
            1251 => WINDOWS_1251,
            1252 => WINDOWS_1252,
            1253 => WINDOWS_1253,
            1254 => WINDOWS_1254,
            1255 => WINDOWS_1255,
            1256 => WINDOWS_1256,
            1257 => WINDOWS_1257,
            1258 => WINDOWS_1258,
            _ => return None,
        }))
    }
}

/// Encodes a character. Returns `None` if decoding the bytes does not yield the same character.
fn encoded(encoding: &'static Encoding, c: char) -> Option<([u8; CHAR_BYTES_MAX], usize)> {
    let mut text = [0; 4];
    let text = &*c.encode_utf8(&mut text);
    let mut bytes = [0; CHAR_BYTES_MAX];
    let mut encoder = encoding.new_encoder();
    let (result, _, length) = encoder.encode_from_utf8_without_replacement(text, &mut bytes, true);
    if result != EncoderResult::InputEmpty {
        return None;
    }
    let mut back = [0; CHAR_BYTES_MAX];
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let (_, _, count) =
        decoder.decode_to_utf8_without_replacement(bytes.get(..length)?, &mut back, true);
    (back.get(..count)? == text.as_bytes()).then_some((bytes, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_the_number_of_bytes_in_the_code_page() {
        let cases: &[(u16, &str, usize)] = &[
            (437, "abc", 3),
            (437, "Ω√é", 3),
            (850, "×Þé", 3),
            (874, "กขค", 3),
            (932, "ab", 2),
            (932, "日本", 4),
            (932, "ｶﾅ", 2),
            (932, "日本ａｶ", 7),
            (936, "日本€", 5),
            (949, "한국", 4),
            (950, "日本€", 6),
            (1200, "日本𝄞", 4),
            (1250, "žluť", 4),
            (1251, "Привет", 6),
            (1252, "é€\u{81}", 3),
            (1253, "Αθήνα", 5),
            (1254, "ğış", 3),
            (1255, "שלום", 4),
            (1256, "سلام", 4),
            (1257, "žąs", 3),
            (1258, "đơư₫", 4),
            (65001, "é€𝄞", 9),
            (0, "abc", 3),
            (20127, "abc", 3),
        ];
        for (page, text, length) in cases {
            assert_eq!(CodePage(*page).length(text), Ok(*length), "{page} {text}");
        }
    }

    #[test]
    fn a_character_that_the_server_would_replace_is_unmappable() {
        let cases: &[(u16, &str, char)] = &[
            (1252, "a日本", '日'),
            // SQL Server replaces these characters with an A, a backslash, a tilde and a hyphen.
            (1252, "aĀ", 'Ā'),
            (932, "¥", '¥'),
            (932, "‾", '‾'),
            (932, "−", '−'),
            (932, "é", 'é'),
            (932, "\u{e000}", '\u{e000}'),
            // The WHATWG encodings have these characters, but the code pages do not.
            (936, "ǹ", 'ǹ'),
            (936, "\u{2ff0}", '\u{2ff0}'),
            (936, "\u{e5e5}", '\u{e5e5}'),
            (936, "𝄞", '𝄞'),
            (950, "ひ", 'ひ'),
            (950, "\u{2400}", '\u{2400}'),
            (950, "\u{ffed}", '\u{ffed}'),
            (949, "é", 'é'),
            (437, "€", '€'),
            (437, "日", '日'),
            (850, "€", '€'),
            (1258, "ấ", 'ấ'),
            (0, "aé", 'é'),
            (20127, "é", 'é'),
        ];
        for (page, text, c) in cases {
            assert_eq!(CodePage(*page).length(text), Err(Unmappable(*c)), "{page} {text}");
        }
    }

    #[test]
    fn a_code_page_without_a_table_is_not_known() {
        for number in [None, Some(0), Some(20127), Some(-1), Some(1 << 40)] {
            assert!(!CodePage::new(number).is_known(), "{number:?}");
        }
        for number in [437, 850, 874, 932, 936, 949, 950, 1200, 1250, 1258, 65001] {
            assert!(CodePage::new(Some(number)).is_known(), "{number}");
        }
    }
}
