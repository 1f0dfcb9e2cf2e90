//! The driver's question about a table type's columns, rewritten.
//!
//! - It fails when the type is not the one whose columns were read with the procedure's parameters: the cells were made
//!   for those. A type that was made anew under its name has another object id.
//! - Of `char` and `varchar` the driver is shown `nvarchar`. Then the server converts, as it does for a parameter. The driver
//!   would take a code page for the column's language, which is another one for 437, 850, 936 and UTF-8.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};

use super::bind::Bound;
use super::server::NarrowText;
use super::signature::Kind;
use super::socket::{END_OF_MESSAGE, HEADER_BYTES};
use super::types::SqlType;
use crate::procedures::{BackendError, BackendErrorKind};

/// The longest packet that the driver agrees upon (its default).
pub(super) const PACKET_BYTES_MAX: usize = 4096;

/// The error of our own check that a table type was recreated. The call was not sent yet, so it is never the procedure's.
const TYPE_CHANGED: u32 = 50_000;

/// A batch of the driver, and its replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    original: String,
    replacement: String,
}

/// Replacements for the driver's column query of one table type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Questions {
    /// Selects the columns unchanged.
    plain: Arc<Question>,
    /// Selects `nvarchar` in place of text in a code page, if there is any.
    wide: Option<Arc<Question>>,
}

impl Questions {
    /// The questions that are rewritten for a call. An error when it is not known which they must be.
    pub(super) fn for_call(
        bound: &[Bound<'_>],
        narrow_text: NarrowText,
    ) -> Result<Vec<Arc<Question>>, BackendError> {
        let tables = bound.iter().filter_map(|one| match &one.parameter.kind {
            Kind::Table { questions, .. } => questions.as_ref(),
            Kind::Scalar(_) => None,
        });
        let question = |one: &Self| match (&one.wide, narrow_text) {
            (Some(_), NarrowText::Unknown) => {
                let reason = "the server did not say what it is, and the call has a table with varchar columns";
                Err(BackendError::caused_by(BackendErrorKind::Unavailable, reason))
            }
            (Some(wide), NarrowText::AsNvarchar) => Ok(Arc::clone(wide)),
            _ => Ok(Arc::clone(&one.plain)),
        };
        tables.map(question).collect()
    }

    /// The questions about the table type of this object id, which has these columns.
    pub(super) fn for_table(name: &str, object_id: i64, columns: &[(String, SqlType)]) -> Self {
        let mut selected = String::new();
        let mut is_needed = false;
        for (column, sql) in columns {
            let separator = if selected.is_empty() { "" } else { ", " };
            let column = column.replace(']', "]]");
            let written = if let Some(wide) = sql.as_nvarchar() {
                is_needed = true;
                write!(selected, "{separator}CAST([{column}] AS {wide})")
            } else {
                write!(selected, "{separator}[{column}]")
            };
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        let question = |selected: &str| {
            let quoted = name.replace('\'', "''");
            Arc::new(Question {
                original: format!("DECLARE @P AS {name};SELECT TOP 0 * FROM @P"),
                replacement: format!(
                    "IF NOT EXISTS (SELECT 1 FROM sys.table_types WHERE user_type_id = TYPE_ID(N'{quoted}') \
                     AND type_table_object_id = {object_id}) THROW {TYPE_CHANGED}, N'the table type was recreated', 1;\
                     DECLARE @P AS {name};SELECT TOP 0 {selected} FROM @P"
                ),
            })
        };
        Self { plain: question("*"), wide: is_needed.then(|| question(&selected)) }
    }
}

impl Question {
    /// The message that takes the place of a batch in one packet: its header, the headers of its payload, another text.
    pub(super) fn replace(&self, packet: &[u8]) -> Option<BytesMut> {
        let (header, payload) = packet.split_at_checked(HEADER_BYTES)?;
        let headers = usize::try_from(payload.get(..4)?.get_u32_le()).ok()?;
        let (headers, text) = payload.split_at_checked(headers)?;
        let is_original =
            self.original.encode_utf16().flat_map(u16::to_le_bytes).eq(text.iter().copied());
        if !is_original {
            return None;
        }
        let mut payload = BytesMut::from(headers);
        self.replacement.encode_utf16().for_each(|unit| payload.put_u16_le(unit));
        let [kind, status, _, _, rest @ ..] = header else { return None };
        let mut message = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        let mut status = status & !END_OF_MESSAGE;
        while !payload.is_empty() {
            let part = payload.split_to(payload.len().min(PACKET_BYTES_MAX - HEADER_BYTES));
            let end = if payload.is_empty() { END_OF_MESSAGE } else { 0 };
            let length = u16::try_from(HEADER_BYTES + part.len()).ok()?;
            message.extend_from_slice(&[*kind, status | end]);
            message.put_u16(length);
            message.extend_from_slice(rest);
            message.extend_from_slice(&part);
            // Only its first packet asks for a reset.
            status = 0;
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::CodePage;
    use super::*;

    const RESET: u8 = 0x08;

    fn text(name: &'static str, length: Option<usize>, page: i64) -> SqlType {
        SqlType::Text { name, length, code_page: CodePage::new(Some(page)) }
    }

    fn packet(batch: &str) -> Vec<u8> {
        let text: Vec<u8> = batch.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(HEADER_BYTES + 22 + text.len()).unwrap().to_be_bytes();
        let header = [1, END_OF_MESSAGE | RESET, length[0], length[1], 0, 0, 7, 0];
        let headers = [&[22, 0, 0, 0][..], &[9; 18]].concat();
        [&header[..], &headers, &text].concat()
    }

    /// The packets of a message, and its text.
    fn read(mut message: &[u8]) -> (Vec<u8>, String) {
        let (mut statuses, mut payload) = (Vec::new(), Vec::new());
        while !message.is_empty() {
            let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
            assert!(length <= PACKET_BYTES_MAX && message[0] == 1 && message[6] == 7);
            statuses.push(message[1]);
            payload.extend_from_slice(&message[HEADER_BYTES..length]);
            message = &message[length..];
        }
        assert_eq!(payload[..22], [&[22, 0, 0, 0][..], &[9; 18]].concat());
        let units = payload[22..].chunks(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        (statuses, char::decode_utf16(units).collect::<Result<_, _>>().unwrap())
    }

    #[test]
    fn text_in_a_code_page_is_asked_for_as_nvarchar() {
        let columns = [
            ("id".to_owned(), SqlType::Int),
            ("a]b".to_owned(), text("varchar", Some(5), 65001)),
            ("kana".to_owned(), text("varchar", Some(5), 932)),
            ("wide".to_owned(), text("nvarchar", None, 1200)),
            ("long".to_owned(), text("varchar", Some(8000), 437)),
            ("max".to_owned(), text("varchar", None, 0)),
        ];
        let question = Questions::for_table("dbo.t", 7, &columns).wide.unwrap();
        let asked = packet("DECLARE @P AS dbo.t;SELECT TOP 0 * FROM @P");
        let (statuses, said) = read(&question.replace(&asked).unwrap());
        assert_eq!(statuses, [END_OF_MESSAGE | RESET]);
        let check = "IF NOT EXISTS (SELECT 1 FROM sys.table_types WHERE user_type_id = TYPE_ID(N'dbo.t') \
                     AND type_table_object_id = 7) THROW 50000, N'the table type was recreated', 1;";
        assert_eq!(
            said.strip_prefix(check).unwrap(),
            "DECLARE @P AS dbo.t;SELECT TOP 0 [id], CAST([a]]b] AS nvarchar(5)), \
             CAST([kana] AS nvarchar(5)), [wide], CAST([long] AS nvarchar(max)), CAST([max] AS nvarchar(max)) FROM @P"
        );
        for other in ["DECLARE @P AS dbo.u;SELECT TOP 0 * FROM @P", "ROLLBACK TRANSACTION", ""] {
            assert_eq!(question.replace(&packet(other)), None);
        }
        assert_eq!(question.replace(&[]), None);
        for without in [&columns[..1], &columns[3..4]] {
            let questions = Questions::for_table("dbo.t", 7, without);
            assert_eq!(questions.wide, None);
            let (_, said) = read(&questions.plain.replace(&asked).unwrap());
            assert_eq!(
                said.strip_prefix(check).unwrap(),
                "DECLARE @P AS dbo.t;SELECT TOP 0 * FROM @P"
            );
        }
        assert_ne!(
            Questions::for_table("dbo.t", 7, &columns),
            Questions::for_table("dbo.t", 8, &columns)
        );
    }

    #[test]
    fn many_columns_are_a_message_of_many_packets() {
        let column = |n| (format!("{n}_{}", "ä".repeat(100)), text("varchar", Some(9), 850));
        let columns: Vec<_> = (0..100).map(column).collect();
        let question = Questions::for_table("dbo.t", 7, &columns).wide.unwrap();
        let asked = packet("DECLARE @P AS dbo.t;SELECT TOP 0 * FROM @P");
        let (statuses, said) = read(&question.replace(&asked).unwrap());
        assert!(statuses.len() > 2, "{statuses:?}");
        let (first, rest) = statuses.split_first().unwrap();
        let (last, between) = rest.split_last().unwrap();
        assert_eq!((*first, *last), (RESET, END_OF_MESSAGE));
        assert!(between.iter().all(|status| *status == 0));
        assert_eq!(said, question.replacement);
    }
}
