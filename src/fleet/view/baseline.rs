//! The earlier reports from which rates are computed: for each process, the last report that contains queues.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::Report;

use super::nats_server::ServerSample;
use super::{FleetSnapshot, ReportPair};

/// The maximum number of earlier reports that are kept because the latest reply of the process is missing or
/// incomplete.
const KEPT_MAX: usize = 100;

/// For each process, the last report that contains at least some of its queues; and the last sample of each NATS
/// server.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// The age at which a report is discarded because it no longer describes the current state.
    age_max: Duration,
    reports: HashMap<String, (Instant, Report)>,
    servers: HashMap<String, ServerSample>,
    /// Whether the last snapshot was incomplete because a limit was reached.
    pub(super) is_cut_off: bool,
}

impl Baseline {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self { age_max, reports: HashMap::new(), servers: HashMap::new(), is_cut_off: false }
    }

    /// Replaces the reports with those of a later snapshot. If a process has not replied or its reply contains no
    /// queues, its earlier report is kept until it is too old. At most `KEPT_MAX` reports are kept in this way.
    pub(crate) fn update(&mut self, now: Instant, snapshot: FleetSnapshot) {
        let mut earlier = std::mem::take(&mut self.reports);
        for report in snapshot.reports {
            if !report.is_truncated || !report.queues.is_empty() {
                earlier.remove(&report.id);
                self.reports.insert(report.id.clone(), (now, report));
            }
        }
        let age_max = self.age_max;
        earlier.retain(|_, (at, _)| now.saturating_duration_since(*at) < age_max);
        let mut earlier: Vec<_> = earlier.into_iter().collect();
        earlier.sort_by_key(|(_, (at, _))| std::cmp::Reverse(*at));
        self.reports.extend(earlier.into_iter().take(KEPT_MAX));
        self.servers.retain(|_, sample| now.saturating_duration_since(sample.at) < age_max);
        let samples = snapshot.servers.into_iter();
        self.servers.extend(samples.filter_map(|(url, sample)| Some((url, sample.ok()?))));
        self.is_cut_off = snapshot.is_cut_off;
    }

    /// Returns the number of processes.
    pub(crate) fn processes(&self) -> usize {
        self.reports.len()
    }

    /// Returns the number of NATS servers.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Returns a later report together with the earlier report of the same process.
    pub(super) fn pair<'a>(&'a self, now: &'a Report) -> ReportPair<'a> {
        ReportPair::new(self.reports.get(&now.id).map(|(_, report)| report), now)
    }

    pub(super) fn server(&self, url: &str) -> Option<&ServerSample> {
        self.servers.get(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(reports: impl IntoIterator<Item = (&'static str, f64, bool)>) -> FleetSnapshot {
        let report = |(id, uptime_seconds, is_truncated): (&str, f64, bool)| Report {
            id: id.to_owned(),
            uptime_seconds,
            is_truncated,
            ..Report::default()
        };
        let reports = reports.into_iter().map(report).collect();
        FleetSnapshot { reports, is_cut_off: false, servers: Vec::new() }
    }

    fn seconds(baseline: &Baseline, id: &'static str, uptime_seconds: f64) -> Option<f64> {
        let now = snapshot([(id, uptime_seconds, false)]);
        baseline.pair(&now.reports[0]).seconds()
    }

    #[test]
    fn a_process_keeps_its_last_complete_report_until_it_is_too_old() {
        let mut baseline = Baseline::new(Duration::from_secs(15));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        baseline.update(at(0), snapshot([("a", 100.0, false), ("b", 100.0, false)]));
        // The reply of `a` contains no queues, and the reply of `b` is missing.
        baseline.update(at(5), snapshot([("a", 105.0, true), ("c", 1.0, false)]));
        assert_eq!(seconds(&baseline, "a", 110.0), Some(10.0));
        assert_eq!(seconds(&baseline, "b", 110.0), Some(10.0));
        assert_eq!(seconds(&baseline, "c", 6.0), Some(5.0));
        assert_eq!(seconds(&baseline, "new", 6.0), None);
        baseline.update(at(15), snapshot([("a", 115.0, true), ("c", 11.0, false)]));
        assert_eq!(seconds(&baseline, "a", 120.0), None, "100 s to 120 s is not now");
        assert_eq!(seconds(&baseline, "c", 11.05), None, "this may be the same report");
        assert_eq!(baseline.processes(), 1);
    }

    #[test]
    fn the_number_of_reports_without_a_reply_is_limited() {
        let mut baseline = Baseline::new(Duration::from_mins(1));
        let start = Instant::now();
        for step in 0..5_u32 {
            let report = |n: u32| Report { id: format!("{step}-{n}"), ..Report::default() };
            let reports = (0..80).map(report).collect();
            let later = FleetSnapshot { reports, is_cut_off: false, servers: Vec::new() };
            baseline.update(start + Duration::from_secs(5) * step, later);
        }
        assert_eq!(baseline.processes(), 80 + KEPT_MAX);
        let count = |step: &str| baseline.reports.keys().filter(|id| id.starts_with(step)).count();
        assert_eq!((count("4-"), count("3-"), count("2-"), count("1-")), (80, 80, 20, 0));
    }
}
