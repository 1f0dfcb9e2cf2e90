//! Finds the columns whose text is in UTF-8.
//!
//! The driver ignores that a collation is a UTF-8 one, and decodes the text in the code page of the collation's
//! language. SQL Server returns such columns for collations whose names end with `_UTF8`, and for the type `json`.

use encoding_rs::{Encoding, WINDOWS_1252};

/// The flag of a UTF-8 collation, in the fourth byte.
const UTF_8: u8 = 0x04;

/// The collation of a column (MS-TDS 2.2.5.1.2): 20 bits for the language, 8 for flags, 4 for a version, and a sort id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnCollation(pub(super) [u8; 5]);

impl ColumnCollation {
    pub(super) fn is_utf8(self) -> bool {
        self.0[3] & UTF_8 != 0
    }

    /// Returns the encoding with which the driver decodes the text.
    fn driver_encoding(self) -> Option<&'static Encoding> {
        let [a, b, c, d, sort_id] = self.0;
        tiberius::Collation::new(u32::from_le_bytes([a, b, c, d]), sort_id).encoding().ok()
    }
}

/// A column whose text is in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Utf8Column {
    /// The index of the result set in the answer.
    pub(super) set: usize,
    /// The index of the column in the result set.
    pub(crate) column: usize,
    driver_encoding: Option<&'static Encoding>,
}

impl Utf8Column {
    pub(super) fn new((set, column): (usize, usize), collation: ColumnCollation) -> Self {
        Self { set, column, driver_encoding: collation.driver_encoding() }
    }

    /// Restores a text from what the driver has decoded. Returns `None` if that is not possible.
    pub(crate) fn restore(self, decoded: &str) -> Option<String> {
        utf8(self.driver_encoding?, decoded)
    }
}

/// Returns whether a text may be UTF-8 that the driver has decoded in the code page 1252. This is the only way to detect
/// UTF-8 in a `sql_variant`, whose values have collations of their own. Other code pages are not tried, because short
/// words in them, such as `แดง` and `Её`, are also valid UTF-8.
pub(crate) fn may_be_utf8(decoded: &str) -> bool {
    utf8(WINDOWS_1252, decoded).is_some()
}

/// Reverses the decoding of text in UTF-8 with another encoding. This is exact if each byte is a character.
fn utf8(encoding: &'static Encoding, decoded: &str) -> Option<String> {
    if !encoding.is_single_byte() {
        return None;
    }
    let (bytes, _, is_lossy) = encoding.encode(decoded);
    if is_lossy { None } else { String::from_utf8(bytes.into()).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(language: u16) -> Utf8Column {
        let [low, high] = language.to_le_bytes();
        let collation = ColumnCollation([low, high, 0xd0, 0x24, 0]);
        assert!(collation.is_utf8());
        Utf8Column::new((0, 0), collation)
    }

    /// Decodes text as the driver does.
    fn decoded(column: Utf8Column, text: &str) -> Option<String> {
        let encoding = column.driver_encoding.unwrap();
        let decoded = encoding.decode_without_bom_handling_and_without_replacement(text.as_bytes());
        decoded.map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn every_character_is_restored_in_a_language_with_a_single_byte_code_page() {
        // English, Polish, Russian, Greek, Turkish, Hebrew, Arabic, Estonian, Vietnamese, Thai.
        for language in
            [0x0409, 0x0415, 0x0419, 0x0408, 0x041f, 0x040d, 0x0401, 0x0425, 0x042a, 0x041e]
        {
            let column = column(language);
            let mut restored = 0;
            for c in (0x80..=0x2ffff).filter_map(char::from_u32) {
                let text = c.to_string();
                // The driver reports bytes that its encoding lacks.
                let Some(decoded) = decoded(column, &text) else { continue };
                assert_eq!(column.restore(&decoded), Some(text), "{language:x} {c:?}");
                restored += 1;
            }
            assert!(restored > 100, "{language:x}: {restored}");
        }
    }

    #[test]
    fn text_that_cannot_be_restored_is_reported() {
        // Japanese, Chinese.
        for language in [0x0411, 0x0804] {
            let column = column(language);
            let decoded = decoded(column, "é");
            assert!(decoded.is_none_or(|decoded| column.restore(&decoded).is_none()));
        }
        assert_eq!(column(0x0409).restore("Ã"), None, "not UTF-8");
        assert_eq!(column(0x0409).restore("日"), None, "not in the code page");
        assert!(may_be_utf8("Ã©"));
        for text in ["é", "日本", "Škoda", "Привет", "Ελλάδα", "İstanbul", "แดง", "รถ", "Её", "Ні"]
        {
            assert!(!may_be_utf8(text), "{text}");
        }
    }

    #[test]
    fn other_collations_are_not_utf8() {
        assert!(!ColumnCollation([0x09, 0x04, 0xd0, 0, 52]).is_utf8());
        assert!(!ColumnCollation([0x11, 0x04, 0xd0, 0, 0]).is_utf8());
    }
}
