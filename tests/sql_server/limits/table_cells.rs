//! Promise: the cells of a table take the smallest and largest values of their types. A cell outside
//! its type is refused before the call is sent, with its place and the reason.

use std::sync::Arc;

use fjord::catalogue::{ParameterType, ParameterValue};
use fjord::procedures::{Argument, BackendErrorKind, BadArgument, OwnedCell};

use super::super::{ProcedureCaller, given, unsent_error};
use super::type_limits::{bytes, digits, number, same, words};
use crate::support::mssql_server::servers;

/// The columns of the table type, after the row's number.
const COLUMNS: [&str; 16] = [
    "a_bit",
    "a_tinyint",
    "a_smallint",
    "a_bigint",
    "a_money",
    "a_smallmoney",
    "a_real",
    "a_float",
    "a_date",
    "a_time",
    "a_datetime",
    "a_smalldatetime",
    "a_datetime2",
    "a_datetimeoffset",
    "a_uniqueidentifier",
    "a_binary",
];

type CellCase = (ParameterValue<'static>, OwnedCell);

fn bit(bit: bool) -> CellCase {
    (ParameterValue::Boolean(bit), OwnedCell::Bool(bit))
}

fn integer(number: i64) -> CellCase {
    (ParameterValue::Integer(number), OwnedCell::Int(number))
}

fn real(number: f32) -> CellCase {
    (ParameterValue::Number(number.into()), OwnedCell::Number(number.to_string()))
}

fn double(number: f64) -> CellCase {
    (ParameterValue::Number(number), OwnedCell::Float(number))
}

fn binary(byte: u8) -> CellCase {
    (ParameterValue::Binary(vec![byte; 4].into()), OwnedCell::Binary(vec![byte; 4]))
}

/// Returns the rows with the smallest values, the largest values and NULLs.
fn rows() -> [Vec<CellCase>; 3] {
    let smallest = vec![
        bit(false),
        integer(0),
        integer(-32768),
        integer(i64::MIN),
        number("-922337203685477.5808"),
        number("-214748.3648"),
        real(f32::MIN),
        double(f64::MIN),
        same("0001-01-01"),
        same("00:00:00"),
        same("1753-01-01T00:00:00Z"),
        same("1900-01-01T00:00:00Z"),
        same("0001-01-01T00:00:00Z"),
        same("0001-01-01T14:00:00+14:00"),
        same("00000000-0000-0000-0000-000000000000"),
        binary(0),
    ];
    let largest = vec![
        bit(true),
        integer(255),
        integer(32767),
        integer(i64::MAX),
        number("922337203685477.5807"),
        number("214748.3647"),
        real(f32::MAX),
        double(f64::MAX),
        same("9999-12-31"),
        same("23:59:59.9999999"),
        same("9999-12-31T23:59:59.997Z"),
        same("2079-06-06T23:59:00Z"),
        same("9999-12-31T23:59:59.9999999Z"),
        same("9999-12-31T09:59:59.999999-14:00"),
        same("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        binary(255),
    ];
    let nulls = vec![(ParameterValue::Null, OwnedCell::Null); COLUMNS.len()];
    [smallest, largest, nulls]
}

/// Builds the table, whose rows are numbered.
fn table(rows: Vec<Vec<ParameterValue<'static>>>) -> Argument {
    let rows = (1..).zip(rows).map(|(n, mut row)| {
        row.insert(0, ParameterValue::Integer(n));
        row
    });
    let rows = ParameterValue::Table(rows.collect());
    let columns = std::iter::once("n").chain(COLUMNS);
    let columns: Arc<[_]> = columns.map(|name| (name.into(), ParameterType::String)).collect();
    Argument { columns, ..given("rows", rows) }
}

/// Fails if a cell is written with the width, scale or length of another type, or if a NULL in a table
/// is written like a NULL outside of one. Babelfish cannot return the moments with seven digits.
#[tokio::test]
async fn a_cell_of_every_type_takes_its_limits_and_null() {
    for server in servers().await {
        if server.is_babelfish {
            continue;
        }
        let caller = ProcedureCaller::new(&server);
        let values = rows().map(|row| row.into_iter().map(|(value, _)| value).collect());
        let answer = caller.call("cells", &[table(values.to_vec())]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        let [rows_returned] = answer.sets.as_slice() else { panic!("{:?}", answer.sets) };
        assert_eq!(rows_returned.len(), 3, "{}", server.name);
        for (n, (returned, row)) in (1..).zip(rows_returned.iter().zip(rows())) {
            let names = std::iter::once("n").chain(COLUMNS);
            let cells = std::iter::once(OwnedCell::Int(n)).chain(row.into_iter().map(|one| one.1));
            for ((name, returned), cell) in names.zip(returned).zip(cells) {
                assert_eq!(*returned, cell, "{}: {name} in row {n}", server.name);
            }
        }
    }
}

/// Fails if a bad cell is sent, or if the reason or the place of one of them is missing.
#[tokio::test]
async fn a_cell_outside_its_type_is_refused_with_its_place() {
    let whole = ParameterValue::Integer;
    let refused: [(ParameterValue<'static>, &str); 16] = [
        (whole(2), "expected true, false, 0 or 1 for bit"),
        (whole(256), "outside tinyint: 0 to 255"),
        (whole(32768), "outside smallint: -32768 to 32767"),
        (
            digits("9223372036854775808"),
            "outside bigint: -9223372036854775808 to 9223372036854775807",
        ),
        (
            digits("922337203685477.5808"),
            "outside money: -922337203685477.5808 to 922337203685477.5807",
        ),
        (digits("214748.3648"), "outside smallmoney: -214748.3648 to 214748.3647"),
        (ParameterValue::Number(3.5e38), "outside real: -3.40e38 to 3.40e38"),
        (digits("1e309"), "outside float: -1.79e308 to 1.79e308"),
        (words("0000-12-31"), "outside date: 0001-01-01 to 9999-12-31"),
        (words("24:00:00"), "expected HH:MM:SS for time"),
        (words("1752-12-31T23:59:59Z"), "before 1753-01-01, the first day of datetime"),
        (words("1899-12-31T23:59:00Z"), "before 1900-01-01, the first day of smalldatetime"),
        (words("9999-12-31T23:59:59.99999995Z"), "after 9999-12-31, the end of datetime2"),
        (
            words("2024-01-01T00:00:00+14:01"),
            "outside -14:00 to +14:00, the offsets of datetimeoffset(6)",
        ),
        (words("0"), "expected a UUID for uniqueidentifier"),
        (bytes(5), "longer than binary(4): 5 bytes"),
    ];
    for server in servers().await {
        let caller = ProcedureCaller::new(&server);
        let [smallest, ..] = rows();
        let smallest = smallest.into_iter().map(|(value, _)| value).collect();
        let bad_row = refused.iter().map(|(value, _)| value.clone()).collect();
        let error = unsent_error(caller.call("cells", &[table(vec![smallest, bad_row])]).await);
        let expected = COLUMNS.iter().zip(&refused).map(|(column, (_, reason))| BadArgument {
            argument: "rows".to_owned(),
            cell: Some((1, (*column).to_owned())),
            reason: match *column {
                // Babelfish has at most six fractional digits.
                "a_time" | "a_datetime2" if server.is_babelfish => format!("{reason}(6)"),
                _ => (*reason).to_owned(),
            },
        });
        let expected = BackendErrorKind::Arguments(expected.collect());
        assert_eq!(error, expected, "{}", server.name);
    }
}
