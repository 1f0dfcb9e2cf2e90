//! The smallest and largest values of each SQL type, and values outside these limits with the reasons for which they are
//! refused.

use fjord::catalogue::ParameterValue;
use fjord::procedures::OwnedCell;

/// The limits of a type: the procedure, the values that are returned as they were sent, with their
/// cells, and the values that are refused, with the reasons.
pub(super) struct TypeLimits {
    pub(super) procedure: &'static str,
    pub(super) fits: Vec<(ParameterValue<'static>, OwnedCell)>,
    pub(super) refused: Vec<(ParameterValue<'static>, &'static str)>,
}

pub(super) fn limits(
    procedure: &'static str,
    fits: Vec<(ParameterValue<'static>, OwnedCell)>,
    refused: Vec<(ParameterValue<'static>, &'static str)>,
) -> TypeLimits {
    TypeLimits { procedure, fits, refused }
}

fn integer(number: i64) -> (ParameterValue<'static>, OwnedCell) {
    (ParameterValue::Integer(number), OwnedCell::Int(number))
}

pub(super) fn digits(text: &str) -> ParameterValue<'static> {
    ParameterValue::Decimal(text.to_owned().into())
}

pub(super) fn number(text: &str) -> (ParameterValue<'static>, OwnedCell) {
    (digits(text), OwnedCell::Number(text.to_owned()))
}

pub(super) fn words(text: &str) -> ParameterValue<'static> {
    ParameterValue::Text(text.to_owned().into())
}

pub(super) fn same(text: &str) -> (ParameterValue<'static>, OwnedCell) {
    (words(text), OwnedCell::Text(text.to_owned()))
}

pub(super) fn becomes(sent: &str, returned: &str) -> (ParameterValue<'static>, OwnedCell) {
    (words(sent), OwnedCell::Text(returned.to_owned()))
}

pub(super) fn bytes(length: usize) -> ParameterValue<'static> {
    ParameterValue::Binary(vec![7; length].into())
}

pub(super) fn same_bytes(length: usize) -> (ParameterValue<'static>, OwnedCell) {
    (bytes(length), OwnedCell::Binary(vec![7; length]))
}

pub(super) fn integers() -> Vec<TypeLimits> {
    let bit = |bit| (ParameterValue::Boolean(bit), OwnedCell::Bool(bit));
    let whole = |number| ParameterValue::Integer(number);
    vec![
        limits(
            "echo_bit",
            vec![bit(false), bit(true)],
            vec![
                (whole(-1), "expected true, false, 0 or 1 for bit"),
                (whole(2), "expected true, false, 0 or 1 for bit"),
            ],
        ),
        limits(
            "echo_tinyint",
            vec![integer(0), integer(255)],
            vec![
                (whole(-1), "outside tinyint: 0 to 255"),
                (whole(256), "outside tinyint: 0 to 255"),
                (digits("1.5"), "tinyint cannot hold a fraction"),
            ],
        ),
        limits(
            "echo_smallint",
            vec![integer(-32768), integer(32767)],
            vec![
                (whole(-32769), "outside smallint: -32768 to 32767"),
                (whole(32768), "outside smallint: -32768 to 32767"),
            ],
        ),
        limits(
            "echo_int",
            vec![integer(-2_147_483_648), integer(2_147_483_647)],
            vec![
                (whole(-2_147_483_649), "outside int: -2147483648 to 2147483647"),
                (whole(2_147_483_648), "outside int: -2147483648 to 2147483647"),
            ],
        ),
        limits(
            "echo_bigint",
            vec![integer(i64::MIN), integer(i64::MAX)],
            vec![
                (
                    digits("-9223372036854775809"),
                    "outside bigint: -9223372036854775808 to 9223372036854775807",
                ),
                (
                    digits("9223372036854775808"),
                    "outside bigint: -9223372036854775808 to 9223372036854775807",
                ),
            ],
        ),
    ]
}

pub(super) fn numbers() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_decimal_38_10",
            vec![
                number("-9999999999999999999999999999.9999999999"),
                number("9999999999999999999999999999.9999999999"),
                number("0.0000000001"),
            ],
            vec![
                (
                    digits("10000000000000000000000000000"),
                    "outside decimal(38, 10): at most 28 digits before the decimal point",
                ),
                (
                    digits("0.00000000001"),
                    "more than 10 digits after the decimal point of decimal(38, 10)",
                ),
            ],
        ),
        limits(
            "echo_numeric_9_2",
            vec![number("-9999999.99"), number("9999999.99")],
            vec![
                (
                    digits("10000000.00"),
                    "outside numeric(9, 2): at most 7 digits before the decimal point",
                ),
                (
                    digits("-9999999.991"),
                    "more than 2 digits after the decimal point of numeric(9, 2)",
                ),
            ],
        ),
        limits(
            "echo_money",
            vec![number("-549755813887.9999"), number("549755813887.9999")],
            vec![
                (
                    digits("922337203685477.5808"),
                    "outside money: -922337203685477.5808 to 922337203685477.5807",
                ),
                (
                    digits("-922337203685477.5809"),
                    "outside money: -922337203685477.5808 to 922337203685477.5807",
                ),
                (digits("0.00001"), "more than 4 digits after the decimal point of money"),
            ],
        ),
        limits(
            "echo_smallmoney",
            vec![number("-214748.3648"), number("214748.3647")],
            vec![
                (digits("214748.3648"), "outside smallmoney: -214748.3648 to 214748.3647"),
                (digits("-214748.3649"), "outside smallmoney: -214748.3648 to 214748.3647"),
            ],
        ),
    ]
}

/// Types without digits before the decimal point.
pub(super) fn fractions() -> Vec<TypeLimits> {
    vec![limits(
        "echo_decimal_38_38",
        vec![
            number("0.99999999999999999999999999999999999999"),
            number("-0.00000000000000000000000000000000000001"),
            number("0.50000000000000000000000000000000000000"),
            number("0.00000000000000000000000000000000000000"),
        ],
        vec![
            (digits("1"), "outside decimal(38, 38): at most 0 digits before the decimal point"),
            (
                digits("0.000000000000000000000000000000000000001"),
                "more than 38 digits after the decimal point of decimal(38, 38)",
            ),
        ],
    )]
}

pub(super) fn doubles() -> Vec<TypeLimits> {
    let double = |number| (ParameterValue::Number(number), OwnedCell::Float(number));
    vec![
        limits(
            "echo_real",
            vec![
                (
                    ParameterValue::Number(f64::from(f32::MAX)),
                    OwnedCell::Number(f32::MAX.to_string()),
                ),
                (
                    ParameterValue::Number(f64::from(f32::MIN_POSITIVE)),
                    OwnedCell::Number(f32::MIN_POSITIVE.to_string()),
                ),
            ],
            vec![
                (ParameterValue::Number(3.5e38), "outside real: -3.40e38 to 3.40e38"),
                (ParameterValue::Number(-3.5e38), "outside real: -3.40e38 to 3.40e38"),
            ],
        ),
        limits(
            "echo_float",
            vec![double(f64::MAX), double(f64::MIN), double(f64::MIN_POSITIVE)],
            vec![(digits("1e309"), "outside float: -1.79e308 to 1.79e308")],
        ),
    ]
}

pub(super) fn texts() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_char_10",
            vec![same("0123456789"), becomes("", "          ")],
            vec![(words("0123456789a"), "longer than char(10)")],
        ),
        limits(
            "echo_varchar_5",
            vec![same(""), same("é€abc")],
            vec![
                (words("abcdef"), "longer than varchar(5)"),
                (words("€abcde"), "longer than varchar(5): 6 bytes in code page 1252"),
                (words("日"), "U+65E5 cannot be represented in code page 1252"),
            ],
        ),
        limits(
            "echo_nchar_10",
            vec![same("ääääääääää")],
            vec![(words("𝄞𝄞𝄞𝄞𝄞a"), "longer than nchar(10)")],
        ),
        limits(
            "echo_nvarchar_50",
            vec![same(&"ä".repeat(50))],
            vec![(words(&"ä".repeat(51)), "longer than nvarchar(50)")],
        ),
        limits(
            "echo_binary_4",
            vec![same_bytes(4)],
            vec![
                (bytes(5), "longer than binary(4): 5 bytes"),
                (words("x"), "expected binary data for binary(4)"),
            ],
        ),
        limits(
            "echo_varbinary_50",
            vec![same_bytes(0), same_bytes(50)],
            vec![(bytes(51), "longer than varbinary(50): 51 bytes")],
        ),
        limits("echo_varbinary_max", vec![same_bytes(0), same_bytes(8001)], Vec::new()),
        limits("echo_xml", vec![same(""), same("<a/>")], vec![(bytes(1), "expected text for xml")]),
        limits(
            "echo_uniqueidentifier",
            vec![
                same("00000000-0000-0000-0000-000000000000"),
                same("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ],
            vec![(words("0"), "expected a UUID for uniqueidentifier")],
        ),
    ]
}

/// Text in a `sql_variant`, which Babelfish 4 stores as question marks.
pub(super) fn wide_variants() -> Vec<TypeLimits> {
    vec![limits("echo_sql_variant", vec![same(&"日".repeat(1333))], Vec::new())]
}

/// Values of a `sql_variant`. Each has the type of its JSON value.
pub(super) fn variants() -> Vec<TypeLimits> {
    let double = |number| (ParameterValue::Number(number), OwnedCell::Float(number));
    let long = "1".repeat(38);
    vec![limits(
        "echo_sql_variant",
        vec![
            integer(i64::MIN),
            integer(i64::MAX),
            double(f64::MAX),
            double(-0.5),
            number(&long),
            number("-0.1111111111111111111111111111111111111"),
            same(""),
            same(&"a".repeat(4000)),
            same_bytes(1),
            same_bytes(8000),
        ],
        vec![
            (words(&"a".repeat(4001)), "longer than a sql_variant: 4001 bytes, at most 4000"),
            (bytes(8001), "longer than a sql_variant: 8001 bytes, at most 8000"),
            (
                digits("0.11111111111111111111111111111111111111"),
                "more than 37 digits after the decimal point of sql_variant",
            ),
        ],
    )]
}

pub(super) fn moments() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_date",
            vec![same("0001-01-01"), same("9999-12-31")],
            vec![
                (words("0000-12-31"), "outside date: 0001-01-01 to 9999-12-31"),
                (words("2023-02-29"), "expected YYYY-MM-DD for date"),
            ],
        ),
        limits(
            "echo_time_7",
            vec![same("00:00:00"), same("23:59:59.999999")],
            vec![
                (words("24:00:00"), "expected HH:MM:SS for time"),
                (words("23:59:60"), "time cannot hold a leap second"),
            ],
        ),
        limits(
            "echo_datetime",
            vec![
                same("1753-01-01T00:00:00Z"),
                same("9999-12-31T23:59:59.997Z"),
                becomes("2024-02-29T12:34:56.9989Z", "2024-02-29T12:34:57Z"),
            ],
            vec![
                (words("1752-12-31T23:59:59.99Z"), "before 1753-01-01, the first day of datetime"),
                (
                    words("9999-12-31T23:59:59.999Z"),
                    "after 9999-12-31T23:59:59.997, the end of datetime",
                ),
            ],
        ),
        limits(
            "echo_smalldatetime",
            vec![
                same("1900-01-01T00:00:00Z"),
                same("2079-06-06T23:59:00Z"),
                becomes("2024-02-29T12:34:29.998Z", "2024-02-29T12:34:00Z"),
                becomes("2024-02-29T12:34:29.999Z", "2024-02-29T12:35:00Z"),
            ],
            vec![
                (
                    words("1899-12-31T23:59:29Z"),
                    "before 1900-01-01, the first day of smalldatetime",
                ),
                (words("2079-06-06T23:59:30Z"), "after 2079-06-06T23:59, the end of smalldatetime"),
            ],
        ),
    ]
}

pub(super) fn long_moments() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_datetime2_7",
            vec![same("0001-01-01T00:00:00Z"), same("9999-12-31T23:59:59.999999Z")],
            vec![(
                words("0001-01-01T00:00:00+00:01"),
                "outside datetime2: 0001-01-01 to 9999-12-31 in UTC",
            )],
        ),
        limits(
            "echo_datetimeoffset_6",
            vec![
                same("2024-01-01T00:00:00+14:00"),
                same("2024-01-01T00:00:00-14:00"),
                same("9999-12-31T23:59:59.999999+00:00"),
            ],
            vec![
                (
                    words("2024-01-01T00:00:00+14:01"),
                    "outside -14:00 to +14:00, the offsets of datetimeoffset(6)",
                ),
                (
                    words("9999-12-31T23:59:59.9999999Z"),
                    "after 9999-12-31, the end of datetimeoffset(6)",
                ),
            ],
        ),
    ]
}
