//! Writes values of `sql_variant` (MS-TDS 2.2.5.5.4).

use bytes::{BufMut, BytesMut};

use super::super::collations::Collation;
use super::Sql;

/// The maximum length of a value with its type.
const BYTES_MAX: u32 = 8009;

pub(super) fn write_type(into: &mut BytesMut) {
    into.put_u8(0x62);
    into.put_u32_le(BYTES_MAX);
}

/// Writes a value with its length, base type and properties.
pub(super) fn write(value: &Sql, into: &mut BytesMut) {
    let mut body = BytesMut::new();
    let length = |bytes: usize| u16::try_from(bytes).expect("at most 8,000 bytes");
    match value {
        Sql::Null => {}
        Sql::Int(number) => {
            body.put_slice(&[0x7f, 0]);
            body.put_i64_le(*number);
        }
        Sql::Float(number) => {
            body.put_slice(&[0x3e, 0]);
            body.put_f64_le(*number);
        }
        Sql::Decimal(number, scale) => {
            body.put_slice(&[0x6c, 2, 38, *scale, u8::from(*number >= 0)]);
            body.put_u128_le(number.unsigned_abs());
        }
        Sql::Text(text) => {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            body.put_slice(&[0xe7, 7]);
            body.put_slice(&Collation::default().wire);
            body.put_u16_le(length(bytes.len()));
            body.put_slice(&bytes);
        }
        Sql::Bytes(bytes) => {
            body.put_slice(&[0xa5, 2]);
            body.put_u16_le(length(bytes.len()));
            body.put_slice(bytes);
        }
        other => panic!("sql_variant from {other:?}"),
    }
    into.put_u32_le(u32::try_from(body.len()).expect("a short value"));
    into.put_slice(&body);
}
