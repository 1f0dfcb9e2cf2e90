//! The lengths of values in an answer, by type (MS-TDS 2.2.5.4 and 2.2.5.5).

use super::collation::ColumnCollation;

/// The number of bytes in a collation.
const COLLATION_BYTES: usize = 5;
/// The length of a `(max)` type, whose values arrive in chunks.
const MAX_LENGTH: u16 = 0xffff;
/// The length of NULL in a value with a length of two bytes.
const SHORT_NULL: u16 = 0xffff;
/// The length of NULL in a value that arrives in chunks.
const CHUNKED_NULL: u64 = u64::MAX;
/// The number of bytes in the timestamp after a text pointer.
const TIMESTAMP_BYTES: usize = 8;

/// The reason why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// More bytes are needed.
    Incomplete,
    /// The token or the type is not known.
    Unknown,
}

/// The bytes of an answer that have arrived.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(ReadError::Incomplete)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(ReadError::Incomplete)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ReadError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Skips text that is preceded by its length in UTF-16 code units, in one byte.
    pub(super) fn skip_short_text(&mut self) -> Result<(), ReadError> {
        let units = usize::from(self.u8()?);
        self.take(units * 2).map(drop)
    }

    /// Skips text that is preceded by its length in UTF-16 code units, in two bytes.
    fn skip_text(&mut self) -> Result<(), ReadError> {
        let units = usize::from(self.u16()?);
        self.take(units * 2).map(drop)
    }
}

/// The format of a column's values, which determines their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueFormat {
    /// A fixed number of bytes.
    Fixed(u8),
    /// A length of one byte, which is 0 for NULL.
    ByteLength,
    /// A length of two bytes.
    ShortLength,
    /// A length of four bytes, which is 0 for NULL.
    LongLength,
    /// A text pointer and a timestamp, followed by a length of four bytes.
    TextPointer,
    /// Chunks, each with a length of four bytes.
    Chunked,
}

/// The length of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueLength {
    /// This number of bytes follows.
    Bytes(u64),
    /// Chunks follow.
    Chunks,
}

impl ValueFormat {
    /// Reads the type of a column or an OUTPUT parameter, and the collation of text in a code page.
    pub(super) fn read(
        input: &mut Input<'_>,
    ) -> Result<(Self, Option<ColumnCollation>), ReadError> {
        let kind = input.u8()?;
        let mut collation = None;
        let format = match kind {
            0x1f => Self::Fixed(0),
            // tinyint, bit; smallint; int, smalldatetime, real, smallmoney; money, datetime,
            // float, bigint.
            0x30 | 0x32 => Self::Fixed(1),
            0x34 => Self::Fixed(2),
            0x38 | 0x3a | 0x3b | 0x7a => Self::Fixed(4),
            0x3c | 0x3d | 0x3e | 0x7f => Self::Fixed(8),
            // date has neither length nor scale.
            0x28 => Self::ByteLength,
            // uniqueidentifier, integers, bit, float, money, datetime; time, datetime2,
            // datetimeoffset. All can be NULL.
            0x24 | 0x26 | 0x68 | 0x6d | 0x6e | 0x6f | 0x29..=0x2b => {
                input.take(1)?;
                Self::ByteLength
            }
            // decimal, numeric.
            0x6a | 0x6c => {
                input.take(3)?;
                Self::ByteLength
            }
            // varbinary, binary; varchar, char; nvarchar, nchar.
            0xa5 | 0xad => Self::by_length(input.u16()?),
            0xa7 | 0xaf => {
                let length = input.u16()?;
                collation = Some(ColumnCollation(input.array()?));
                Self::by_length(length)
            }
            0xe7 | 0xef => {
                let length = input.u16()?;
                input.array::<COLLATION_BYTES>()?;
                Self::by_length(length)
            }
            // image; text, ntext. The name of the table follows, in parts.
            0x22 | 0x23 | 0x63 => {
                input.take(4)?;
                match kind {
                    0x22 => {}
                    0x23 => collation = Some(ColumnCollation(input.array()?)),
                    _ => {
                        input.array::<COLLATION_BYTES>()?;
                    }
                }
                for _ in 0..input.u8()? {
                    input.skip_text()?;
                }
                Self::TextPointer
            }
            // sql_variant.
            0x62 => {
                input.take(4)?;
                Self::LongLength
            }
            // A CLR type.
            0xf0 => {
                input.take(2)?;
                for _ in 0..3 {
                    input.skip_short_text()?;
                }
                input.skip_text()?;
                Self::Chunked
            }
            // xml, possibly with a schema.
            0xf1 => {
                if input.u8()? == 1 {
                    input.skip_short_text()?;
                    input.skip_short_text()?;
                    input.skip_text()?;
                }
                Self::Chunked
            }
            _ => return Err(ReadError::Unknown),
        };
        Ok((format, collation))
    }

    fn by_length(length: u16) -> Self {
        if length == MAX_LENGTH { Self::Chunked } else { Self::ShortLength }
    }

    /// Returns the bytes after a value, or `None` if the value has not completely arrived or arrives in chunks.
    #[inline]
    pub(super) fn skip_value(self, bytes: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Fixed(length) => bytes.get(usize::from(length)..),
            Self::ByteLength => {
                let (length, rest) = bytes.split_first()?;
                rest.get(usize::from(*length)..)
            }
            _ => {
                let mut input = Input::new(bytes);
                let ValueLength::Bytes(length) = self.length(&mut input).ok()? else { return None };
                input.bytes.get(usize::try_from(length).ok()?..)
            }
        }
    }

    /// Reads the fields that precede a value's bytes.
    pub(super) fn length(self, input: &mut Input<'_>) -> Result<ValueLength, ReadError> {
        let bytes = match self {
            Self::Fixed(bytes) => bytes.into(),
            Self::ByteLength => input.u8()?.into(),
            Self::ShortLength => match input.u16()? {
                SHORT_NULL => 0,
                bytes => bytes.into(),
            },
            Self::LongLength => input.u32()?.into(),
            Self::TextPointer => match usize::from(input.u8()?) {
                0 => 0,
                pointer => {
                    input.take(pointer + TIMESTAMP_BYTES)?;
                    input.u32()?.into()
                }
            },
            Self::Chunked if input.u64()? == CHUNKED_NULL => 0,
            Self::Chunked => return Ok(ValueLength::Chunks),
        };
        Ok(ValueLength::Bytes(bytes))
    }
}
