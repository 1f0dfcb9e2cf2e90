//! Executes the command that temporarily changes the log filter of a process.

use std::time::Duration;

use tokio::time::sleep;

use super::ControlResult;
use crate::config::limits::TEMPORARY_FILTER;
use crate::lifecycle::Tasks;
use crate::telemetry::logs;
use crate::units::format_duration;

/// Adds directives to the log filter. A task removes them after `duration`.
pub(super) fn apply(filter: &str, duration: Duration, tasks: &Tasks) -> ControlResult {
    let limit = TEMPORARY_FILTER;
    if duration < limit.floor || duration > limit.ceiling {
        let (floor, ceiling) = (format_duration(limit.floor), format_duration(limit.ceiling));
        return Err(vec![format!("expected a duration from {floor} to {ceiling}")]);
    }
    let number = logs::set_temporary_filter(filter).map_err(|error| vec![error.to_string()])?;
    let _detached = tasks.spawn_background(async move {
        sleep(duration).await;
        if logs::end_temporary_filter(number) {
            tracing::info!("the temporary log filter has ended");
        }
    });
    Ok(vec![format!("logs {filter} for {}", format_duration(duration))])
}
