//! Tests the classes of error numbers against docs/ERRORS.md, and the choice among several errors.

use super::*;

/// The documentation of the error numbers.
const DOCUMENT: &str = include_str!("../../../../docs/ERRORS.md");
/// The heading of the table of error numbers, and the beginning of the text after the table.
const HEADING: &str = "### SQL Server's error numbers";
/// The highest number of SQL Server's own errors.
const NUMBER_MAX: u32 = 49_999;

/// Returns the word for a class in the table.
fn word(class: ServerErrorClass) -> Option<&'static str> {
    match class {
        ServerErrorClass::Conflict => Some("conflict"),
        ServerErrorClass::SnapshotConflict => Some("snapshot conflict"),
        ServerErrorClass::BadValue => Some("bad value"),
        ServerErrorClass::Mismatch => Some("mismatch"),
        ServerErrorClass::Permission => Some("permission"),
        ServerErrorClass::Deadlock => Some("deadlock"),
        ServerErrorClass::Transient => Some("transient"),
        ServerErrorClass::Other => None,
    }
}

/// Returns the numbers and classes in the table. A row has one number, or a range of numbers.
fn documented() -> Vec<(std::ops::RangeInclusive<u32>, String)> {
    let (_, section) = DOCUMENT.split_once(HEADING).expect("the heading");
    let section = section.split("\n#").next().expect("a section");
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let numbers = cells.next()?;
        let (first, last) = numbers.split_once('–').unwrap_or((numbers, numbers));
        let class = cells.next()?.to_owned();
        let message = cells.next()?;
        let numbers = first.parse().ok()?..=last.parse().ok()?;
        let reference = cells.next().unwrap_or_default();
        assert!(message.len() > 10 && !reference.is_empty(), "{line}");
        Some((numbers, class))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn the_documentation_lists_every_number_with_its_class() {
    let documented = documented();
    assert!(documented.len() > 40, "{documented:?}");
    for number in 1..=NUMBER_MAX {
        let rows: Vec<&str> = documented
            .iter()
            .filter(|(numbers, _)| numbers.contains(&number))
            .map(|(_, class)| class.as_str())
            .collect();
        let is_lost = is_fatal_number(number, 0) && word(class_of(number)).is_none();
        let expected = if is_lost { Some("connection lost") } else { word(class_of(number)) };
        assert_eq!(rows, expected.into_iter().collect::<Vec<_>>(), "{number}");
    }
}

fn error(number: u32, class: u8) -> ServerMessage {
    let (text, procedure) = (format!("text of {number}"), String::new());
    ServerMessage { number, class, state: 1, text, procedure, line: 1 }
}

/// Returns the number of the deciding error.
fn deciding(numbers: &[(u32, u8)]) -> u32 {
    let mut log = MessageLog::default();
    for (number, class) in numbers {
        log.add_error(error(*number, *class), false);
    }
    let (first, class) = numbers[0];
    deciding_error(error(first, class), &log).number
}

#[test]
fn an_error_of_the_procedure_outranks_those_of_the_server() {
    let cases: [(&[(u32, u8)], u32); 13] = [
        (&[(2627, 14)], 2627),
        (&[(2627, 14), (50422, 16)], 50422),
        (&[(50422, 16), (2627, 14)], 50422),
        (&[(547, 16), (515, 16)], 547),
        (&[(50000, 16), (50422, 16)], 50422),
        (&[(50422, 16), (547, 16), (50001, 16), (50422, 16)], 50422),
        (&[(547, 16), (1205, 13)], 1205),
        (&[(547, 16), (3960, 16)], 3960),
        (&[(1205, 13), (50422, 16)], 50422),
        (&[(50422, 16), (823, 24)], 823),
        (&[(50422, 16), (1205, 13)], 1205),
        (&[(50000, 16), (3960, 16)], 3960),
        // Babelfish's number for every unknown error does not mean that a procedure raised the error.
        (&[(547, 16), (BABELFISH_UNMAPPED, 16)], 547),
    ];
    for (numbers, expected) in cases {
        assert_eq!(deciding(numbers), expected, "{numbers:?}");
    }
    // Without any error in the log, the driver's error decides.
    assert_eq!(deciding_error(error(8134, 16), &MessageLog::default()).number, 8134);
}

#[test]
fn a_throttled_call_is_not_lost_although_its_connection_is_closed() {
    let log = MessageLog::default();
    for (number, severity) in [(40501, 20), (10928, 20), (10929, 20), (40613, 17), (49918, 16)] {
        let kind = sent_error(&error(number, severity), &log).kind;
        let class = ServerErrorClass::Transient;
        assert_eq!(kind, SentErrorKind::Server { number, class });
    }
    for (number, severity) in [(40197, 17), (596, 21), (6005, 10), (823, 24)] {
        assert_eq!(sent_error(&error(number, severity), &log).kind, SentErrorKind::Lost);
    }
}

#[test]
fn the_log_names_the_other_errors() {
    let mut log = MessageLog::default();
    for (number, class) in [(2627, 14), (50600, 16)] {
        log.add_error(error(number, class), false);
    }
    let source = sent_error(&error(50600, 16), &log).source.expect("a source").to_string();
    assert_eq!(source, "error 50600, severity 16, state 1, line 1, with other errors: 2627");
}
