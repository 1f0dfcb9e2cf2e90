//! Formats tables with aligned columns.

use std::fmt::Write as _;

/// Formats headings and rows, one line each. A row may have fewer cells than the headings.
pub(super) fn text(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let rows = || std::iter::once(&headings).chain(rows);
    let mut widths = vec![0; headings.len()];
    // A shorter row ends with a message, so its cells do not widen the columns.
    for row in rows().filter(|row| row.len() == headings.len()) {
        for (width, cell) in widths.iter_mut().zip(row) {
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
