//! Formats tables with aligned columns.

use std::fmt::Write as _;

/// Formats headings and rows, one per line. A row may have fewer cells than there are headings.
pub(super) fn text(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let rows = || std::iter::once(&headings).chain(rows);
    let mut widths = vec![0; headings.len()];
    for row in rows() {
        // The last cell of a shorter row is a message. The message must not widen the column.
        let is_short = row.len() < headings.len();
        let columns = row.len() - usize::from(is_short && !row.is_empty());
        for (width, cell) in widths.iter_mut().zip(row).take(columns) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows() {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a string cannot fail.
            write!(line, "{cell:width$}  ").ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_short_row_begins_at_its_column() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [row(&["a", "1", "2"]), row(&["a long name", "a message that is long"])];
        let expected = "\
name         x  y
a            1  2
a long name  a message that is long
";
        assert_eq!(text(&["name", "x", "y"], &rows), expected);
    }
}
