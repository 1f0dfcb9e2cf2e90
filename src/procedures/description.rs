//! A procedure as its database describes it, from which `fjord import` creates catalogue entries.

use crate::catalogue::ParameterType;

/// A procedure as its database describes it.
#[derive(Clone, Debug)]
pub struct ProcedureDescription {
    /// `schema.name`, as the database writes it.
    pub name: String,
    /// Its parameters in the order of their declaration, or why no endpoint can call it.
    pub parameters: Result<Vec<ParameterDescription>, String>,
}

/// A parameter, or a column of a table.
#[derive(Clone, Debug)]
pub struct ParameterDescription {
    /// Its name, without `@`.
    pub name: String,
    /// The type as the database declares it.
    pub declared: String,
    /// The corresponding type of the catalogue; `None` if there is none.
    pub kind: Option<ParameterType>,
    /// The maximum length in characters or bytes, if there is one.
    pub length_max: Option<usize>,
    /// The smallest and largest integer, if the catalogue's type has a wider range.
    pub range: Option<(i64, i64)>,
    /// The columns of a table.
    pub columns: Vec<ParameterDescription>,
    /// Whether it is returned.
    pub is_output: bool,
}

impl ParameterDescription {
    /// Creates a parameter without limits that is not returned.
    #[must_use]
    pub fn new(name: impl Into<String>, declared: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            declared: declared.into(),
            kind: None,
            length_max: None,
            range: None,
            columns: Vec::new(),
            is_output: false,
        }
    }
}
