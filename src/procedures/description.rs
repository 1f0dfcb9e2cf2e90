//! The database's description of a procedure, from which `fjord import` creates a catalogue entry.

use crate::catalogue::ParameterType;

/// The database's description of a procedure.
#[derive(Clone, Debug)]
pub struct ProcedureDescription {
    /// The name as `schema.name`, in the database's spelling.
    pub name: String,
    /// The parameters in the order of their declaration, or the reason why no endpoint can call the procedure.
    pub parameters: Result<Vec<ParameterDescription>, String>,
}

/// A parameter, or a column of a table parameter.
#[derive(Clone, Debug)]
pub struct ParameterDescription {
    /// The name, without `@`.
    pub name: String,
    /// The type declared in the database.
    pub declared: String,
    /// The corresponding type of the catalogue; `None` if there is none.
    pub kind: Option<ParameterType>,
    /// The maximum length in characters or bytes, if there is one.
    pub length_max: Option<usize>,
    /// The smallest and largest integer, if the declared type has a narrower range than the catalogue's type.
    pub range: Option<(i64, i64)>,
    /// The columns, if the parameter is a table.
    pub columns: Vec<ParameterDescription>,
    /// Whether the parameter is returned.
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
