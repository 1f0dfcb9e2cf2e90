//! Promise: times with seven digits after the decimal point keep all of them, from the beginning to
//! the end of each type. Babelfish stores only six.

use fjord::procedures::OwnedCell;

use super::super::ProcedureCaller;
use super::type_limits::{TypeLimits, becomes, limits, same, words};
use super::walk;
use crate::support::mssql_server::{fake_server, servers};

fn times() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_time_7",
            vec![
                same("00:00:00"),
                same("00:00:00.0000001"),
                same("23:59:59.9999999"),
                becomes("12:00:00.00000004", "12:00:00"),
                becomes("12:00:00.00000005", "12:00:00.0000001"),
                // There is no next day.
                becomes("23:59:59.99999995", "23:59:59.9999999"),
            ],
            vec![(words("24:00:00.0000000"), "expected HH:MM:SS for time")],
        ),
        limits(
            "echo_datetime2_7",
            vec![
                same("0001-01-01T00:00:00Z"),
                same("0001-01-01T00:00:00.0000001Z"),
                same("9999-12-31T23:59:59.9999999Z"),
                becomes("0001-01-01T14:00:00+14:00", "0001-01-01T00:00:00Z"),
                becomes("9999-12-31T09:59:59.9999999-14:00", "9999-12-31T23:59:59.9999999Z"),
                becomes("2024-12-31T23:59:59.99999995Z", "2025-01-01T00:00:00Z"),
            ],
            vec![
                (words("9999-12-31T23:59:59.99999995Z"), "after 9999-12-31, the end of datetime2"),
                (
                    words("9999-12-31T23:59:59.9999999-00:01"),
                    "outside datetime2: 0001-01-01 to 9999-12-31 in UTC",
                ),
            ],
        ),
    ]
}

fn offsets() -> Vec<TypeLimits> {
    let outside = "outside datetimeoffset: 0001-01-01 to 9999-12-31 in UTC";
    let offset = "outside -14:00 to +14:00, the offsets of datetimeoffset";
    let after = "after 9999-12-31, the end of datetimeoffset";
    vec![limits(
        "echo_datetimeoffset_7",
        vec![
            same("0001-01-01T00:00:00+00:00"),
            same("0001-01-01T00:00:00.0000001+00:00"),
            same("9999-12-31T23:59:59.9999999+00:00"),
            becomes("2024-02-29T12:34:56.1234567Z", "2024-02-29T12:34:56.1234567+00:00"),
            same("2024-01-01T00:00:00.1234567+14:00"),
            same("2024-12-31T23:59:59.1234567-14:00"),
            same("2024-01-01T00:00:00-00:01"),
            // The first and the last moment in UTC, and the last moment at an offset.
            same("0001-01-01T14:00:00+14:00"),
            same("9999-12-31T09:59:59.9999999-14:00"),
            same("9999-12-31T23:59:59.9999999+14:00"),
        ],
        vec![
            (words("2024-01-01T00:00:00+14:01"), offset),
            (words("2024-01-01T00:00:00-14:01"), offset),
            (words("0001-01-01T13:59:59.9999999+14:00"), outside),
            (words("9999-12-31T10:00:00-14:00"), outside),
            (words("9999-12-31T23:59:59.99999995Z"), after),
            // The moment is within the range in UTC, but the rounded date at its offset is not.
            (words("9999-12-31T23:59:59.99999995+14:00"), after),
        ],
    )]
}

/// Fails if a digit is lost in one direction, if rounding leaves the type's range, or if a moment that
/// only its offset puts outside the range is sent.
#[tokio::test]
async fn all_seven_digits_are_kept_up_to_the_ends_of_a_type() {
    for server in servers().await {
        if !server.is_babelfish {
            walk(&ProcedureCaller::new(&server), server.name, times()).await;
        }
    }
    let server = fake_server().await;
    walk(&ProcedureCaller::new(&server), server.name, offsets()).await;
}

/// The procedure has no arguments, so the reading of values is tested apart from the writing. Fails if
/// both use the same wrong resolution, first day or order of time and offset.
#[tokio::test]
async fn the_values_of_the_server_are_read_exactly() {
    for server in servers().await {
        if server.is_babelfish {
            continue;
        }
        let answer = ProcedureCaller::new(&server).call("first_and_last", &[]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", server.name));
        let texts =
            |texts: [&str; 3]| vec![texts.map(|text| OwnedCell::Text(text.to_owned())).to_vec()];
        let first = texts([
            "00:00:00.0000001",
            "0001-01-01T00:00:00.0000001Z",
            "0001-01-01T14:00:00+14:00",
        ]);
        let last = texts([
            "23:59:59.9999999",
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T09:59:59.999999-14:00",
        ]);
        assert_eq!(answer.sets, [first, last], "{}", server.name);
    }
}
