//! The database's description of a procedure, from which `fjord import` creates a catalogue entry.

use crate::catalogue::ParameterType;

/// The database's description of a procedure.
#[derive(Clone, Debug)]
pub struct ProcedureDescription {
    /// The name as `schema.name`, in the database's spelling.
    pub name: String,
    /// The parameters in declaration order, or the reason that no endpoint can call the procedure.
    pub parameters: Result<Vec<ParameterDescription>, String>,
}

/// A parameter, or a column of a table parameter.
#[derive(Clone, Debug)]
pub struct ParameterDescription {
    /// The name, without `@`.
    pub name: String,
    /// The type declared in the database.
    pub declared: String,
    /// The corresponding type of the catalogue, if any.
    pub kind: Option<ParameterType>,
    /// The maximum length in characters or bytes, if any.
    pub length_max: Option<usize>,
    /// The smallest and largest integer, if the declared type is narrower than the catalogue's.
    pub range: Option<(i64, i64)>,
    /// The columns, if the parameter is a table.
    pub columns: Vec<ParameterDescription>,
    /// Whether this is an OUTPUT parameter.
    pub is_output: bool,
}

impl ParameterDescription {
    /// Creates an input parameter without a catalogue type or limits.
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
