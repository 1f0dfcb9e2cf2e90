//! A procedure as the database declares it. `fjord import` creates a catalogue entry from it.

use crate::catalogue::{ParameterType, ProcedureName};

/// A procedure as the database declares it.
#[derive(Clone, Debug)]
pub struct ProcedureDescription {
    /// The name in the form that the catalogue uses, with the database's spelling.
    pub name: String,
    /// The two parts of the name, without brackets.
    pub parts: (String, String),
    /// The parameters in declaration order, or the reason why no endpoint can call the procedure.
    /// The reason is followed by a semicolon and advice on how to resolve it.
    pub parameters: Result<Vec<ParameterDescription>, String>,
}

/// A parameter, or a column of a table parameter.
#[derive(Clone, Debug)]
pub struct ParameterDescription {
    /// The name, without `@`.
    pub name: String,
    /// The type declared in the database.
    pub declared: String,
    /// The corresponding catalogue type, if any.
    pub kind: Option<ParameterType>,
    /// The maximum length in characters or bytes, if any.
    pub length_max: Option<usize>,
    /// The smallest and largest integer, if the declared type is narrower than the catalogue type.
    pub range: Option<(i64, i64)>,
    /// The columns, if the parameter is a table.
    pub columns: Vec<ParameterDescription>,
    /// Whether the parameter is an OUTPUT parameter.
    pub is_output: bool,
    /// Whether the parameter has a default, or `None` if the database does not report defaults.
    pub has_default: Option<bool>,
}

impl ProcedureDescription {
    /// Creates the description of a procedure whose name consists of these parts.
    #[must_use]
    pub fn new(
        (schema, procedure): (&str, &str),
        parameters: Result<Vec<ParameterDescription>, String>,
    ) -> Self {
        let parts = (schema.to_owned(), procedure.to_owned());
        match ProcedureName::from_parts(schema, procedure) {
            Ok(name) => Self { name: name.as_str().to_owned(), parts, parameters },
            Err(error) => {
                // The name is escaped, because it can contain control characters.
                let name = format!("{schema:?}.{procedure:?}");
                Self { name, parts, parameters: Err(format!("{error}; rename it")) }
            }
        }
    }
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
            has_default: None,
        }
    }
}
