//! Creates the `returns` of a catalogue entry from the database's description of the results.

use serde::ser::{Serialize, Serializer};

use crate::catalogue::ParameterType;
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::returns::SETS_MAX;
use crate::procedures::{ColumnDescription, ResultDescription};

/// The declared columns of the results, serialized in the format of a catalogue file.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(untagged)]
pub(super) enum ImportedReturns<'a> {
    /// For endpoints whose result is `rows` or `row`.
    Columns(ImportedColumns<'a>),
    /// For endpoints whose result is `full`.
    Full {
        /// The result sets.
        #[serde(skip_serializing_if = "Option::is_none")]
        sets: Option<Vec<ImportedColumns<'a>>>,
        /// The OUTPUT parameters.
        #[serde(skip_serializing_if = "Option::is_none")]
        outputs: Option<ImportedColumns<'a>>,
    },
}

/// Columns by name, in result order.
#[derive(Clone, Debug)]
pub(super) struct ImportedColumns<'a>(Vec<(&'a str, ImportedColumn)>);

impl Serialize for ImportedColumns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, column)| (name, column)))
    }
}

#[derive(Clone, Copy, Debug, serde::Serialize)]
struct ImportedColumn {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    nullable: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde needs")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Returns the value of `returns` for a result, or `None` if the description contains no usable
/// column.
pub(super) fn create<'a>(
    result: &str,
    outputs: &[&str],
    described: &'a ResultDescription,
) -> Option<ImportedReturns<'a>> {
    let sets = described.sets.as_ref().ok().filter(|sets| !sets.is_empty());
    match result {
        "rows" | "row" => Some(ImportedReturns::Columns(columns(sets?.first()?))),
        "full" => {
            let sets = sets.map(|sets| sets.iter().take(SETS_MAX).map(columns).collect());
            let is_returned = |column: &&ColumnDescription| {
                outputs.iter().any(|output| eq_ignore_case(output, &column.name))
            };
            let outputs: Vec<&ColumnDescription> =
                described.outputs.iter().filter(is_returned).collect();
            let outputs = (!outputs.is_empty()).then(|| columns(outputs));
            (sets.is_some() || outputs.is_some()).then_some(ImportedReturns::Full { sets, outputs })
        }
        _ => None,
    }
}

fn columns<'a>(described: impl IntoIterator<Item = &'a ColumnDescription>) -> ImportedColumns<'a> {
    let column = |column: &'a ColumnDescription| {
        let kind = column.kinds.first().copied().unwrap_or(ParameterType::Json);
        // A `json` value can be any JSON value, including null.
        let nullable = column.is_nullable != Some(false) && kind != ParameterType::Json;
        (column.name.as_str(), ImportedColumn { kind: kind.as_str(), nullable })
    };
    ImportedColumns(described.into_iter().map(column).collect())
}
