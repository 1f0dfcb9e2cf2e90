//! The declared columns of an endpoint's answer, after validation. The `OpenAPI` document contains their types, and the
//! online check compares them with the database.

use serde_json::Value as Json;

use super::parameter::ParameterType;

/// The name of the single member in the `returns` of the results `value` and `json`.
pub const VALUE: &str = "value";
/// The maximum number of declared result sets.
pub const SETS_MAX: usize = 64;

/// The declared columns of an answer, in the shape of the endpoint's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Returns {
    /// The members of an object. The object is each row (`rows`), the only row together with the outputs (`row`), or a
    /// single value named `value`, with the outputs if there are any (`value`, `json`).
    Columns(Vec<ReturnColumn>),
    /// The columns of each result set in order (`sets`).
    Sets(Vec<Vec<ReturnColumn>>),
    /// The result sets and the outputs (`full`).
    Full {
        /// The columns of each result set in order, or `None` if they are not declared.
        sets: Option<Vec<Vec<ReturnColumn>>>,
        /// The OUTPUT parameters. The answer can contain further outputs that are not declared.
        outputs: Vec<ReturnColumn>,
    },
}

impl Returns {
    /// Returns every column with its key in the catalogue, such as `returns.sets[0].n`.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, &ReturnColumn)> {
        let lists: Vec<(String, &[ReturnColumn])> = match self {
            Self::Columns(columns) => vec![("returns".to_owned(), columns)],
            Self::Sets(sets) => lists("returns", sets),
            Self::Full { sets, outputs } => {
                let mut all = lists("returns.sets", sets.as_deref().unwrap_or_default());
                all.push(("returns.outputs".to_owned(), outputs));
                all
            }
        };
        let mut found = Vec::new();
        for (key, columns) in lists {
            found.extend(columns.iter().map(|column| (format!("{key}.{}", column.name), column)));
        }
        found
    }
}

fn lists<'a>(key: &str, sets: &'a [Vec<ReturnColumn>]) -> Vec<(String, &'a [ReturnColumn])> {
    sets.iter().enumerate().map(|(at, columns)| (format!("{key}[{at}]"), &**columns)).collect()
}

/// A declared column, or an OUTPUT parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnColumn {
    /// The name of the member in the answer.
    pub name: String,
    /// The type, which is never `table`. The type `json` allows any JSON value.
    pub kind: ParameterType,
    /// Whether the value can be `null`.
    pub nullable: bool,
    /// One sentence for the generated documentation.
    pub description: Option<String>,
    /// The JSON Schema of a `json` value, if it is declared.
    pub schema: Option<Json>,
}
