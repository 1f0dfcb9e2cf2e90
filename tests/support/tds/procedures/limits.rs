//! The procedures with the smallest and largest values of types.

use bytes::BufMut;

use super::super::reply::TdsReply;
use super::super::values::Sql;
use super::{DONE, FakeResult, GivenArguments};

/// The procedures in this file.
pub(super) const NAMES: [&str; 5] =
    ["money_in_variant", "money_as_decimal", "money_as_output", "cells", "first_and_last"];

/// The type of `money` in a `sql_variant`, and the number of bytes that describe it (MS-TDS 2.2.5.5.4).
const MONEY: [u8; 2] = [0x3c, 0];
/// The columns of `cells`.
const CELLS: [(&str, &str); 17] = [
    ("n", "int"),
    ("a_bit", "bit"),
    ("a_tinyint", "tinyint"),
    ("a_smallint", "smallint"),
    ("a_bigint", "bigint"),
    ("a_money", "decimal(19, 4)"),
    ("a_smallmoney", "smallmoney"),
    ("a_real", "real"),
    ("a_float", "float"),
    ("a_date", "date"),
    ("a_time", "time(7)"),
    ("a_datetime", "datetime"),
    ("a_smalldatetime", "smalldatetime"),
    ("a_datetime2", "datetime2(7)"),
    ("a_datetimeoffset", "datetimeoffset(6)"),
    ("a_uniqueidentifier", "uniqueidentifier"),
    ("a_binary", "binary(4)"),
];
/// The columns of `first_and_last`.
const MOMENTS: [(&str, &str); 3] = [
    ("a_time", "time(7)"),
    ("a_datetime2", "datetime2(7)"),
    ("a_datetimeoffset", "datetimeoffset(6)"),
];

/// The days from 0001-01-01 to 9999-12-31.
const LAST_DAY: u32 = 3_652_058;
/// The last steps of a day, of 100 ns and of 1 µs.
const LAST_OF_7_DIGITS: u64 = 863_999_999_999;
const LAST_OF_6_DIGITS: u64 = 86_399_999_999;
/// The largest offset in minutes.
const OFFSET_MAX: i16 = 14 * 60;

pub(super) fn run(name: &str, arguments: &GivenArguments<'_>, reply: &mut TdsReply) -> FakeResult {
    let value = arguments.get("@v").cloned().unwrap_or(Sql::Null);
    match name {
        "money_as_decimal" => {
            reply.single("v", "decimal(19, 4)", value);
        }
        "money_as_output" => return FakeResult::Returned(0, vec![("@out".to_owned(), value)]),
        "money_in_variant" => money_in_variant(&value, reply),
        "cells" => {
            let Some(Sql::Table(rows)) = arguments.get("@rows") else { panic!("no table") };
            reply.columns(&CELLS);
            for row in rows {
                let cells = CELLS.iter().zip(row).map(|((_, kind), cell)| (*kind, cell.clone()));
                reply.row(&cells.collect::<Vec<_>>());
            }
        }
        _ => {
            // A datetimeoffset is sent with its time in UTC.
            let first = [
                Sql::Time(1, 7),
                Sql::DateTime2(1, 7, 0),
                Sql::DateTimeOffset(0, 6, 0, OFFSET_MAX),
            ];
            let last = [
                Sql::Time(LAST_OF_7_DIGITS, 7),
                Sql::DateTime2(LAST_OF_7_DIGITS, 7, LAST_DAY),
                Sql::DateTimeOffset(LAST_OF_6_DIGITS, 6, LAST_DAY, -OFFSET_MAX),
            ];
            for moments in [first, last] {
                let cells = MOMENTS.iter().zip(moments).map(|((_, kind), cell)| (*kind, cell));
                reply.columns(&MOMENTS).row(&cells.collect::<Vec<_>>());
            }
        }
    }
    DONE
}

/// Writes a `sql_variant` that holds `money`: the length, the type, and the upper and the lower half.
fn money_in_variant(value: &Sql, reply: &mut TdsReply) {
    let Sql::Decimal(scaled, 4) = value else { panic!("{value:?} is no money") };
    let scaled = i64::try_from(*scaled).expect("the value fits money");
    reply.columns(&[("v", "sql_variant")]).0.put_u8(0xd1);
    reply.0.put_u32_le(10);
    reply.0.put_slice(&MONEY);
    reply.0.put_i32_le(i32::try_from(scaled >> 32).expect("the half fits 32 bits"));
    reply.0.put_u32_le(u32::try_from(scaled & 0xffff_ffff).expect("the half fits 32 bits"));
}
