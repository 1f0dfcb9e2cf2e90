//! Ratios between targets that were measured in the same round.

use super::super::https_client::BenchHttp;
use super::super::load_generator::LoadSample;
use super::super::processes::BenchTarget;
use super::BenchReport;

/// The ratios of all rounds.
pub(crate) struct PairedRatio(Vec<f64>);

impl PairedRatio {
    /// Divides a value of one target by that of another, round by round.
    pub(crate) fn new(
        (above, below): (&[LoadSample], &[LoadSample]),
        value: impl Fn(&LoadSample) -> f64,
    ) -> Self {
        let pairs = above.iter().zip(below);
        let mut ratios: Vec<f64> =
            pairs.map(|(above, below)| value(above) / value(below)).collect();
        ratios.sort_by(f64::total_cmp);
        Self(ratios)
    }

    /// Returns the median, or NaN if there are no rounds.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for PairedRatio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, most] = [self.0.first(), self.0.last()].map(|r| r.copied().unwrap_or(f64::NAN));
        write!(f, "{:.2} ({least:.2}-{most:.2})", self.median())
    }
}

/// Returns the CPU time per request of gateway and worker.
pub(super) fn both_roles(sample: &LoadSample) -> f64 {
    sample.usage.iter().take(2).map(|usage| usage.cpu()).sum()
}

impl BenchReport {
    /// Returns the samples of a target at a concurrency.
    pub(super) fn samples(&self, concurrency: usize, target: BenchTarget) -> &[LoadSample] {
        self.closed.get(&(concurrency, target)).map_or(&[], Vec::as_slice)
    }

    /// Returns every combination of concurrency and protocol that was measured.
    pub(super) fn combinations(&self) -> Vec<(usize, BenchHttp)> {
        let fjord = self.closed.keys().filter_map(|(concurrency, target)| match target {
            BenchTarget::Fjord(http) => Some((*concurrency, *http)),
            _ => None,
        });
        fjord.collect()
    }

    /// Prints the additional CPU time that Go takes.
    pub(super) fn print_go(&self) {
        let Some(version) = &self.go_version else { return };
        println!(
            "\nCPU time of gateway and worker: {version} divided by fjord (goal 1.75 over HTTP/1.1, 2 over HTTP/2)"
        );
        for (concurrency, http) in self.combinations() {
            let pair = (
                self.samples(concurrency, BenchTarget::Go(http)),
                self.samples(concurrency, BenchTarget::Fjord(http)),
            );
            println!("{http:?} {concurrency:>4}: {}", PairedRatio::new(pair, both_roles));
        }
    }

    /// Prints the CPU time compared with the other build of fjord. The NATS servers run the same executable, so their
    /// ratio shows the accuracy of the other ratios.
    pub(super) fn print_base(&self) {
        for (concurrency, http) in self.combinations() {
            let base = self.samples(concurrency, BenchTarget::Base(http));
            if base.is_empty() {
                return;
            }
            let pair = (self.samples(concurrency, BenchTarget::Fjord(http)), base);
            let of = |index: usize| {
                PairedRatio::new(pair, |s| s.usage.get(index).map_or(f64::NAN, |usage| usage.cpu()))
            };
            println!(
                "{http:?} {concurrency:>4}: CPU time divided by that of the base: gateway {}, worker {}, nats-server {}",
                of(0),
                of(1),
                of(2)
            );
        }
    }
}
