//! The tables of the procedure call benchmark.

use std::collections::BTreeMap;

use super::{CallResult, WorkerKind};
use crate::benchmark::load_generator::LoadSample;
use crate::benchmark::report::median;

/// The samples, one per round.
#[derive(Default)]
pub(super) struct ProcedureReport {
    samples: BTreeMap<(CallResult, usize, WorkerKind), Vec<LoadSample>>,
}

/// The ratio of two workers, computed from the samples of each round: the median and the range.
#[derive(Clone, Copy, Debug)]
struct RatioSpread {
    median: f64,
    least: f64,
    most: f64,
}

impl RatioSpread {
    fn new(mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let median = *ratios.get(ratios.len() / 2)?;
        Some(Self { median, least: *ratios.first()?, most: *ratios.last()? })
    }

    fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// Returns the CPU time of the worker per call, in microseconds.
fn cpu(sample: &LoadSample) -> f64 {
    sample.usage.first().map_or(f64::NAN, |usage| usage.cpu() * 1000.0)
}

fn kernel(sample: &LoadSample) -> f64 {
    sample.usage.first().map_or(f64::NAN, |usage| usage.kernel * 1000.0)
}

impl ProcedureReport {
    pub(super) fn add(
        &mut self,
        result: CallResult,
        concurrency: usize,
        kind: WorkerKind,
        sample: LoadSample,
    ) {
        self.samples.entry((result, concurrency, kind)).or_default().push(sample);
    }

    /// Prints the medians over the rounds, and the ratio of fjord to each other worker.
    pub(super) fn print(&self) {
        println!(
            "CPU time is that of the worker. Ratios are from the samples of the same round, with their range."
        );
        let mut title = None;
        for ((result, concurrency, kind), samples) in &self.samples {
            if title != Some((*result, *concurrency)) {
                title = Some((*result, *concurrency));
                println!("\n{}, {concurrency} concurrent calls", result.name());
            }
            let failures: u64 = samples.iter().map(|sample| sample.failures).sum();
            print!(
                "  {:<29} {:>8.0} calls/s  {:>8.1} us CPU (kernel {:>6.1})  p50 {:>7.0} us  p99 {:>7.0} us  failed {failures}",
                kind.name(),
                median(samples, |sample| sample.per_second),
                median(samples, cpu),
                median(samples, kernel),
                median(samples, |sample| f64::from(sample.micros[0])),
                median(samples, |sample| f64::from(sample.micros[1])),
            );
            if *kind != WorkerKind::Fjord {
                let fjord = self.samples.get(&(*result, *concurrency, WorkerKind::Fjord));
                print!("{}", ratios(fjord.map_or(&[][..], Vec::as_slice), samples));
            }
            println!();
        }
    }
}

/// Returns the throughput of fjord relative to another worker, and that worker's CPU time relative
/// to fjord's. Both are above 1 if fjord is better.
fn ratios(fjord: &[LoadSample], other: &[LoadSample]) -> String {
    let ratio = |value: fn(&LoadSample, &LoadSample) -> f64| {
        RatioSpread::new(
            fjord.iter().zip(other).map(|(fjord, other)| value(fjord, other)).collect(),
        )
    };
    let rate = ratio(|fjord, other| fjord.per_second / other.per_second);
    let cpu = ratio(|fjord, other| cpu(other) / cpu(fjord));
    let text = |ratio: Option<RatioSpread>| ratio.map_or_else(String::new, RatioSpread::text);
    format!("\n  {:<29} {} × the calls/s, {} × the calls per CPU second", "", text(rate), text(cpu))
}
