//! The figures as tables and as JSON: medians over the rounds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::caller::Sample;
use super::https::Http;
use super::stage::Target;
use super::{IDLE, Plan};

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    /// Capacity by concurrency and target, a sample for each round.
    pub(crate) closed: BTreeMap<(usize, Target), Vec<Sample>>,
    /// Latency by target.
    pub(crate) open: BTreeMap<Target, Vec<Sample>>,
    /// Requests per second of `open`.
    pub(crate) rate: Option<f64>,
    /// Resident KiB: with no connection, and with so many idle ones.
    pub(crate) idle: BTreeMap<String, Vec<f64>>,
    /// Which Go and which client library were measured, if any.
    pub(crate) go_version: Option<String>,
}

/// The median of a figure; not a number where there is no sample.
pub(crate) fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The processes of a target, as `Sample::cpu` has them.
fn processes(target: Target) -> &'static [&'static str] {
    match target {
        Target::Fjord(_) | Target::Go(_) => &["gateway", "worker", "nats-server", "caller"],
        Target::Nats => &["responder", "nats-server", "requester"],
        Target::Https(_) => &["server", "caller"],
    }
}

/// Processor microseconds per request of one process.
fn cpu(samples: &[Sample], place: usize) -> f64 {
    median(samples, |sample| sample.cpu.get(place).copied().unwrap_or(f64::NAN) * 1000.0)
}

fn row(name: &str, target: Target, samples: &[Sample]) {
    let micros = |place: usize| {
        median(samples, |sample| sample.micros.get(place).copied().unwrap_or_default().into())
    };
    let failures: u64 = samples.iter().map(|sample| sample.failures).sum();
    let cpus: Vec<String> = processes(target)
        .iter()
        .enumerate()
        .map(|(place, process)| format!("{process} {:.1}", cpu(samples, place)))
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

impl Report {
    /// Requests per second that a target answered.
    pub(crate) fn capacity(&self, target: Target, concurrency: usize) -> f64 {
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
        println!(
            "\nAt {:.0} requests/s, latency from when each was due",
            self.rate.unwrap_or(f64::NAN)
        );
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
        println!("\nWhat fjord adds at concurrency 1 to the p50 of HTTPS and NATS (reach: 60 us)");
        for http in [Http::H1, Http::H2] {
            println!("{http:?}: {:.0} us", self.added(http));
        }
        println!("\nResident memory");
        for (name, figures) in &self.idle {
            let idle = figures.first().copied().unwrap_or(f64::NAN);
            print!("{name:<8} idle {:.1} MiB", idle / 1024.0);
            for (number, kib) in IDLE.iter().zip(figures.iter().skip(1)) {
                let each = (kib - idle) / f64::from(u32::try_from(*number).unwrap_or(u32::MAX));
                print!(", {number} idle connections {:.1} MiB ({each:.1} KiB each)", kib / 1024.0);
            }
            println!();
        }
        for (concurrency, target) in
            [(256, Target::Fjord(Http::H1)), (256, Target::Https(Http::H1))]
        {
            let samples = self.closed.get(&(concurrency, target)).map_or(&[][..], Vec::as_slice);
            let first = |place: usize| {
                median(samples, |s| s.resident_kib.get(place).copied().unwrap_or(f64::NAN) / 1024.0)
            };
            println!(
                "{} at {concurrency}: {:.1} MiB, second {:.1} MiB",
                target.name(),
                first(0),
                first(1)
            );
        }
    }

    /// Gateway and worker against what their two hops cost alone.
    fn ratios(&self) -> BTreeMap<(usize, Http), [f64; 2]> {
        let mut found = BTreeMap::new();
        for ((concurrency, target), fjord) in &self.closed {
            let Target::Fjord(http) = *target else { continue };
            let of =
                |target| self.closed.get(&(*concurrency, target)).map_or(&[][..], Vec::as_slice);
            let (nats, https) = (of(Target::Nats), of(Target::Https(http)));
            let gateway = cpu(fjord, 0) / (cpu(https, 0) + cpu(nats, 2));
            found.insert((*concurrency, http), [gateway, cpu(fjord, 1) / cpu(nats, 0)]);
        }
        found
    }

    /// fjord's capacity as a part of what the same cores would do of HTTPS and NATS, each as often.
    fn shares(&self) -> BTreeMap<(usize, Http), f64> {
        let found = self.closed.keys().filter_map(|(concurrency, target)| {
            let Target::Fjord(http) = *target else { return None };
            let each = |target| 1.0 / self.capacity(target, *concurrency);
            let allowed = 1.0 / (each(Target::Https(http)) + each(Target::Nats));
            Some(((*concurrency, http), self.capacity(*target, *concurrency) / allowed))
        });
        found.collect()
    }

    /// Processor time of gateway and worker in Go as a multiple of fjord's, where it was measured.
    fn of_go(&self) -> BTreeMap<(usize, Http), f64> {
        let both = |samples: &[Sample]| cpu(samples, 0) + cpu(samples, 1);
        let found = self.closed.iter().filter_map(|((concurrency, target), go)| {
            let Target::Go(http) = *target else { return None };
            let fjord = self.closed.get(&(*concurrency, Target::Fjord(http)))?;
            Some(((*concurrency, http), both(go) / both(fjord)))
        });
        found.collect()
    }

    /// Microseconds that fjord adds to the two hops, when nobody waits for anybody.
    fn added(&self, http: Http) -> f64 {
        let half = |target| {
            let samples = self.closed.get(&(1, target)).map_or(&[][..], Vec::as_slice);
            median(samples, |sample| sample.micros[0].into())
        };
        half(Target::Fjord(http)) - half(Target::Https(http)) - half(Target::Nats)
    }

    /// Everything, sample by sample.
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
        let added = json!({ "h1": self.added(Http::H1), "h2": self.added(Http::H2) });
        json!({ "capacity": shares, "p50_added_micros": added, "go": self.go_version, "rounds": plan.rounds, "seconds": plan.seconds, "rate": self.rate,
                "closed": closed, "open": open, "ratios": ratios, "resident_kib": self.idle })
    }
}
