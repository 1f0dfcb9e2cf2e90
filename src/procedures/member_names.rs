//! The names of the members of a row's JSON object.

use std::collections::HashSet;

/// The member names of an object, generated from column names.
///
/// A repeated name gets a suffix: `a`, `a_2`. An unnamed column is named by its position:
/// `column_1`.
#[derive(Debug, Default)]
pub struct MemberNames {
    used: HashSet<String>,
    columns: usize,
}

impl MemberNames {
    /// Returns the member name of the next column.
    #[must_use]
    pub fn next_name(&mut self, column: &str) -> String {
        self.columns += 1;
        let base =
            if column.is_empty() { format!("column_{}", self.columns) } else { column.to_owned() };
        let mut name = base.clone();
        let mut number = 2;
        while !self.used.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_with_equal_names_or_without_names_get_different_member_names() {
        let mut names = MemberNames::default();
        let got: Vec<String> = ["a", "", "a", "a_2", "a", "column_2"]
            .iter()
            .map(|name| names.next_name(name))
            .collect();
        assert_eq!(got, ["a", "column_2", "a_2", "a_2_2", "a_3", "column_2_2"]);
    }
}
