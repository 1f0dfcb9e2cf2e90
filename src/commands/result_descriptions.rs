//! Describes the answers of many procedures, one after the other, with a time limit for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::catalogue::ProcedureName;
use crate::procedures::{Backend, ResultDescription};
use crate::telemetry::chain;

/// The longest wait for the description of one procedure.
const PROCEDURE_LIMIT: Duration = Duration::from_secs(5);

/// Describes the answers of procedures, in their order. If a procedure takes longer than `PROCEDURE_LIMIT`, or is not described
/// before `deadline`, its description says so. Cancel safe.
pub(super) async fn describe(
    backend: &Arc<dyn Backend>,
    procedures: &[ProcedureName],
    deadline: Instant,
) -> Vec<ResultDescription> {
    let mut descriptions = Vec::with_capacity(procedures.len());
    for procedure in procedures {
        let now = Instant::now();
        if now >= deadline {
            descriptions.push(ResultDescription::unknown("the time for all procedures is over"));
            continue;
        }
        let end = deadline.min(now + PROCEDURE_LIMIT);
        let described = match timeout_at(end, backend.describe_result(procedure)).await {
            Ok(described) => described.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer within {:.1?}", end - now)),
        };
        descriptions.push(described.unwrap_or_else(ResultDescription::unknown));
    }
    descriptions
}
