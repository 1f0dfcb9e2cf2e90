//! Records what a worker does: metrics, spans, readiness and reports to the fleet.

pub mod load;
pub(super) mod queue_metrics;
pub mod readiness;
pub(super) mod report;
pub(super) mod spans;
