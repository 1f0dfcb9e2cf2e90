//! Records the work of a worker: load, metrics, spans, readiness, and reports to the fleet.

pub mod load;
pub mod queue_metrics;
pub mod readiness;
pub mod report;
pub mod spans;
