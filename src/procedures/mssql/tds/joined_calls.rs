//! Sends calls to `sp_set_session_context` in front of a remote procedure call, in the same
//! message.
//!
//! The driver sends one call in each message. TDS permits several calls in a message, separated by
//! a byte. The server executes the calls in order (MS-TDS 2.2.6.6). Therefore, setting the session
//! context costs no round trip.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PACKET_BYTES_MAX, RPC};

/// The byte between two calls, since TDS 7.2.
const SEPARATOR: u8 = 0xff;
/// The procedure that sets a value in the session context.
const SET_SESSION_CONTEXT: &str = "sp_set_session_context";
/// The maximum length of a value in UTF-16 code units. SQL Server's limit is 8,000 bytes.
pub(crate) const SESSION_VALUE_UNITS_MAX: usize = 4000;
/// The types NVARCHAR and BIT (nullable), and the length of an NVARCHAR that is NULL.
const NVARCHAR: u8 = 0xe7;
const BIT: u8 = 0x68;
const NULL_LENGTH: u16 = 0xffff;
/// The collation, which the driver also declares for text: `SQL_Latin1_General_CP1_CI_AS`.
const COLLATION: [u8; 5] = [0x09, 0x04, 0xd0, 0x00, 0x34];
/// The number of bytes of `ALL_HEADERS` that contain its total length.
const LENGTH_BYTES: usize = 4;

/// A value in the session context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionValue<'a> {
    pub(crate) key: Arc<str>,
    /// The value, or `None` to remove it.
    pub(crate) value: Option<Cow<'a, str>>,
}

/// The remote procedure calls that precede a call in its message.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrecedingCalls {
    /// The calls, each followed by a separator.
    pub(super) bytes: Bytes,
    /// The number of calls.
    pub(super) count: usize,
}

/// Encodes the calls that set values. Fails with the key of the first value that is too long.
pub(crate) fn set_session_values(
    values: &[SessionValue<'_>],
    is_read_only: bool,
) -> Result<PrecedingCalls, Arc<str>> {
    let mut calls = BytesMut::new();
    for SessionValue { key, value } in values {
        calls.put_u16_le(u16::try_from(SET_SESSION_CONTEXT.len()).unwrap_or(u16::MAX));
        put_units(&mut calls, SET_SESSION_CONTEXT);
        // No options.
        calls.put_u16_le(0);
        let has_room = put_parameter(&mut calls, "@key", Some(key))
            && put_parameter(&mut calls, "@value", value.as_deref());
        if !has_room {
            return Err(Arc::clone(key));
        }
        if is_read_only {
            put_name(&mut calls, "@read_only");
            calls.put_slice(&[0, BIT, 1, 1, 1]);
        }
        calls.put_u8(SEPARATOR);
    }
    Ok(PrecedingCalls { bytes: calls.freeze(), count: values.len() })
}

/// Writes an `nvarchar` parameter. Returns whether its value is short enough.
fn put_parameter(into: &mut BytesMut, name: &str, value: Option<&str>) -> bool {
    put_name(into, name);
    into.put_slice(&[0, NVARCHAR]);
    into.put_u16_le(u16::try_from(SESSION_VALUE_UNITS_MAX * 2).unwrap_or(u16::MAX));
    into.put_slice(&COLLATION);
    let Some(value) = value else {
        into.put_u16_le(NULL_LENGTH);
        return true;
    };
    let units = value.encode_utf16().count();
    into.put_u16_le(u16::try_from(units * 2).unwrap_or(NULL_LENGTH));
    put_units(into, value);
    units <= SESSION_VALUE_UNITS_MAX
}

/// Writes a parameter's name with its length.
fn put_name(into: &mut BytesMut, name: &str) {
    into.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
    put_units(into, name);
}

fn put_units(into: &mut BytesMut, text: &str) {
    text.encode_utf16().for_each(|unit| into.put_u16_le(unit));
}

/// A message from the driver that contains one call. The preceding calls are added to it. The
/// result is split into packets again. All packets except the last one have the full size.
#[derive(Debug)]
pub(super) struct JoinedCalls {
    preceding: Bytes,
    /// The beginning of the driver's message, kept until `ALL_HEADERS` is complete.
    headers: Option<BytesMut>,
    /// The payload of the packet that is being formed.
    payload: BytesMut,
    /// The status of the next packet, without `END_OF_MESSAGE`.
    status: u8,
    number: u8,
}

impl JoinedCalls {
    /// Begins a message. `status` is the status of its first packet.
    pub(super) fn new(preceding: Bytes, status: u8) -> Self {
        let payload = BytesMut::with_capacity(PACKET_BYTES_MAX);
        Self { preceding, headers: Some(BytesMut::new()), payload, status, number: 1 }
    }

    /// Takes a part of the driver's message, and writes the packets that are complete.
    pub(super) fn push(&mut self, part: &[u8], out: &mut BytesMut) {
        let Some(headers) = &mut self.headers else { return self.write(part, out) };
        headers.extend_from_slice(part);
        let Some(length) = headers_length(headers) else { return };
        if headers.len() < length {
            return;
        }
        // `ALL_HEADERS` applies to all calls of the message.
        if let Some(mut all) = self.headers.take() {
            let call = all.split_off(length);
            self.write(&all, out);
            let preceding = std::mem::take(&mut self.preceding);
            self.write(&preceding, out);
            self.write(&call, out);
        }
    }

    /// Ends the message.
    pub(super) fn end(mut self, out: &mut BytesMut) {
        self.packet(END_OF_MESSAGE, out);
    }

    fn write(&mut self, mut part: &[u8], out: &mut BytesMut) {
        while !part.is_empty() {
            if self.payload.len() == PACKET_BYTES_MAX - HEADER_BYTES {
                self.packet(0, out);
            }
            let room = PACKET_BYTES_MAX - HEADER_BYTES - self.payload.len();
            let (now, rest) = part.split_at(room.min(part.len()));
            self.payload.extend_from_slice(now);
            part = rest;
        }
    }

    fn packet(&mut self, end: u8, out: &mut BytesMut) {
        let length = u16::try_from(HEADER_BYTES + self.payload.len()).unwrap_or(u16::MAX);
        out.put_slice(&[RPC, self.status | end]);
        out.put_u16(length);
        out.put_slice(&[0, 0, self.number, 0]);
        out.extend_from_slice(&self.payload);
        self.payload.clear();
        // Only the first packet requests the reset.
        (self.status, self.number) = (0, self.number.wrapping_add(1));
    }
}

/// Reads the total length of `ALL_HEADERS` from its first field.
fn headers_length(headers: &[u8]) -> Option<usize> {
    let mut length = headers.get(..LENGTH_BYTES)?;
    usize::try_from(length.get_u32_le()).ok()
}

#[cfg(test)]
mod tests;
