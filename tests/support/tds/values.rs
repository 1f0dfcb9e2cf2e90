//! Reads values of the types that a driver sends, and writes values of the types that a procedure declares.
//!
//! The file is longer than 400 lines, because the reading and the writing of a type belong together.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tds_protocol::rpc::TypeInfo;

use super::collations::Collation;
use super::schema::take_name;

mod variant;

/// A value, independent of its type on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sql {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Decimal(i128, u8),
    Date(u32),
    Time(u64, u8),
    DateTime2(u64, u8, u32),
    DateTimeOffset(u64, u8, u32, i16),
    DateTime(i32, u32),
    SmallDateTime(u16, u16),
    Table(Vec<Vec<Sql>>),
    /// A table whose number of columns differs from that of its type.
    OtherColumns,
    /// A text variable that is passed for an OUTPUT parameter of the type `json`.
    TextForJson,
}

/// A declared type: its name, and the numbers in parentheses.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) numbers: Vec<u16>,
    pub(crate) is_max: bool,
    /// The collation, if it is not the database's.
    pub(crate) collation: Option<&'static Collation>,
}

impl Declared {
    pub(crate) fn parse(text: &str) -> Self {
        let (text, collation) = text.split_once(" COLLATE ").unwrap_or((text, ""));
        if text.contains('[') {
            // This is the name of a table type.
            let (name, numbers) = (take_name(text.trim()).0, Vec::new());
            return Self { name, numbers, is_max: false, collation: None };
        }
        let (name, inside) =
            text.trim().trim_end_matches(')').split_once('(').unwrap_or((text, ""));
        let numbers = inside.split(',').filter_map(|one| one.trim().parse().ok()).collect();
        let collation = (!collation.is_empty()).then(|| Collation::named(collation));
        Self { name: name.trim().to_owned(), numbers, is_max: inside.trim() == "max", collation }
    }

    fn number(&self, at: usize) -> u16 {
        self.numbers.get(at).copied().unwrap_or_default()
    }

    /// Returns a precision or a scale.
    fn digits(&self, at: usize) -> u8 {
        u8::try_from(self.number(at)).expect("38 digits or fewer")
    }

    fn collation(&self) -> &'static Collation {
        self.collation.unwrap_or_else(Collation::default)
    }

    /// Returns the code page of a `char` or `varchar`.
    pub(crate) fn code_page(&self) -> Option<u16> {
        matches!(self.name.as_str(), "char" | "varchar").then(|| self.collation().page)
    }

    /// Returns the value that SQL Server stores in a column of this type.
    pub(crate) fn store(&self, value: Sql) -> Sql {
        match value {
            Sql::Text(text) if self.code_page().is_some() => {
                let most = (!self.is_max).then(|| usize::from(self.number(0)));
                Sql::Text(self.collation().store(&text, most))
            }
            Sql::Text(text) if matches!(self.name.as_str(), "decimal" | "numeric") => {
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let digits = format!("{whole}{fraction}").parse().expect("a number");
                Sql::Decimal(digits, u8::try_from(fraction.len()).expect("38 digits or fewer"))
            }
            value => value,
        }
    }

    /// Returns the length in bytes, precision and scale in `sys.parameters`.
    pub(crate) fn described(&self) -> (i64, i64, i64) {
        let (first, second) = (i64::from(self.number(0)), i64::from(self.number(1)));
        match self.name.as_str() {
            _ if self.is_max || matches!(self.name.as_str(), "xml" | "json") => (-1, 0, 0),
            "vector" => (8 + 4 * first, 0, 0),
            "nchar" | "nvarchar" => (first * 2, 0, 0),
            "decimal" | "numeric" => (17, first, second),
            "time" | "datetime2" | "datetimeoffset" => (8, 27, first),
            _ => (first, 0, 0),
        }
    }

    fn type_info(&self) -> TypeInfo {
        let bare =
            |type_id, length| TypeInfo { type_id, max_length: Some(length), ..TypeInfo::int() };
        let length = if self.is_max { 0xffff } else { self.number(0) };
        let sized = |type_id, length, has_collation: bool| TypeInfo {
            collation: has_collation.then(|| self.collation().wire),
            ..bare(type_id, length)
        };
        match self.name.as_str() {
            "bit" => TypeInfo::bit(),
            "tinyint" => TypeInfo::tinyint(),
            "smallint" => TypeInfo::smallint(),
            "bigint" => TypeInfo::bigint(),
            "decimal" | "numeric" => TypeInfo::decimal(self.digits(0), self.digits(1)),
            "money" => TypeInfo::money(),
            "smallmoney" => TypeInfo::smallmoney(),
            "real" => TypeInfo::real(),
            "float" => TypeInfo::float(),
            "char" => sized(0xaf, length, true),
            "varchar" => sized(0xa7, length, true),
            "nchar" => sized(0xef, length * 2, true),
            "nvarchar" if self.is_max => sized(0xe7, 0xffff, true),
            "json" | "vector" => sized(0xe7, 0xffff, true),
            "nvarchar" => sized(0xe7, length * 2, true),
            "binary" => sized(0xad, length, false),
            "varbinary" => sized(0xa5, length, false),
            "date" => TypeInfo::date(),
            "time" => TypeInfo::time(self.digits(0)),
            "datetime" => TypeInfo::datetime(),
            "smalldatetime" => TypeInfo::smalldatetime(),
            "datetime2" => TypeInfo::datetime2(self.digits(0)),
            "datetimeoffset" => TypeInfo::datetimeoffset(self.digits(0)),
            "uniqueidentifier" => TypeInfo::uniqueidentifier(),
            // `write_type` adds the byte that indicates that there is no schema collection.
            "xml" => TypeInfo { type_id: 0xf1, max_length: None, ..TypeInfo::int() },
            _ => TypeInfo::int(),
        }
    }

    /// Writes the type of a column or a return value.
    pub(crate) fn write_type(&self, into: &mut BytesMut) {
        if self.name == "sql_variant" {
            return variant::write_type(into);
        }
        self.type_info().encode(into);
        if self.name == "xml" {
            into.put_u8(0);
        }
    }

    /// Writes a value of this type.
    pub(crate) fn write(&self, value: &Sql, into: &mut BytesMut) {
        if self.name == "sql_variant" {
            return variant::write(value, into);
        }
        let wire = self.type_info();
        if matches!(wire.type_id, 0xaf | 0xa7 | 0xef | 0xe7 | 0xad | 0xa5 | 0xf1) {
            let is_wide = matches!(wire.type_id, 0xef | 0xe7 | 0xf1);
            let is_long = wire.type_id == 0xf1 || wire.max_length == Some(0xffff);
            write_long(self.bytes(value, is_wide).as_deref(), is_long, into);
            return;
        }
        let mut plain = BytesMut::new();
        self.write_short(value, &wire, &mut plain);
        into.put_u8(u8::try_from(plain.len()).expect("the length fits a byte"));
        into.put_slice(&plain);
    }

    /// Returns the bytes of text or binary data, padded with blanks or zeros if the type has a fixed length.
    fn bytes(&self, value: &Sql, wide: bool) -> Option<Vec<u8>> {
        let length = usize::from(self.number(0));
        match value {
            Sql::Text(text) => {
                let is_fixed = matches!(self.name.as_str(), "char" | "nchar");
                let blank: &[u8] = if wide { &[b' ', 0] } else { b" " };
                let mut bytes: Vec<u8> = if wide {
                    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
                } else {
                    self.collation().encode(text)
                };
                let blanks = length.saturating_sub(bytes.len() / blank.len());
                let blanks = if is_fixed { blanks } else { 0 };
                bytes.extend(blank.repeat(blanks));
                Some(bytes)
            }
            Sql::Bytes(bytes) => {
                let mut bytes = bytes.clone();
                if self.name == "binary" {
                    bytes.resize(length, 0);
                }
                Some(bytes)
            }
            Sql::Null => None,
            other => panic!("{} from {other:?}", self.name),
        }
    }

    fn write_short(&self, value: &Sql, wire: &TypeInfo, into: &mut BytesMut) {
        let length = usize::from(wire.max_length.unwrap_or_default());
        match value {
            Sql::Null => {}
            Sql::Int(number) if wire.type_id == 0x26 || wire.type_id == 0x68 => {
                into.put_slice(&number.to_le_bytes()[..length]);
            }
            #[expect(clippy::cast_possible_truncation, reason = "real is a single")]
            Sql::Float(number) if length == 4 => into.put_f32_le(*number as f32),
            Sql::Float(number) => into.put_f64_le(*number),
            Sql::Decimal(number, scale) if wire.type_id == 0x6e => {
                let scaled = rescale(*number, *scale, 4);
                if length == 4 {
                    into.put_i32_le(i32::try_from(scaled).expect("the value fits smallmoney"));
                } else {
                    let scaled = i64::try_from(scaled).expect("the value fits money");
                    into.put_i32_le(i32::try_from(scaled >> 32).expect("the half fits 32 bits"));
                    into.put_u32_le(
                        u32::try_from(scaled & 0xffff_ffff).expect("the half fits 32 bits"),
                    );
                }
            }
            Sql::Decimal(number, scale) => {
                let scaled = rescale(*number, *scale, self.digits(1));
                into.put_u8(u8::from(scaled >= 0));
                into.put_slice(&scaled.unsigned_abs().to_le_bytes()[..length - 1]);
            }
            Sql::Bytes(bytes) => into.put_slice(bytes),
            Sql::Date(days) => put_days(*days, into),
            Sql::Time(steps, scale) => put_time(*steps, *scale, into),
            Sql::DateTime2(steps, scale, days) => {
                put_time(*steps, *scale, into);
                put_days(*days, into);
            }
            Sql::DateTimeOffset(steps, scale, days, offset) => {
                put_time(*steps, *scale, into);
                put_days(*days, into);
                into.put_i16_le(*offset);
            }
            Sql::DateTime(days, steps) => {
                into.put_i32_le(*days);
                into.put_u32_le(*steps);
            }
            Sql::SmallDateTime(days, minutes) => {
                into.put_u16_le(*days);
                into.put_u16_le(*minutes);
            }
            other => panic!("{} from {other:?}", self.name),
        }
    }
}

fn write_long(bytes: Option<&[u8]>, is_long: bool, into: &mut BytesMut) {
    match bytes {
        None if is_long => into.put_u64_le(u64::MAX),
        None => into.put_u16_le(u16::MAX),
        Some(bytes) if is_long => {
            into.put_u64_le(u64::try_from(bytes.len()).expect("the length fits its field"));
            for chunk in bytes.chunks(30_000) {
                into.put_u32_le(u32::try_from(chunk.len()).expect("the length fits its field"));
                into.put_slice(chunk);
            }
            into.put_u32_le(0);
        }
        Some(bytes) => {
            into.put_u16_le(u16::try_from(bytes.len()).expect("the length fits its field"));
            into.put_slice(bytes);
        }
    }
}

fn rescale(number: i128, from: u8, to: u8) -> i128 {
    if to >= from {
        number * 10_i128.pow(u32::from(to - from))
    } else {
        number / 10_i128.pow(u32::from(from - to))
    }
}

fn time_width(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

fn put_time(steps: u64, scale: u8, into: &mut BytesMut) {
    into.put_slice(&steps.to_le_bytes()[..time_width(scale)]);
}

fn put_days(days: u32, into: &mut BytesMut) {
    into.put_slice(&days.to_le_bytes()[..3]);
}

/// Reads a type and a value of that type. Returns the value, and whether the type is a `max` type.
pub(crate) fn read(from: &mut Bytes) -> (Sql, bool) {
    let kind = WireType::read(from);
    (kind.value(from), kind.length == 0xffff)
}

/// A type as a driver sends it.
#[derive(Clone, Debug)]
pub(crate) struct WireType {
    id: u8,
    length: u16,
    scale: u8,
    collation: &'static Collation,
}

impl WireType {
    pub(crate) fn read(from: &mut Bytes) -> Self {
        let id = from.get_u8();
        let (mut length, mut scale) = (0, 0);
        let mut collation = Collation::default();
        match id {
            0x1f | 0x28 => {}
            0x29..=0x2b => scale = from.get_u8(),
            0x6a | 0x6c => {
                length = u16::from(from.get_u8());
                from.advance(1);
                scale = from.get_u8();
            }
            0xf1 => assert_eq!(from.get_u8(), 0, "no schema collection"),
            0xa5 | 0xad => length = from.get_u16_le(),
            0xa7 | 0xaf | 0xe7 | 0xef => {
                length = from.get_u16_le();
                let wire = from.split_to(5);
                if matches!(id, 0xa7 | 0xaf) {
                    collation = Collation::from_wire(&wire);
                }
            }
            _ => length = u16::from(from.get_u8()),
        }
        Self { id, length, scale, collation }
    }

    pub(crate) fn value(&self, from: &mut Bytes) -> Sql {
        let is_long = self.id == 0xf1 || self.length == 0xffff;
        let bytes = match self.id {
            0x1f => None,
            _ if is_long => read_chunks(from),
            0xa5 | 0xad | 0xa7 | 0xaf | 0xe7 | 0xef => {
                let length = from.get_u16_le();
                (length != u16::MAX).then(|| from.split_to(usize::from(length)))
            }
            _ => {
                let length = from.get_u8();
                (length > 0).then(|| from.split_to(usize::from(length)))
            }
        };
        bytes.map_or(Sql::Null, |bytes| self.decode(bytes))
    }

    fn decode(&self, mut bytes: Bytes) -> Sql {
        match self.id {
            0x26 | 0x68 => Sql::Int(match bytes.len() {
                1 => i64::from(bytes.get_u8()),
                length => bytes.get_int_le(length),
            }),
            0x6d if bytes.len() == 4 => Sql::Float(f64::from(bytes.get_f32_le())),
            0x6d => Sql::Float(bytes.get_f64_le()),
            0x24 | 0xa5 | 0xad => Sql::Bytes(bytes.to_vec()),
            0x6a | 0x6c => {
                let sign = if bytes.get_u8() == 0 { -1 } else { 1 };
                let mut wide = [0; 16];
                wide[..bytes.len()].copy_from_slice(&bytes);
                Sql::Decimal(
                    sign * i128::try_from(u128::from_le_bytes(wide)).expect("38 digits fit i128"),
                    self.scale,
                )
            }
            0x6e if bytes.len() == 4 => Sql::Decimal(bytes.get_i32_le().into(), 4),
            0x6e => {
                let high = i64::from(bytes.get_i32_le());
                Sql::Decimal(((high << 32) | i64::from(bytes.get_u32_le())).into(), 4)
            }
            0x28 => Sql::Date(days(&mut bytes)),
            0x29 => Sql::Time(bytes.get_uint_le(time_width(self.scale)), self.scale),
            0x2a => {
                let steps = bytes.get_uint_le(time_width(self.scale));
                Sql::DateTime2(steps, self.scale, days(&mut bytes))
            }
            0x2b => {
                let steps = bytes.get_uint_le(time_width(self.scale));
                let days = days(&mut bytes);
                Sql::DateTimeOffset(steps, self.scale, days, bytes.get_i16_le())
            }
            0x6f if bytes.len() == 4 => Sql::SmallDateTime(bytes.get_u16_le(), bytes.get_u16_le()),
            0x6f => Sql::DateTime(bytes.get_i32_le(), bytes.get_u32_le()),
            0xa7 | 0xaf => Sql::Text(self.collation.decode(&bytes)),
            0xe7 | 0xef | 0xf1 => {
                let units: Vec<u16> =
                    bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
                let text = String::from_utf16(&units).expect("the text is UTF-16");
                Sql::Text(text.trim_start_matches('\u{feff}').to_owned())
            }
            other => panic!("type {other:#x}"),
        }
    }
}

fn days(bytes: &mut Bytes) -> u32 {
    u32::try_from(bytes.get_uint_le(3)).expect("three bytes fit u32")
}

fn read_chunks(from: &mut Bytes) -> Option<Bytes> {
    if from.get_u64_le() == u64::MAX {
        return None;
    }
    let mut whole = BytesMut::new();
    loop {
        let length = usize::try_from(from.get_u32_le()).expect("the length fits its field");
        if length == 0 {
            return Some(whole.freeze());
        }
        whole.extend_from_slice(&from.split_to(length));
    }
}
