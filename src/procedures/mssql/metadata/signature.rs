//! A procedure's parameters, as declared in the database, and their comparison with the catalogue.

use super::table_query::{TableColumn, TableQuery};
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::{ParameterType, ProcedureName};
use crate::procedures::ExpectedProcedure;
use crate::procedures::mssql::types::{CONVERT_IN_PROCEDURE, CodePage, SqlType};

/// A procedure's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The procedure's name for SQL, with brackets around both parts.
    pub(crate) quoted: String,
    /// The parameters, in the order of their declaration.
    pub(crate) parameters: Vec<SqlParameter>,
}

/// A parameter, as declared in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlParameter {
    /// The name, with `@`.
    pub(crate) name: String,
    pub(crate) declared: SqlParameterType,
    /// Whether the parameter is declared OUTPUT.
    pub(crate) is_output: bool,
}

/// A parameter's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SqlParameterType {
    /// A single value.
    Scalar(SqlType),
    /// A table.
    Table {
        /// The name of the table type, `schema.type`, with brackets around each part that needs
        /// them.
        name: String,
        /// The name for SQL, with brackets around both parts.
        quoted: String,
        /// The name in the driver's form, without brackets, or `None` if the driver cannot pass it.
        driver_name: Option<String>,
        /// The columns, in order, without those that the server generates.
        columns: Vec<TableColumn>,
        /// Whether the server generates columns: an IDENTITY, a computed column or a rowversion. A
        /// table-valued parameter cannot leave out a column, so a statement inserts the rows
        /// instead.
        is_inserted: bool,
        /// The SQL condition that holds if the type has not been dropped and created again since
        /// its columns were read. Empty if no columns were read.
        is_current: String,
        /// The replacements for the driver's column query, or `None` if no columns were read.
        query: Option<TableQuery>,
    },
}

impl SqlParameter {
    /// Returns the name without `@`, as the catalogue spells it.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.strip_prefix('@').unwrap_or(&self.name)
    }
}

impl Signature {
    /// Creates the signature of a procedure without parameters.
    pub(crate) fn new(procedure: &ProcedureName) -> Self {
        Self { quoted: procedure.quoted(), parameters: Vec::new() }
    }

    /// Finds a parameter by an argument's name. Names are compared case-insensitively, but an exact
    /// match is preferred because the database's collation may be case-sensitive.
    pub(crate) fn parameter(&self, name: &str) -> Option<&SqlParameter> {
        let mut all = self.parameters.iter();
        all.clone()
            .find(|parameter| parameter.bare_name() == name)
            .or_else(|| all.find(|parameter| eq_ignore_case(parameter.bare_name(), name)))
    }

    /// Returns whether a call inserts the rows of a table by the names of its columns.
    pub(crate) fn inserts_rows(&self) -> bool {
        self.parameters.iter().any(|parameter| {
            matches!(parameter.declared, SqlParameterType::Table { is_inserted: true, .. })
        })
    }

    /// Lists the names of the parameters, for a message.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.parameters.iter().map(|one| one.name.as_str()).collect();
        if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") }
    }

    /// Returns the name and code page of the first parameter or column whose code page is not
    /// known.
    pub(super) fn unknown_code_page(&self) -> Option<(&str, CodePage)> {
        let unknown = |name, sql: &SqlType| match sql {
            SqlType::Text { code_page, .. } if !code_page.is_known() => Some((name, *code_page)),
            _ => None,
        };
        self.parameters.iter().find_map(|parameter| match &parameter.declared {
            SqlParameterType::Scalar(sql) => unknown(parameter.name.as_str(), sql),
            SqlParameterType::Table { columns, .. } => {
                columns.iter().find_map(|column| unknown(&column.name, &column.sql))
            }
        })
    }

    /// Describes the difference between the catalogue and the procedure, or returns `None` if they
    /// match.
    pub(crate) fn difference(&self, expected: &ExpectedProcedure) -> Option<String> {
        let mut differences = Vec::new();
        for (name, kind) in &expected.arguments {
            let parameter = self.parameter(name);
            let declared = match parameter.map(|parameter| &parameter.declared) {
                Some(SqlParameterType::Table {
                    name: table,
                    driver_name: None,
                    is_inserted: false,
                    ..
                }) => {
                    differences.push(unsupported_table_type(name, table));
                    continue;
                }
                Some(declared) if accepts(declared, *kind) => continue,
                None => format!("the procedure has {}", self.names()),
                Some(SqlParameterType::Scalar(sql @ SqlType::Other(_))) => format!(
                    "the procedure declares {sql}, which cannot be passed: {CONVERT_IN_PROCEDURE}"
                ),
                Some(SqlParameterType::Scalar(sql)) => format!("the procedure declares {sql}"),
                Some(SqlParameterType::Table { name, .. }) => {
                    format!("the procedure declares the table type {name}")
                }
            };
            differences
                .push(format!("the catalogue passes @{name} as {}, but {declared}", kind.as_str()));
        }
        for name in &expected.outputs {
            match self.parameter(name) {
                Some(parameter) if parameter.is_output => {}
                Some(_) => differences.push(format!(
                    "the catalogue returns @{name}, but the procedure does not declare it OUTPUT"
                )),
                None => differences.push(format!(
                    "the catalogue returns @{name}, but the procedure has {}",
                    self.names()
                )),
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

/// Describes a table type whose name the driver cannot pass.
pub(crate) fn unsupported_table_type(parameter: &str, table: &str) -> String {
    format!(
        "@{parameter} has the table type {table}, whose name the driver cannot pass: it can have letters, digits, '_', '@' and '#' only"
    )
}

/// Returns whether a value of the catalogue's type can be converted to the declared type.
fn accepts(declared: &SqlParameterType, given: ParameterType) -> bool {
    use ParameterType as P;
    use SqlType as S;
    let sql = match declared {
        SqlParameterType::Table { .. } => return given == P::Table,
        SqlParameterType::Scalar(sql) => sql,
    };
    match sql {
        S::Other(_) => false,
        S::Variant => given != P::Table,
        S::Text { .. } => !matches!(given, P::Table | P::Binary),
        S::Binary { .. } => given == P::Binary,
        S::Bit => matches!(given, P::Boolean | P::Int32 | P::Int64 | P::String),
        S::TinyInt
        | S::SmallInt
        | S::Int
        | S::BigInt
        | S::Decimal { .. }
        | S::Money
        | S::SmallMoney
        | S::Real
        | S::Float => {
            matches!(given, P::Int32 | P::Int64 | P::Number | P::Decimal | P::Boolean | P::String)
        }
        S::Date => matches!(given, P::Date | P::String),
        S::Time(_) => matches!(given, P::Time | P::String),
        S::DateTime | S::SmallDateTime | S::DateTime2(_) | S::DateTimeOffset(_) => {
            matches!(given, P::Datetime | P::Date | P::String)
        }
        S::Guid => matches!(given, P::Uuid | P::String),
        S::Xml | S::Vector(_) => matches!(given, P::String | P::Json),
        S::Json => !matches!(given, P::Table | P::Binary),
    }
}
