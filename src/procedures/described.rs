//! A procedure as its database describes it: what a catalogue's entry can be made of.

use crate::catalogue::ParameterType;

/// A procedure.
#[derive(Clone, Debug)]
pub struct Described {
    /// `schema.name`, as the database writes it.
    pub name: String,
    /// Its parameters in the order of their declaration, or why no endpoint can call it.
    pub parameters: Result<Vec<DescribedParameter>, String>,
}

/// A parameter, or a column of a table.
#[derive(Clone, Debug)]
pub struct DescribedParameter {
    /// Its name, without `@`.
    pub name: String,
    /// The type as the database declares it.
    pub declared: String,
    /// What it is in the catalogue; `None` when that has no word for it.
    pub kind: Option<ParameterType>,
    /// Most characters or bytes, when they are bounded.
    pub length_max: Option<usize>,
    /// Smallest and largest whole number, when the type of the catalogue has more.
    pub range: Option<(i64, i64)>,
    /// The columns of a table.
    pub columns: Vec<DescribedParameter>,
    /// Whether it comes back.
    pub is_output: bool,
}

impl DescribedParameter {
    /// A parameter without bounds that is only passed.
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
