//! Compares the `returns` of endpoints with the database's descriptions of the procedures' results.

use std::sync::Arc;

use tokio::time::Instant;

use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::returns::VALUE;
use crate::catalogue::{
    Endpoint, EndpointQueue, ParameterType, ProcedureName, ResultKind, ReturnColumn, Returns,
};
use crate::commands::result_descriptions::{self, DescribeError};
use crate::procedures::{Backend, ColumnDescription, ResultDescription};

/// The maximum number of columns or endpoints named in one line.
const NAMES_MAX: usize = 16;

/// Returns a line for each difference. Differences are warnings, because `returns` affects only the
/// documentation.
pub(super) async fn differences(
    endpoints: &[(&Endpoint, &EndpointQueue)],
    backend: &Arc<dyn Backend>,
    deadline: Instant,
) -> Vec<String> {
    // The database does not describe the contents of JSON text.
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
    let (mut lines, mut unanswered) = (Vec::new(), Vec::new());
    for ((endpoint, queue), described) in endpoints.into_iter().zip(described) {
        let mut place = format!("endpoint {:?}", endpoint.id.as_str());
        if endpoint.queues.has_several() {
            place = format!("{place}, queue {}", queue.name);
        }
        let found = match described {
            Ok(described) => compare(endpoint, &described),
            Err(DescribeError::Refused(reason)) => vec![not_compared(&reason)],
            Err(DescribeError::NoAnswer(reason)) => {
                unanswered.push((place, reason));
                continue;
            }
        };
        lines.extend(found.iter().map(|line| format!("{place}: {line}")));
    }
    lines.extend(without_answer(&unanswered));
    lines
}

/// Returns one line that names all endpoints whose procedures the database did not describe in time.
fn without_answer(unanswered: &[(String, String)]) -> Option<String> {
    let (first, reason) = unanswered.first()?;
    if unanswered.len() == 1 {
        return Some(format!("{first}: returns: not compared: {reason}"));
    }
    let places = list(unanswered.iter().map(|(place, _)| place.as_str()));
    let count = unanswered.len();
    Some(format!("returns of {count} endpoints were not compared ({places}): {reason}"))
}

fn not_compared(reason: &str) -> String {
    format!("returns: not compared, because the database does not describe the result: {reason}")
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
                // A procedure without a result set can answer with its OUTPUT parameters alone.
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
    /// Returns the described result sets. If there are none, records the reason.
    fn sets(&mut self) -> Option<&'a [Vec<ColumnDescription>]> {
        match &self.described.sets {
            Ok(sets) => Some(sets),
            Err(reason) => {
                self.lines.push(not_compared(reason));
                None
            }
        }
    }

    /// Compares result sets. SQL Server describes only the first one, so the others are not compared.
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

    /// Compares the first column of the first row, whatever its name.
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
        // `json` allows any value.
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
    if described.is_empty() {
        return "no columns".to_owned();
    }
    list(described.iter().map(|column| column.name.as_str()))
}

fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let names: Vec<&str> = names.take(NAMES_MAX).collect();
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_without_a_description_are_named_in_one_line() {
        let reasons = ["no answer within 5.0s", "the time limit for all procedures has passed"];
        let one =
            |at: usize| (format!("endpoint \"e{at}\""), reasons[usize::from(at > 1)].to_owned());
        let all: Vec<_> = (1..=18).map(one).collect();
        assert_eq!(without_answer(&[]), None);
        let one = "endpoint \"e1\": returns: not compared: no answer within 5.0s";
        assert_eq!(without_answer(&all[..1]).as_deref(), Some(one));
        let two = "returns of 2 endpoints were not compared (endpoint \"e1\", endpoint \"e2\"): no answer within 5.0s";
        assert_eq!(without_answer(&all[..2]).as_deref(), Some(two));
        assert!(without_answer(&all).unwrap().contains("endpoint \"e16\" and 2 more): "));
    }
}
