//! Reports the results: medians over the rounds as tables, and all samples as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::https_client::BenchHttp;
use super::load_generator::LoadSample;
use super::processes::BenchTarget;
use super::{IDLE, Plan};

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

/// Returns the median of a value over all samples, or NaN if there are none.
pub(crate) fn median(samples: &[LoadSample], value: impl Fn(&LoadSample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the names of a target's processes, in the order of `LoadSample::cpu`.
fn processes(target: BenchTarget) -> &'static [&'static str] {
    match target {
        BenchTarget::Fjord(_) | BenchTarget::Go(_) => {
            &["gateway", "worker", "nats-server", "caller"]
        }
        BenchTarget::Nats => &["responder", "nats-server", "requester"],
        BenchTarget::Https(_) => &["server", "caller"],
    }
}

/// Returns the CPU time per request of one process, in microseconds.
fn cpu(samples: &[LoadSample], index: usize) -> f64 {
    median(samples, |sample| sample.cpu.get(index).copied().unwrap_or(f64::NAN) * 1000.0)
}

fn row(name: &str, target: BenchTarget, samples: &[LoadSample]) {
    let micros = |index: usize| {
        median(samples, |sample| sample.micros.get(index).copied().unwrap_or_default().into())
    };
    let failures: u64 = samples.iter().map(|sample| sample.failures).sum();
    let cpus: Vec<String> = processes(target)
        .iter()
        .enumerate()
        .map(|(index, process)| format!("{process} {:.1}", cpu(samples, index)))
        .collect();
    println!(
        "{name:<14} {:>8.0}/s  p50 {:>6.0}  p99 {:>6.0}  p99.9 {:>6.0} us  failed {failures}  cpu: {}",
        median(samples, |sample| sample.per_second),
        micros(0),
        micros(1),
        micros(2),
        cpus.join(", ")
    );
}

impl BenchReport {
    /// Returns the capacity of a target in requests per second.
    pub(crate) fn capacity(&self, target: BenchTarget, concurrency: usize) -> f64 {
        let samples = self.closed.get(&(concurrency, target));
        median(samples.map_or(&[], Vec::as_slice), |sample| sample.per_second)
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        println!(
            "\nClosed loop. cpu: microseconds per request (= CPU seconds per 1,000 requests x 1,000)"
        );
        for ((concurrency, target), samples) in &self.closed {
            row(&format!("{:<8} {concurrency:>4}", target.name()), *target, samples);
        }
        if let Some(rate) = self.rate {
            println!("\nAt {rate:.0} requests/s, latency from when each was due");
        }
        for (target, samples) in &self.open {
            row(target.name(), *target, samples);
        }
        println!(
            "\nfjord's processor time, as a multiple of what NATS and TLS cost alone (reach: 1.35)"
        );
        for ((concurrency, http), [gateway, worker]) in self.ratios() {
            println!("{http:?} {concurrency:>4}: gateway {gateway:.2}, worker {worker:.2}");
        }
        println!(
            "\nWhat fjord reaches of what HTTPS and NATS allow one after the other (reach: 0.6)"
        );
        for ((concurrency, http), share) in self.shares() {
            println!("{http:?} {concurrency:>4}: {share:.2}");
        }
        if let Some(version) = &self.go_version {
            println!(
                "\nWhat {version} takes, as a multiple of fjord's processor time (reach: 1.5)"
            );
        }
        for ((concurrency, http), times) in self.of_go() {
            println!("{http:?} {concurrency:>4}: both roles {times:.2}");
        }
        println!("\nWhat fjord adds at concurrency 1 to the p50 of HTTPS and NATS (target: 60 us)");
        for http in [BenchHttp::H1, BenchHttp::H2] {
            let added = self.added(http);
            if !added.is_nan() {
                println!("{http:?}: {added:.0} us");
            }
        }
        println!("\nResident memory");
        for (name, values) in &self.idle {
            let Some(idle) = values.first() else { continue };
            print!("{name:<8} idle {:.1} MiB", idle / 1024.0);
            for (number, kib) in IDLE.iter().zip(values.iter().skip(1)) {
                let each = (kib - idle) / f64::from(u32::try_from(*number).unwrap_or(u32::MAX));
                print!(", {number} idle connections {:.1} MiB ({each:.1} KiB each)", kib / 1024.0);
            }
            println!();
        }
        for (concurrency, target) in
            [(256, BenchTarget::Fjord(BenchHttp::H1)), (256, BenchTarget::Https(BenchHttp::H1))]
        {
            let Some(samples) = self.closed.get(&(concurrency, target)) else { continue };
            print!("{} at {concurrency}:", target.name());
            let measured = samples.first().map_or(0, |sample| sample.resident_kib.len());
            for (index, process) in processes(target).iter().take(measured).enumerate() {
                let kib = median(samples, |sample| {
                    sample.resident_kib.get(index).copied().unwrap_or_default()
                });
                print!(" {process} {:.1} MiB", kib / 1024.0);
            }
            println!();
        }
    }

    /// Returns the CPU time of gateway and worker as multiples of that of the reference servers.
    fn ratios(&self) -> BTreeMap<(usize, BenchHttp), [f64; 2]> {
        let mut found = BTreeMap::new();
        for ((concurrency, target), fjord) in &self.closed {
            let BenchTarget::Fjord(http) = *target else { continue };
            let of =
                |target| self.closed.get(&(*concurrency, target)).map_or(&[][..], Vec::as_slice);
            let (nats, https) = (of(BenchTarget::Nats), of(BenchTarget::Https(http)));
            let gateway = cpu(fjord, 0) / (cpu(https, 0) + cpu(nats, 2));
            found.insert((*concurrency, http), [gateway, cpu(fjord, 1) / cpu(nats, 0)]);
        }
        found
    }

    /// Returns fjord's capacity as a share of the capacity at which a request would cost as much as
    /// one over HTTPS alone plus one over NATS alone, on the same cores.
    fn shares(&self) -> BTreeMap<(usize, BenchHttp), f64> {
        let found = self.closed.keys().filter_map(|(concurrency, target)| {
            let BenchTarget::Fjord(http) = *target else { return None };
            let each = |target| 1.0 / self.capacity(target, *concurrency);
            let allowed = 1.0 / (each(BenchTarget::Https(http)) + each(BenchTarget::Nats));
            Some(((*concurrency, http), self.capacity(*target, *concurrency) / allowed))
        });
        found.collect()
    }

    /// Returns the CPU time of both Go processes as a multiple of fjord's, if Go is measured.
    fn of_go(&self) -> BTreeMap<(usize, BenchHttp), f64> {
        let both = |samples: &[LoadSample]| cpu(samples, 0) + cpu(samples, 1);
        let found = self.closed.iter().filter_map(|((concurrency, target), go)| {
            let BenchTarget::Go(http) = *target else { return None };
            let fjord = self.closed.get(&(*concurrency, BenchTarget::Fjord(http)))?;
            Some(((*concurrency, http), both(go) / both(fjord)))
        });
        found.collect()
    }

    /// Returns the latency that fjord adds to HTTPS and NATS at concurrency 1, in microseconds.
    fn added(&self, http: BenchHttp) -> f64 {
        let half = |target| {
            let samples = self.closed.get(&(1, target)).map_or(&[][..], Vec::as_slice);
            median(samples, |sample| sample.micros[0].into())
        };
        half(BenchTarget::Fjord(http)) - half(BenchTarget::Https(http)) - half(BenchTarget::Nats)
    }

    /// Returns all samples as JSON.
    pub(crate) fn json(&self, plan: &Plan) -> Value {
        let closed: Vec<Value> = self
            .closed
            .iter()
            .map(|((concurrency, target), samples)| {
                json!({ "target": target.name(), "concurrency": concurrency,
                        "processes": processes(*target), "samples": samples })
            })
            .collect();
        let open: Vec<Value> = self
            .open
            .iter()
            .map(|(target, samples)| {
                json!({ "target": target.name(), "processes": processes(*target), "samples": samples })
            })
            .collect();
        let ratios: Vec<Value> = self
            .ratios()
            .into_iter()
            .map(|((concurrency, http), [gateway, worker])| {
                json!({ "concurrency": concurrency, "http": http, "gateway": gateway, "worker": worker })
            })
            .collect();
        let shares: Vec<Value> = self
            .shares()
            .into_iter()
            .map(|((concurrency, http), share)| {
                json!({ "concurrency": concurrency, "http": http, "of_allowed": share })
            })
            .collect();
        let added = json!({ "h1": self.added(BenchHttp::H1), "h2": self.added(BenchHttp::H2) });
        json!({ "capacity": shares, "p50_added_micros": added, "go": self.go_version, "rounds": plan.rounds, "seconds": plan.seconds, "rate": self.rate,
                "closed": closed, "open": open, "ratios": ratios, "resident_kib": self.idle })
    }
}
