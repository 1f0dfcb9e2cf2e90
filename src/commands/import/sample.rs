//! `fjord import --sample`: calls a procedure to discover the columns of its results.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::ParameterType::{self, self as P};
use crate::catalogue::returns::SETS_MAX;
use crate::catalogue::{ParameterValue, ProcedureName, QueueName};
use crate::lifecycle::Cancel;
use crate::procedures::description::ParameterDescription;
use crate::procedures::result_description::with_member_names;
use crate::procedures::{
    Argument, Backend, Call, CallError, Cell, ColumnDescription, ResultDescription, RowSink,
    SentErrorKind, SessionContext, SinkError, Transaction,
};
use crate::telemetry::chain;

/// The time limit for a call.
const LIMIT: Duration = Duration::from_secs(10);
/// The number of rows after which a call is stopped.
const ROWS_MAX: usize = 1_000;
/// The type name that messages show for a column that is known only from a sample.
const SAMPLED: &str = "as in a sample";

/// Calls a procedure with NULL for every parameter, in a transaction that is rolled back. Adds the missing result sets
/// and column types to `described`.
///
/// # Errors
/// Returns the reason why the call failed.
pub(super) async fn add_sample(
    backend: &Arc<dyn Backend>,
    procedure: &ProcedureName,
    parameters: &[ParameterDescription],
    described: &mut ResultDescription,
) -> Result<(), String> {
    let queue = QueueName::new("import").map_err(|error| error.to_string())?;
    let inputs = parameters.iter().filter(|parameter| !parameter.is_output);
    let arguments: Vec<Argument> = inputs.filter_map(argument).collect();
    let call = Call {
        queue: &queue,
        procedure,
        arguments: &arguments,
        session: SessionContext::default(),
        deadline: Instant::now() + LIMIT,
        may_repeat: false,
        transaction: Transaction::RolledBack,
    };
    let mut sink = SampleSink::default();
    match backend.call(call, &mut sink, &Cancel::new()).await {
        Ok(_) => {}
        // The sink has seen enough rows or result sets and has stopped the call.
        Err(CallError::Sent(error)) if error.kind == SentErrorKind::Sink(SinkError::Closed) => {}
        Err(CallError::Sent(error)) => return Err(chain(&error)),
        Err(CallError::NotSent(error)) => return Err(chain(&error)),
    }
    sink.add_to(described);
    Ok(())
}

fn argument(parameter: &ParameterDescription) -> Option<Argument> {
    Some(Argument {
        name: parameter.name.as_str().into(),
        kind: parameter.kind?,
        value: ParameterValue::Null,
        columns: Arc::default(),
        table_type: None,
    })
}

/// Records the columns of result sets and the types of their values.
#[derive(Debug, Default)]
struct SampleSink {
    sets: Vec<Vec<SampledColumn>>,
    rows: usize,
}

#[derive(Debug)]
struct SampledColumn {
    name: String,
    /// The types that fit all values other than NULL. Empty before the first such value, or if the values are of
    /// different kinds.
    kinds: &'static [ParameterType],
    is_mixed: bool,
}

impl SampledColumn {
    fn add(&mut self, cell: &Cell<'_>) {
        let kinds: &'static [ParameterType] = match cell {
            Cell::Null => return,
            Cell::Bool(_) => &[P::Boolean],
            Cell::Int(_) => &[P::Int64, P::Int32, P::Decimal, P::Number],
            Cell::Float(_) => &[P::Number, P::Decimal],
            Cell::Number(_) => &[P::Decimal, P::Number],
            Cell::Text(_) => &[P::String, P::Uuid, P::Date, P::Time, P::Datetime],
            Cell::Json(_) => &[P::Json],
            Cell::Binary(_) => &[P::Binary, P::String],
        };
        self.is_mixed |= !self.kinds.is_empty() && self.kinds != kinds;
        self.kinds = if self.is_mixed { &[] } else { kinds };
    }
}

impl SampleSink {
    fn add_to(self, described: &mut ResultDescription) {
        let sampled = self.sets.into_iter().map(|set| {
            let column = |column: SampledColumn| ColumnDescription {
                name: column.name,
                declared: SAMPLED.to_owned(),
                kinds: column.kinds,
                // A sample cannot prove that a value is never NULL.
                is_nullable: None,
            };
            with_member_names(set.into_iter().map(column).collect())
        });
        match &mut described.sets {
            Err(_) => described.sets = Ok(sampled.collect()),
            Ok(sets) => {
                for (set, sampled) in sets.iter_mut().zip(sampled) {
                    for (column, sampled) in set.iter_mut().zip(sampled) {
                        if column.kinds.is_empty() && column.name == sampled.name {
                            column.kinds = sampled.kinds;
                        }
                    }
                }
            }
        }
    }
}

impl RowSink for SampleSink {
    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError> {
        if self.sets.len() >= SETS_MAX {
            return Err(SinkError::Closed);
        }
        let column =
            |name: &String| SampledColumn { name: name.clone(), kinds: &[], is_mixed: false };
        self.sets.push(columns.iter().map(column).collect());
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        self.rows += 1;
        if self.rows > ROWS_MAX {
            return Err(SinkError::Closed);
        }
        for (column, cell) in self.sets.last_mut().into_iter().flatten().zip(cells) {
            column.add(cell);
        }
        Ok(())
    }

    fn restart(&mut self) -> bool {
        *self = Self::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_completes_what_the_database_did_not_describe() {
        let mut sink = SampleSink::default();
        sink.begin_set(&["a".to_owned(), String::new(), "c".to_owned()]).unwrap();
        sink.row(&[Cell::Null, Cell::Int(1), Cell::Int(1)]).unwrap();
        sink.row(&[Cell::Text("x"), Cell::Null, Cell::Text("x")]).unwrap();
        let mut described = ResultDescription::unknown("dynamic SQL");
        sink.add_to(&mut described);
        let sets = described.sets.unwrap();
        let found: Vec<_> =
            sets[0].iter().map(|one| (one.name.as_str(), one.kinds.first().copied())).collect();
        assert_eq!(found, [("a", Some(P::String)), ("column_2", Some(P::Int64)), ("c", None)]);
    }

    #[test]
    fn a_sample_ends_after_a_limited_number_of_rows_or_sets() {
        let mut sink = SampleSink::default();
        let taken = (0..=ROWS_MAX).take_while(|_| sink.row(&[]).is_ok()).count();
        assert_eq!(taken, ROWS_MAX);
        let taken = (0..=SETS_MAX).take_while(|_| sink.begin_set(&[]).is_ok()).count();
        assert_eq!(taken, SETS_MAX);
    }
}
