//! Reports the results: the medians over the rounds as tables, and the ratios between targets of the same
//! round.

use std::collections::BTreeMap;

use super::IDLE;
use super::https_client::BenchHttp;
use super::load_generator::LoadSample;
use super::processes::BenchTarget;

mod json;
mod ratios;

/// The results of the benchmark.
#[derive(Default)]
pub(crate) struct BenchReport {
    /// The samples of the closed loop by concurrency and target, one per round.
    pub(crate) closed: BTreeMap<(usize, BenchTarget), Vec<LoadSample>>,
    /// The samples at a fixed rate by target, one per round.
    pub(crate) open: BTreeMap<BenchTarget, Vec<LoadSample>>,
    /// The arrival rate of `open` in requests per second.
    pub(crate) rate: Option<f64>,
    /// The resident memory in KiB, without connections and with each number of idle connections.
    pub(crate) idle: BTreeMap<String, Vec<f64>>,
    /// The versions of Go and of its NATS client library, if Go is measured.
    pub(crate) go_version: Option<String>,
}

/// Returns the median of a value over all samples, or NaN if there are no samples.
pub(crate) fn median(samples: &[LoadSample], value: impl Fn(&LoadSample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the names of a target's processes, in the order of `LoadSample::usage`.
fn processes(target: BenchTarget) -> &'static [&'static str] {
    match target {
        BenchTarget::Fjord(_) | BenchTarget::Base(_) | BenchTarget::Go(_) => {
            &["gateway", "worker", "nats-server", "caller"]
        }
        BenchTarget::Nats => &["responder", "nats-server", "requester"],
        BenchTarget::Https(_) => &["server", "caller"],
    }
}

/// Returns the CPU time per request of one process, in microseconds.
fn cpu(samples: &[LoadSample], index: usize) -> f64 {
    median(samples, |sample| sample.usage.get(index).map_or(f64::NAN, |usage| usage.cpu()) * 1000.0)
}

fn row(name: &str, target: BenchTarget, samples: &[LoadSample]) {
    let micros = |index: usize| {
        median(samples, |sample| sample.micros.get(index).copied().unwrap_or_default().into())
    };
    let failures: u64 = samples.iter().map(|sample| sample.failures).sum();
    println!(
        "{name:<14} {:>8.0}/s  p50 {:>6.0}  p99 {:>6.0}  p99.9 {:>6.0} us  failed {failures}",
        median(samples, |sample| sample.per_second),
        micros(0),
        micros(1),
        micros(2)
    );
    for (index, process) in processes(target).iter().enumerate() {
        let usage = |value: fn(&super::process_usage::ProcessUsage) -> f64| {
            median(samples, |sample| sample.usage.get(index).map_or(f64::NAN, value))
        };
        println!(
            "    {process:<12} {:>6.1} us = {:>5.1} user + {:>5.1} kernel   waits {:.3}  preemptions {:.3}",
            cpu(samples, index),
            usage(|usage| usage.user * 1000.0),
            usage(|usage| usage.kernel * 1000.0),
            usage(|usage| usage.waits / 1000.0),
            usage(|usage| usage.preemptions / 1000.0),
        );
    }
}

impl BenchReport {
    /// Returns the capacity of a target in requests per second.
    pub(crate) fn capacity(&self, target: BenchTarget, concurrency: usize) -> f64 {
        median(self.samples(concurrency, target), |sample| sample.per_second)
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        self.print_go();
        self.print_base();
        println!("\nClosed loop. CPU time, waits and preemptions are per request.");
        for ((concurrency, target), samples) in &self.closed {
            row(&format!("{:<8} {concurrency:>4}", target.name()), *target, samples);
        }
        if let Some(rate) = self.rate {
            println!(
                "\nAt {rate:.0} requests/s. Latency from the time at which a request was scheduled."
            );
        }
        for (target, samples) in &self.open {
            row(target.name(), *target, samples);
        }
        self.print_hops();
        self.print_memory();
    }

    /// Prints a comparison with the cost of the two network hops alone.
    fn print_hops(&self) {
        println!(
            "\nCompared with HTTPS alone and NATS alone: CPU time (goal 1.35), capacity (goal 0.6)"
        );
        for (concurrency, http) in self.combinations() {
            let fjord = self.samples(concurrency, BenchTarget::Fjord(http));
            let nats = self.samples(concurrency, BenchTarget::Nats);
            let https = self.samples(concurrency, BenchTarget::Https(http));
            let gateway = cpu(fjord, 0) / (cpu(https, 0) + cpu(nats, 2));
            let worker = cpu(fjord, 1) / cpu(nats, 0);
            // The capacity at which a request would take as long as an HTTPS request followed by a NATS
            // request.
            let time = |target| 1.0 / self.capacity(target, concurrency);
            let allowed = 1.0 / (time(BenchTarget::Https(http)) + time(BenchTarget::Nats));
            let capacity = self.capacity(BenchTarget::Fjord(http), concurrency) / allowed;
            print!(
                "{http:?} {concurrency:>4}: gateway {gateway:.2}, worker {worker:.2}, capacity {capacity:.2}"
            );
            if concurrency == 1 {
                print!(", p50 + {:.0} us (goal 50)", self.added(http));
            }
            println!();
        }
    }

    fn print_memory(&self) {
        println!("\nResident memory");
        for (name, values) in &self.idle {
            let idle = values.first().copied().unwrap_or(f64::NAN);
            print!("{name:<8} idle {:.1} MiB", idle / 1024.0);
            for (number, kib) in IDLE.iter().zip(values.iter().skip(1)) {
                let each = (kib - idle) / f64::from(u32::try_from(*number).unwrap_or(u32::MAX));
                print!(", {number} idle connections {:.1} MiB ({each:.1} KiB each)", kib / 1024.0);
            }
            println!();
        }
        let busiest = self.combinations().into_iter().max();
        for target in [BenchTarget::Fjord(BenchHttp::H1), BenchTarget::Https(BenchHttp::H1)] {
            let Some((concurrency, _)) = busiest else { return };
            let samples = self.samples(concurrency, target);
            let measured = samples.first().map_or(0, |sample| sample.resident_kib.len());
            print!("{} with {concurrency} callers:", target.name());
            for (index, process) in processes(target).iter().enumerate().take(measured) {
                let kib =
                    median(samples, |s| s.resident_kib.get(index).copied().unwrap_or(f64::NAN));
                print!(" {process} {:.1} MiB", kib / 1024.0);
            }
            println!();
        }
    }

    /// Returns the latency that fjord adds to HTTPS and NATS at concurrency 1, in microseconds.
    fn added(&self, http: BenchHttp) -> f64 {
        let half = |target| median(self.samples(1, target), |sample| sample.micros[0].into());
        half(BenchTarget::Fjord(http)) - half(BenchTarget::Https(http)) - half(BenchTarget::Nats)
    }
}
