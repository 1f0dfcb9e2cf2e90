//! Refuses arguments that SQL Server cannot convert to the types of a procedure's parameters.

use super::FakeState;
use super::request::RpcParameter;
use super::schema::Declaration;
use super::values::{Declared, Sql};

/// The number and the text of an error.
type FakeError = (u32, &'static str);

/// `json` is not converted implicitly, as the value of an OUTPUT parameter would be.
pub(super) const TEXT_FOR_JSON: FakeError =
    (257, "Implicit conversion from data type json to nvarchar(max) is not allowed.");
/// A `max` type is not converted to `sql_variant`.
pub(super) const MAX_FOR_VARIANT: FakeError =
    (206, "Operand type clash: nvarchar(max) is incompatible with sql_variant");
const OTHER_COLUMNS: FakeError =
    (500, "Trying to pass a table-valued parameter with other columns than its type has.");
const NULL_IN_COLUMN: FakeError =
    (515, "Cannot insert the value NULL into a column; column does not allow nulls.");
const OTHER_DIMENSIONS: FakeError = (42204, "The vector dimensions do not match.");

/// Returns the error for the first argument that cannot be converted.
pub(super) fn refusal(
    state: &FakeState,
    procedure: &str,
    given: &[RpcParameter],
) -> Option<FakeError> {
    let parameters = state.schema.procedure(procedure)?;
    given.iter().find_map(|one| match &one.value {
        Sql::OtherColumns => Some(OTHER_COLUMNS),
        Sql::TextForJson => Some(TEXT_FOR_JSON),
        value => {
            let declared = parameters.iter().find(|parameter| parameter.name == one.name)?;
            match value {
                Sql::Table(rows) => table(&state.columns(&declared.declared.name), rows),
                value => vector(&declared.declared, value),
            }
        }
    })
}

fn table(columns: &[Declaration], rows: &[Vec<Sql>]) -> Option<FakeError> {
    let mut cells = rows.iter().flat_map(|row| row.iter().zip(columns));
    cells.find_map(|(value, column)| match value {
        Sql::Null if !column.is_nullable => Some(NULL_IN_COLUMN),
        value => vector(&column.declared, value),
    })
}

fn vector(declared: &Declared, value: &Sql) -> Option<FakeError> {
    let Sql::Text(text) = value else { return None };
    if declared.name != "vector" {
        return None;
    }
    let numbers: Vec<f32> = serde_json::from_str(text).expect("an array of numbers");
    let is_match = numbers.len() == usize::from(declared.numbers[0]);
    (!is_match).then_some(OTHER_DIMENSIONS)
}
