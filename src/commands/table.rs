//! Rows of cells as columns that stand below each other.

use std::fmt::Write as _;

/// Headings and rows, a line each. A row may be shorter than the headings.
pub(super) fn text(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let rows = || std::iter::once(&headings).chain(rows);
    let mut widths = vec![0; headings.len()];
    // A row that ends early says something of its own there, which no column has to make room for.
    for row in rows().filter(|row| row.len() == headings.len()) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows() {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // A string takes every write.
            write!(line, "{cell:width$}  ").ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
