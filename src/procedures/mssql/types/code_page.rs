//! The code pages of `char`, `varchar` and `text`: how long a text is there, and whether it can be represented at all.

use encoding_rs::{
    BIG5, EUC_KR, EncoderResult, Encoding, GBK, SHIFT_JIS, WINDOWS_874, WINDOWS_1250, WINDOWS_1251,
    WINDOWS_1252, WINDOWS_1253, WINDOWS_1254, WINDOWS_1255, WINDOWS_1256, WINDOWS_1257,
    WINDOWS_1258,
};
use oem_cp::OEMCPHashMap;
use oem_cp::code_table::{ENCODING_TABLE_CP437, ENCODING_TABLE_CP850};

/// Room for one character in any encoding, and for what the library wants to see free beside it.
const CHAR_BYTES_MAX: usize = 16;

/// The number of the code page of a type of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodePage(u16);

/// A character that cannot be represented in a code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmappable(pub(crate) char);

/// How a code page is known.
enum Table {
    /// By the characters of its upper half.
    UpperHalf(&'static OEMCPHashMap<char, u8>),
    /// By an encoding of the web.
    Encoding(&'static Encoding),
}

impl CodePage {
    /// UTF-16: `nchar`, `nvarchar`, `ntext`.
    pub(crate) const UTF_16: Self = Self(1200);
    /// A collation whose name ends with `_UTF8`.
    pub(crate) const UTF_8: Self = Self(65001);
    /// The server does not say which. ASCII is the same in every code page of SQL Server.
    pub(crate) const UNKNOWN: Self = Self(0);

    /// The code page of a number as `COLLATIONPROPERTY` says it.
    pub(crate) fn new(number: Option<i64>) -> Self {
        number.and_then(|number| u16::try_from(number).ok()).map_or(Self::UNKNOWN, Self)
    }

    /// Its number; 0 where the server does not say which it is.
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    /// Whether it is known what it holds. Of another, ASCII is.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::UTF_16 | Self::UTF_8) || self.table().is_some()
    }

    /// Whether the driver, left to itself, writes this code page into the column of a table. It has none for collations of 437
    /// and 850, does not tell UTF-8 from the code page of the collation's language, and takes GB 18030 for 936.
    pub(crate) fn is_written_by_driver(self) -> bool {
        matches!(self.0, 874 | 932 | 949 | 950 | 1200 | 1250..=1258)
    }

    /// The length of a text as a type of this code page counts it: in bytes, and in pairs of bytes for UTF-16.
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

    fn bytes_of(self, c: char, table: Option<&Table>) -> Result<usize, Unmappable> {
        let bytes = match table {
            Some(Table::UpperHalf(chars)) => chars.contains_key(&c).then_some(1),
            Some(Table::Encoding(encoding)) => encoded(encoding, c)
                .filter(|(bytes, length)| self.has(c, bytes.get(..*length).unwrap_or_default()))
                .map(|(_, length)| length),
            None => None,
        };
        bytes.ok_or(Unmappable(c))
    }

    /// Whether the code page has what the encoding of the web has. Found by comparing all of Unicode with Python's
    /// `cp936` and `cp950`, which are Microsoft's tables. Characters for private use are what each server makes of them.
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

    fn table(self) -> Option<Table> {
        Some(Table::Encoding(match self.0 {
            437 => return Some(Table::UpperHalf(&ENCODING_TABLE_CP437)),
            850 => return Some(Table::UpperHalf(&ENCODING_TABLE_CP850)),
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

/// The bytes of a character that come back as that character: what is only similar is another value.
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
    fn a_text_is_as_long_as_its_bytes_in_the_code_page() {
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
    fn what_the_server_would_replace_is_unmappable() {
        let cases: &[(u16, &str, char)] = &[
            (1252, "a日本", '日'),
            // SQL Server makes an A of it, of the next ones a backslash, a tilde, a hyphen.
            (1252, "aĀ", 'Ā'),
            (932, "¥", '¥'),
            (932, "‾", '‾'),
            (932, "−", '−'),
            (932, "é", 'é'),
            (932, "\u{e000}", '\u{e000}'),
            // The encodings of the web have these, the code pages do not.
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
    fn a_number_that_no_table_has_is_not_known() {
        for number in [None, Some(0), Some(20127), Some(-1), Some(1 << 40)] {
            assert!(!CodePage::new(number).is_known(), "{number:?}");
        }
        for number in [437, 850, 874, 932, 936, 949, 950, 1200, 1250, 1258, 65001] {
            assert!(CodePage::new(Some(number)).is_known(), "{number}");
        }
    }
}
