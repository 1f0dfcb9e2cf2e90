//! Collects the state of the fleet for the page of the admin listener while somebody is viewing it.
//!
//! Every process answers each query, so a query costs more in a larger fleet. Moreover, every process that serves the
//! page can send queries. Therefore, collection starts only when the page is opened, and ends `LINGER` after the last
//! request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::lifecycle::Tasks;
use crate::messaging::{LinkState, Transport};

use super::query::{self, QueryLimits, Replies};
use super::view::{Baseline, FleetSnapshot, FleetView};
use super::{FleetMember, Report};

mod document;
mod history;
mod members;

use history::FleetHistory;
pub(crate) use members::{KnownMembers, MissingMember};

/// The time that the history covers.
const HISTORY_TIME: Duration = Duration::from_mins(15);
/// The time between two queries.
const INTERVAL: Duration = Duration::from_secs(5);
/// The time between the first two queries, from which the first rates are computed.
const INTERVAL_FIRST: Duration = Duration::from_secs(1);
/// How long collection continues after the last request for its data. The history then has no gap if the page is opened
/// again.
const LINGER: Duration = HISTORY_TIME;
/// The maximum time to wait for the reports of the fleet.
const QUERY_TIME_MAX: Duration = Duration::from_secs(3);
/// The age at which the earlier report of a process is considered outdated. Two consecutive replies of the process may
/// be missing before the report reaches this age.
const REPORT_AGE_MAX: Duration = Duration::from_secs(15);
/// The maximum total size of the reports in bytes. Memory holds up to two sets of reports, and the earlier reports of
/// some processes that have not replied since.
const REPORT_BYTES_MAX: usize = 16 << 20;

/// A function that returns the data for the page as JSON, with the history of one queue or of the whole fleet. It does
/// not block.
pub type DocumentSource = Arc<dyn Fn(Option<&str>) -> Vec<u8> + Send + Sync>;

/// The collected state of the fleet.
struct FleetMonitor {
    member: Arc<FleetMember>,
    transport: Arc<dyn Transport>,
    covers_fleet: bool,
    requested: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the data was last requested.
    requested_at: Option<Instant>,
    collected: Collected,
}

/// The data that is discarded when the collection ends.
#[derive(Default)]
struct Collected {
    /// The reports from which the next rates are computed. `None` before the first query and during an evaluation.
    baseline: Option<Baseline>,
    view: Option<FleetView>,
    /// Whether the view includes reports of other processes.
    is_fleet: bool,
    /// When the view was computed.
    sampled_at: Option<Instant>,
    /// The reason why the last query failed.
    failure: Option<String>,
    /// Whether there were more reports than the limits allow.
    is_cut_off: bool,
    history: FleetHistory,
    members: KnownMembers,
}

/// Creates a monitor and returns the source of its data. The monitor collects nothing until its data is requested. If
/// `covers_fleet` is false, it never sends a query, and its data covers only this process.
pub fn start(
    member: &Arc<FleetMember>,
    covers_fleet: bool,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> DocumentSource {
    let monitor = Arc::new(FleetMonitor {
        member: Arc::clone(member),
        transport: Arc::clone(transport),
        covers_fleet,
        requested: Notify::new(),
        state: Mutex::default(),
    });
    let _detached = tasks.spawn_background(Arc::clone(&monitor).collect());
    Arc::new(move |queue| monitor.document(queue))
}

impl FleetMonitor {
    /// Returns the data for the page as JSON, with the history of one queue or of the whole fleet. Starts collection if
    /// it is not running.
    fn document(&self, queue: Option<&str>) -> Vec<u8> {
        let now = Instant::now();
        let mut state = self.state();
        state.requested_at = Some(now);
        let nats = match self.transport.link().borrow().state {
            LinkState::Up => "up",
            LinkState::LameDuck => "lame_duck",
            LinkState::SubscriptionRefused => "subscription_refused",
            LinkState::Down => "down",
        };
        let process = &self.member.identity;
        let document = document::render(
            &document::Source { process, covers_fleet: self.covers_fleet, nats, now },
            &state.collected,
            queue,
        );
        drop(state);
        self.requested.notify_one();
        document
    }

    async fn collect(self: Arc<Self>) {
        loop {
            self.requested.notified().await;
            let mut interval = INTERVAL_FIRST;
            while self.is_requested() {
                let next = Instant::now() + interval;
                self.sample().await;
                interval = INTERVAL;
                sleep_until(next).await;
            }
            self.state().collected = Collected::default();
        }
    }

    fn is_requested(&self) -> bool {
        self.state().requested_at.is_some_and(|at| at.elapsed() < LINGER)
    }

    async fn sample(self: &Arc<Self>) {
        let asked = if self.covers_fleet { self.query().await.map(Some) } else { Ok(None) };
        let monitor = Arc::clone(self);
        // Parsing the reports of a large fleet takes several milliseconds.
        let recorded = tokio::task::spawn_blocking(move || monitor.record(asked)).await;
        if let Err(error) = recorded {
            tracing::error!(%error, "cannot evaluate the reports of the fleet");
        }
    }

    async fn query(&self) -> Result<Replies, String> {
        let expected = self.state().collected.baseline.as_ref().map_or(0, Baseline::processes);
        let limits = QueryLimits { expected, time: QUERY_TIME_MAX, bytes: REPORT_BYTES_MAX };
        let prefix = &self.member.identity.prefix;
        let replies = query::query(&*self.transport, prefix, limits).await;
        let replies = replies.map_err(|error| format!("cannot query the fleet: {error}"))?;
        if replies.messages.is_empty() {
            return Err(format!(
                "no process has replied on {prefix}.{}: the NATS user of this process needs permission to publish \
                 there, and the users of all processes need permission to publish to its inbox",
                query::STATUS_TOKEN
            ));
        }
        Ok(replies)
    }

    /// Records the replies to a query. `None` records only this process.
    fn record(&self, asked: Result<Option<Replies>, String>) {
        let replies = asked.as_ref().ok().and_then(Option::as_ref);
        let mut reports = replies.map_or_else(Vec::new, |replies| query::parse(&replies.messages));
        let is_cut_off = replies.is_some_and(|replies| replies.is_cut_off);
        let is_fleet = replies.is_some();
        self.add_own_report(&mut reports);
        let later = FleetSnapshot { reports, is_cut_off, servers: Vec::new() };
        let baseline = self.state().collected.baseline.take();
        let view = baseline.as_ref().map(|baseline| FleetView::since(baseline, &later));
        let now = Instant::now();
        let mut state = self.state();
        let collected = &mut state.collected;
        collected.failure = asked.err();
        if collected.failure.is_some() && collected.is_fleet {
            // The previous view of the fleet is more useful than a view of this process alone.
            collected.history.add_gap(now);
            collected.baseline = baseline;
            return;
        }
        if is_fleet {
            collected.members.update(now, &later.reports);
        }
        if let Some(view) = view {
            collected.history.add(now, &view);
            collected.sampled_at = Some(now);
            collected.is_fleet = is_fleet;
            collected.view = Some(view);
        }
        collected.is_cut_off = is_cut_off;
        let mut baseline = baseline.unwrap_or_else(|| Baseline::new(REPORT_AGE_MAX));
        baseline.update(now, later);
        collected.baseline = Some(baseline);
    }

    /// Adds the report of this process if its reply has not arrived.
    fn add_own_report(&self, reports: &mut Vec<Report>) {
        let own = self.member.report();
        if !reports.iter().any(|report| report.id == own.id) {
            reports.push((*own).clone());
            query::sort(reports);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
