//! The answer of a procedure as the database describes it, for `returns` in the catalogue.

use super::MemberNames;
use crate::catalogue::ParameterType;

/// The result sets and the OUTPUT parameters of a procedure.
#[derive(Clone, Debug)]
pub struct ResultDescription {
    /// The result sets in order, as far as the database describes them, or the reason why it describes none.
    pub sets: Result<Vec<Vec<ColumnDescription>>, String>,
    /// Whether `sets` contains all result sets. SQL Server describes only the first one.
    pub has_all_sets: bool,
    /// The OUTPUT parameters.
    pub outputs: Vec<ColumnDescription>,
}

/// A column of a result set, or an OUTPUT parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDescription {
    /// The name of the member in the answer.
    pub name: String,
    /// The type in the database, for messages.
    pub declared: String,
    /// The catalogue types to which all values belong. The narrowest type comes first. Empty if the type is not known.
    pub kinds: &'static [ParameterType],
    /// Whether the value can be NULL, or `None` if that is not known.
    pub is_nullable: Option<bool>,
}

impl ResultDescription {
    /// Creates the description of a procedure whose answer the database does not describe.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { sets: Err(reason.into()), has_all_sets: false, outputs: Vec::new() }
    }
}

/// Gives each column of a result set the name that it has in the answer.
#[must_use]
pub fn with_member_names(columns: Vec<ColumnDescription>) -> Vec<ColumnDescription> {
    let mut names = MemberNames::default();
    let rename = |column: ColumnDescription| ColumnDescription {
        name: names.next_name(&column.name),
        ..column
    };
    columns.into_iter().map(rename).collect()
}
