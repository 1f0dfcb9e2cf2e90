//! The collation `CI_AS`, which compares text as SQL Server's default collations do.

use std::cmp::Ordering;

use rusqlite::Connection;

/// The name of the collation, which is the suffix of the corresponding SQL Server names:
/// case-insensitive, accent-sensitive.
const NAME: &str = "CI_AS";

/// Adds the collation to a connection.
pub(super) fn add(connection: &Connection) -> rusqlite::Result<()> {
    connection.create_collation(NAME, compare)
}

/// Compares text without regard to case and trailing blanks.
fn compare(one: &str, other: &str) -> Ordering {
    let folded = |text: &'_ str| -> Vec<char> {
        text.trim_end_matches(' ').chars().flat_map(char::to_lowercase).collect()
    };
    folded(one).cmp(&folded(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_trailing_blanks_do_not_matter_and_accents_do() {
        for (one, other, expected) in [
            ("Aisha", "AISHA", Ordering::Equal),
            ("aisha", "aisha   ", Ordering::Equal),
            ("ÄRA", "ära", Ordering::Equal),
            ("", "  ", Ordering::Equal),
            ("aisha", " aisha", Ordering::Greater),
            ("aisha\t", "aisha", Ordering::Greater),
            ("a", "ä", Ordering::Less),
            ("B", "a", Ordering::Greater),
        ] {
            assert_eq!(compare(one, other), expected, "{one:?} {other:?}");
        }
    }
}
