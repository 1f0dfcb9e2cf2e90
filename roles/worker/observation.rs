//! A worker's observability: its load, metrics, spans, readiness and status reports.

pub mod load;
pub mod queue_metrics;
pub mod readiness;
pub mod report;
pub mod spans;
