//! Compares the `returns` of endpoints with the database's description of the answers.

use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::returns::VALUE;
use crate::catalogue::{
    Endpoint, EndpointQueue, ParameterType, ProcedureName, ResultKind, ReturnColumn, Returns,
};
use crate::commands::result_descriptions;
use crate::procedures::{Backend, ColumnDescription, ResultDescription};

/// The maximum number of columns that a line names.
const NAMES_MAX: usize = 16;

/// Returns a line for each difference. Differences are warnings, because `returns` affects only the
/// documentation.
pub(super) async fn differences(
    endpoints: &[(&Endpoint, &EndpointQueue)],
    backend: &Arc<dyn Backend>,
    deadline: Instant,
) -> Vec<String> {
    // The database does not describe the content of JSON text.
    let is_compared =
        |endpoint: &Endpoint| endpoint.returns.is_some() && endpoint.result != ResultKind::Json;
    let (endpoints, procedures): (Vec<(&Endpoint, &EndpointQueue)>, Vec<ProcedureName>) = endpoints
        .iter()
        .filter(|(endpoint, _)| is_compared(endpoint))
        .filter_map(|(endpoint, queue)| Some(((*endpoint, *queue), queue.procedure.clone()?)))
        .unzip();
    if procedures.is_empty() {
        return Vec::new();
    }
    let described = result_descriptions::describe(backend, &procedures, deadline).await;
    // If the database cannot be reached, one line is enough.
    if let [first, _, ..] = described.as_slice()
        && let Err(reason) = &first.sets
        && described.iter().all(|one| one.sets.as_ref().err() == Some(reason))
    {
        let count = described.len();
        return vec![format!("returns of {count} endpoints were not compared: {reason}")];
    }
    let mut lines = Vec::new();
    for ((endpoint, queue), described) in endpoints.into_iter().zip(described) {
        let found = compare(endpoint, &described).into_iter();
        let mut place = format!("endpoint {:?}", endpoint.id.as_str());
        if endpoint.queues.has_several() {
            place = format!("{place}, queue {}", queue.name);
        }
        lines.extend(found.map(|line| format!("{place}: {line}")));
    }
    lines
}

fn compare(endpoint: &Endpoint, described: &ResultDescription) -> Vec<String> {
    let mut comparison = ReturnsComparison { described, lines: Vec::new() };
    match &endpoint.returns {
        None => {}
        Some(Returns::Columns(columns)) => {
            let is_output = |column: &&ReturnColumn| {
                endpoint.outputs.iter().any(|output| eq_ignore_case(output, &column.name))
            };
            let (outputs, columns): (Vec<_>, Vec<_>) = columns.iter().partition(is_output);
            comparison.outputs("returns", &outputs);
            let Some(sets) = comparison.sets() else { return comparison.lines };
            let set = sets.first().map(Vec::as_slice).unwrap_or_default();
            if endpoint.result == ResultKind::Value {
                comparison.value(&columns, set);
            } else if !set.is_empty() || endpoint.outputs.is_empty() {
                // A procedure without a result set can answer with its outputs alone.
                comparison.columns("returns", &columns, set);
            }
        }
        Some(Returns::Sets(sets)) => comparison.all_sets("returns", sets),
        Some(Returns::Full { sets, outputs }) => {
            comparison.outputs("returns.outputs", &outputs.iter().collect::<Vec<_>>());
            if let Some(sets) = sets {
                comparison.all_sets("returns.sets", sets);
            }
        }
    }
    comparison.lines
}

struct ReturnsComparison<'a> {
    described: &'a ResultDescription,
    lines: Vec<String>,
}

impl<'a> ReturnsComparison<'a> {
    /// Returns the described result sets, or records why there are none.
    fn sets(&mut self) -> Option<&'a [Vec<ColumnDescription>]> {
        match &self.described.sets {
            Ok(sets) => Some(sets),
            Err(reason) => {
                self.lines.push(format!(
                    "returns: not compared, because the database does not describe the result: {reason}"
                ));
                None
            }
        }
    }

    /// Compares result sets. Sets that the database does not describe are not compared: SQL Server describes only the
    /// first one.
    fn all_sets(&mut self, key: &str, declared: &[Vec<ReturnColumn>]) {
        let Some(described) = self.sets() else { return };
        if described.is_empty() && !declared.is_empty() {
            self.lines.push(format!("{key}: the database returns no result set"));
        }
        if declared.is_empty() && !described.is_empty() {
            self.lines.push(format!("{key}: the database returns a result set"));
        }
        let is_known = self.described.has_all_sets && !described.is_empty() && !declared.is_empty();
        if is_known && described.len() != declared.len() {
            let (found, expected) = (count(described.len()), declared.len());
            self.lines.push(format!(
                "{key}: the catalogue says {expected}, but the database returns {found}"
            ));
        }
        for (index, (declared, described)) in declared.iter().zip(described).enumerate() {
            let declared: Vec<&ReturnColumn> = declared.iter().collect();
            self.columns(&format!("{key}[{index}]"), &declared, described);
        }
    }

    fn columns(&mut self, key: &str, declared: &[&ReturnColumn], described: &[ColumnDescription]) {
        for column in declared {
            match described.iter().find(|one| one.name == column.name) {
                Some(found) => self.column(key, column, found),
                None => self.lines.push(format!(
                    "{key}.{}: the database does not return this column: it returns {}",
                    column.name,
                    names(described)
                )),
            }
        }
        for found in described {
            if !declared.iter().any(|column| column.name == found.name) {
                let ColumnDescription { name, declared, .. } = found;
                self.lines.push(format!(
                    "{key}: the column {name} ({declared}), which the database returns, is not declared"
                ));
            }
        }
    }

    fn outputs(&mut self, key: &str, declared: &[&ReturnColumn]) {
        let described = &self.described.outputs;
        for column in declared {
            match described.iter().find(|one| eq_ignore_case(&one.name, &column.name)) {
                Some(found) => self.column(key, column, found),
                None => self.lines.push(format!(
                    "{key}.{}: the database has no such OUTPUT parameter",
                    column.name
                )),
            }
        }
    }

    /// Compares the first column of the first row, which can have any name.
    fn value(&mut self, declared: &[&ReturnColumn], described: &[ColumnDescription]) {
        let value = declared.iter().find(|column| column.name == VALUE);
        match (value, described.first()) {
            (Some(value), Some(found)) => self.column("returns", value, found),
            (Some(_), None) => {
                self.lines.push(format!("returns.{VALUE}: the database returns no column"));
            }
            (None, _) => {}
        }
    }

    fn column(&mut self, key: &str, column: &ReturnColumn, found: &ColumnDescription) {
        let (name, kind) = (&column.name, column.kind);
        let ColumnDescription { declared, kinds, is_nullable, .. } = found;
        // `json` stands for any value.
        let fits = kind == ParameterType::Json || kinds.is_empty() || kinds.contains(&kind);
        if !fits {
            let expected: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            self.lines.push(format!(
                "{key}.{name}.type: the catalogue says {}, but the database returns {declared}: expected {}",
                kind.as_str(),
                expected.join(" or ")
            ));
        }
        let accepts_null =
            column.nullable || (kind == ParameterType::Json && column.schema.is_none());
        if *is_nullable == Some(true) && !accepts_null {
            self.lines.push(format!(
                "{key}.{name}.nullable: the column can be NULL in the database: expected true"
            ));
        }
    }
}

fn count(sets: usize) -> String {
    if sets == 1 { "1 result set".to_owned() } else { format!("{sets} result sets") }
}

fn names(described: &[ColumnDescription]) -> String {
    let names = described.iter().take(NAMES_MAX).map(|column| column.name.as_str());
    let names: Vec<&str> = names.collect();
    match described.len().saturating_sub(names.len()) {
        _ if names.is_empty() => "no columns".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
