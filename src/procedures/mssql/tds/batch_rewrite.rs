//! Replaces one of the driver's batches with another.
//!
//! Before a call, the driver queries the columns of a table type with a fixed batch. fjord rewrites this
//! batch on the stream that the driver uses. `metadata/table_query.rs` contains the new text and the reason.

use bytes::{Buf, BufMut, BytesMut};

use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PACKET_BYTES_MAX};

/// The text of one of the driver's batches, and its replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchRewrite {
    pub(crate) original: String,
    pub(crate) replacement: String,
}

impl BatchRewrite {
    /// Returns the message that replaces a packet, or `None` for a different batch. The message
    /// keeps the header fields of the packet and the `ALL_HEADERS` of its payload.
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
            // Only the first packet requests the reset.
            status = 0;
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: u8 = 0x08;

    fn packet(batch: &str) -> Vec<u8> {
        let text: Vec<u8> = batch.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(HEADER_BYTES + 22 + text.len()).unwrap().to_be_bytes();
        let header = [1, END_OF_MESSAGE | RESET, length[0], length[1], 0, 0, 7, 0];
        let headers = [&[22, 0, 0, 0][..], &[9; 18]].concat();
        [&header[..], &headers, &text].concat()
    }

    /// Returns the packets' status bytes and the text of a message.
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

    fn rewrite(replacement: &str) -> BatchRewrite {
        BatchRewrite { original: "SELECT 1".to_owned(), replacement: replacement.to_owned() }
    }

    #[test]
    fn only_the_original_batch_is_replaced() {
        let rewrite = rewrite("SELECT N'ä𝄞'");
        let (statuses, text) = read(&rewrite.replace(&packet("SELECT 1")).unwrap());
        assert_eq!(statuses, [END_OF_MESSAGE | RESET]);
        assert_eq!(text, rewrite.replacement);
        for other in ["SELECT 2", "SELECT 11", ""] {
            assert_eq!(rewrite.replace(&packet(other)), None);
        }
        assert_eq!(rewrite.replace(&[]), None);
    }

    #[test]
    fn a_long_replacement_is_split_into_packets() {
        let rewrite = rewrite(&"ä".repeat(10_000));
        let (statuses, text) = read(&rewrite.replace(&packet("SELECT 1")).unwrap());
        assert!(statuses.len() > 2, "{statuses:?}");
        let (first, rest) = statuses.split_first().unwrap();
        let (last, between) = rest.split_last().unwrap();
        assert_eq!((*first, *last), (RESET, END_OF_MESSAGE));
        assert!(between.iter().all(|status| *status == 0));
        assert_eq!(text, rewrite.replacement);
    }
}
