//! Tests that the scanner finds messages between rows of every type, regardless of how the answer
//! is split.

use super::*;

/// A column: the type, and the bytes of a value.
type Column = (&'static [u8], &'static [u8]);

const COLUMNS_OF_ALL_TYPES: [Column; 16] = [
    (&[0x38], &[ERROR, 1, 0, 0]),
    (&[0x7f], &[ERROR; 8]),
    (&[0x1f], &[]),
    (&[0x28], &[3, ERROR, ERROR, ERROR]),
    (&[0x2a, 7], &[0]),
    (&[0x26, 4], &[4, INFO, INFO, INFO, INFO]),
    (&[0x6c, 17, 38, 2], &[5, 1, ERROR, 0, 0, 0]),
    (&[0xad, 4, 0], &[2, 0, ERROR, ERROR]),
    (&[0xe7, 20, 0, 9, 4, 0xd0, 0, 0x34], &[0xff, 0xff]),
    (&[0xa7, 0xff, 0xff, 9, 4, 0xd0, 0, 0x34], &[0xff; 8]),
    (
        &[0xa5, 0xff, 0xff],
        &[
            0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, ERROR, 7, 1, 0, 0, 0, 9, 0,
            0, 0, 0,
        ],
    ),
    (
        &[0x23, 9, 0, 0, 0, 9, 4, 0xd0, 0, 0x34, 1, 1, 0, b't', 0],
        &[2, 7, 7, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0, 0, 0, ERROR, INFO, ROW],
    ),
    (&[0x22, 9, 0, 0, 0, 0], &[0]),
    (&[0x62, 0x1f, 0, 0, 0], &[6, 0, 0, 0, 0x38, 0, ERROR, 0, 0, 0]),
    (
        &[0xf0, 0xff, 0xff, 0, 1, b's', 0, 1, b'g', 0, 1, 0, b'v', 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, ERROR, ERROR, 0, 0, 0, 0],
    ),
    (&[0xf1, 1, 0, 0, 1, 0, b'c', 0], &[0xff; 8]),
];

fn message(token: u8, number: u32, text: &str) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend_from_slice(&[1, 16]);
    body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    body.extend_from_slice(&[0, 0, 5, 0, 0, 0]);
    let mut token = vec![token];
    token.extend_from_slice(&u16::try_from(body.len()).unwrap().to_le_bytes());
    token.extend_from_slice(&body);
    token
}

/// Returns an answer with rows of these columns, and messages before, between and after the rows.
fn answer(columns: &[Column]) -> Vec<u8> {
    let mut answer = message(INFO, 0, "before");
    answer.extend_from_slice(&[COLUMNS, u8::try_from(columns.len()).unwrap(), 0]);
    for (kind, _) in columns {
        answer.extend_from_slice(&[0; 6]);
        answer.extend_from_slice(kind);
        answer.extend_from_slice(&[1, b'c', 0]);
    }
    answer.extend_from_slice(&[0xa9, 2, 0, ERROR, 0]);
    for _ in 0..2 {
        answer.extend_from_slice(&[ROW]);
        for (_, value) in columns {
            answer.extend_from_slice(value);
        }
    }
    // A row in which only the second and the last column are not NULL.
    let last = columns.len() - 1;
    let mut nulls = vec![0xff; columns.len().div_ceil(8)];
    nulls[0] &= !0b10;
    nulls[last / 8] &= !(1 << (last % 8));
    answer.push(ROW_WITH_BITMAP);
    answer.extend_from_slice(&nulls);
    answer.extend_from_slice(columns[1].1);
    answer.extend_from_slice(columns[last].1);
    // A row in which every column is NULL.
    answer.extend_from_slice(&[ROW_WITH_BITMAP, 0xff, 0xff]);
    answer.extend_from_slice(&message(ERROR, 2627, "between"));
    answer.extend_from_slice(&[0xff, 0, 0, 0, 0, ERROR, 0, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(&[0xe3, 11, 0, 8, 8, ERROR, 2, 3, 4, 5, 6, 7, 8, 0]);
    answer.extend_from_slice(&[RETURN_STATUS, ERROR, 1, 0, 0]);
    answer.extend_from_slice(&[RETURN_VALUE, 0, 0, 1, b'o', 0, 1, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(COLUMNS_OF_ALL_TYPES[10].0);
    answer.extend_from_slice(COLUMNS_OF_ALL_TYPES[10].1);
    answer.extend_from_slice(&[COLUMNS, 0xff, 0xff, COLUMNS, 0, 0, ROW]);
    answer.extend_from_slice(&message(ERROR, 50422, &"x".repeat(2000)));
    answer.extend_from_slice(&[0xfe, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    answer
}

fn found(scanner: &mut TokenScanner) -> Vec<(bool, u32)> {
    let found = scanner.take_found().into_iter();
    found.map(|one| (one.is_error, one.message.number)).collect()
}

#[test]
fn messages_are_found_however_the_answer_is_split() {
    check_splits(&answer(&COLUMNS_OF_ALL_TYPES));
    // The rows of these columns, none of which arrives in chunks, are skipped as a whole.
    let mut columns = COLUMNS_OF_ALL_TYPES[..9].to_vec();
    columns.extend_from_slice(&COLUMNS_OF_ALL_TYPES[11..14]);
    check_splits(&answer(&columns));
}

fn check_splits(answer: &[u8]) {
    let expected = [(false, 0), (true, 2627), (true, 50422)];
    for size in [1, 2, 3, 7, 255, 256, 257, 4096] {
        let mut scanner = TokenScanner::default();
        for chunk in answer.chunks(size) {
            scanner.follow(chunk);
        }
        assert_eq!(found(&mut scanner), expected, "{size}");
        assert!(matches!(scanner.position, TokenPosition::Token), "{size}: {:?}", scanner.position);
        assert!(scanner.incomplete.is_empty() && scanner.skip == 0, "{size}");
    }
    for cut in 0..answer.len() {
        let mut scanner = TokenScanner::default();
        let (first, rest) = answer.split_at(cut);
        scanner.follow(first);
        scanner.follow(rest);
        assert_eq!(found(&mut scanner), expected, "{cut}");
    }
}

#[test]
fn an_unknown_token_or_type_ends_the_scan_of_its_answer_only() {
    let unknown: [&[u8]; 4] = [
        &[0x00],
        &[COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0xf9],
        // A message that is shorter than its text.
        &[ERROR, 8, 0, 1, 0, 0, 0, 1, 16, 9, 0],
        // The description of a column that is too long.
        &[COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff],
    ];
    for start in unknown {
        let mut scanner = TokenScanner::default();
        scanner.follow(start);
        scanner.follow(&vec![0xf0; 400_000]);
        scanner.follow(&message(ERROR, 2627, "not found"));
        assert!(matches!(scanner.position, TokenPosition::Unknown), "{start:?}");
        assert!(scanner.incomplete.len() <= PART_BYTES_MAX + STEP_BYTES, "{start:?}");
        scanner.restart();
        scanner.follow(&message(ERROR, 547, "found"));
        assert_eq!(found(&mut scanner), [(true, 547)], "{start:?}");
    }
}

#[test]
fn columns_in_utf8_are_found_in_their_result_sets_however_the_answer_is_split() {
    let plain: &[u8] = &[0xa7, 20, 0, 9, 4, 0xd0, 0, 0x34];
    let utf8: &[u8] = &[0xa7, 20, 0, 9, 4, 0xd0, 0x24, 0];
    // The same flag in the collation of an nvarchar has no meaning.
    let wide: &[u8] = &[0xe7, 20, 0, 9, 4, 0xd0, 0x24, 0];
    let mut answer = Vec::new();
    for columns in [&[plain][..], &[wide, utf8, plain, utf8], &[], &[utf8]] {
        answer.extend_from_slice(&[COLUMNS, u8::try_from(columns.len()).unwrap(), 0]);
        for kind in columns {
            answer.extend_from_slice(&[0; 6]);
            answer.extend_from_slice(kind);
            answer.extend_from_slice(&[1, b'c', 0]);
        }
    }
    // A result set whose columns are not described.
    answer.extend_from_slice(&[COLUMNS, 0xff, 0xff]);
    answer.extend_from_slice(&[COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(utf8);
    answer.extend_from_slice(&[1, b'c', 0, ROW, 2, 0, 0xc3, 0xa9]);
    for cut in 0..answer.len() {
        let mut scanner = TokenScanner::default();
        let (first, rest) = answer.split_at(cut);
        scanner.follow(first);
        let mut found = scanner.take_utf8_columns();
        scanner.follow(rest);
        found.extend(scanner.take_utf8_columns());
        let places: Vec<_> = found.iter().map(|one| (one.set, one.column)).collect();
        assert_eq!(places, [(1, 1), (1, 3), (3, 0), (5, 0)], "{cut}");
        // The next answer has result sets of its own.
        scanner.restart();
        scanner.follow(&answer);
        assert_eq!(scanner.take_utf8_columns().first().map(|one| one.set), Some(1), "{cut}");
    }
}
