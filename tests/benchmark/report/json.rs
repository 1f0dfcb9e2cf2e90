//! Writes all samples as JSON.

use serde_json::{Value, json};

use super::super::Plan;
use super::super::load_generator::LoadSample;
use super::super::processes::BenchTarget;
use super::{BenchReport, processes};

impl BenchReport {
    /// Returns all samples as JSON.
    pub(crate) fn json(&self, plan: &Plan) -> Value {
        let entry = |target: &BenchTarget, concurrency: Option<usize>, samples: &[LoadSample]| {
            json!({ "target": target.name(), "concurrency": concurrency,
                    "processes": processes(*target), "samples": samples })
        };
        let closed = self.closed.iter();
        let closed: Vec<Value> =
            closed.map(|((n, target), s)| entry(target, Some(*n), s)).collect();
        let open: Vec<Value> = self.open.iter().map(|(target, s)| entry(target, None, s)).collect();
        json!({ "rounds": plan.rounds, "seconds": plan.seconds, "slots": plan.slots,
                "go": self.go_version, "rate": self.rate, "closed": closed, "open": open,
                "resident_kib": self.idle })
    }
}
