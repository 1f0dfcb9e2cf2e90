//! The notices in which EC2 announces that it will stop an instance.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::instance_metadata::InstanceMetadata;

/// The maximum age of a spot interruption. If the instance is still running this long after the announced time, the
/// interruption is considered over. The announced time is approximate.
const INTERRUPTION_AGE_MAX: Duration = Duration::from_mins(5);

/// The time between the notice of a spot interruption and the interruption.
const INTERRUPTION_WARNING: Duration = Duration::from_mins(2);

/// A reason to drain the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The autoscaling group is terminating the instance.
    Terminating,
    /// A spot instance will be interrupted. The fields are the action and the time at which it begins.
    SpotInterruption(String, String),
    /// A spot instance has been at elevated risk of interruption since this time.
    RebalanceRecommendation(String),
}

/// The kinds of notices. At most one notice of each kind is in effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminating,
    Spot,
    Rebalance,
}

impl Kind {
    async fn read(self, metadata: &mut InstanceMetadata) -> Result<Option<Notice>, String> {
        match self {
            Self::Terminating => terminating(metadata).await,
            Self::Spot => spot_interruption(metadata).await,
            Self::Rebalance => rebalance_recommendation(metadata).await,
        }
    }
}

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RebalanceDocument {
    notice_time: String,
}

impl Notice {
    /// Returns whether an interruption is over, for example because the instance has resumed from hibernation.
    /// `appeared_at` is the time at which the notice was first observed, if that time is known. In that case, the
    /// interruption is assumed to begin at least `INTERRUPTION_WARNING` later, even if the clock of this host is ahead.
    /// An interruption whose time has an unknown format is never over.
    fn has_passed(&self, appeared_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        let Self::SpotInterruption(_, time) = self else { return false };
        let Ok(time) = DateTime::parse_from_rfc3339(time) else { return false };
        let earliest = appeared_at.map_or(DateTime::<Utc>::MIN_UTC, |at| at + INTERRUPTION_WARNING);
        (now - time.to_utc().max(earliest)).to_std().is_ok_and(|age| age > INTERRUPTION_AGE_MAX)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Terminating => Kind::Terminating,
            Self::SpotInterruption(..) => Kind::Spot,
            Self::RebalanceRecommendation(_) => Kind::Rebalance,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminating => write!(f, "the autoscaling group is terminating this instance"),
            Self::SpotInterruption(action, time) => {
                write!(f, "this spot instance will be interrupted ({action}) at {time}")
            }
            Self::RebalanceRecommendation(time) => {
                write!(
                    f,
                    "this spot instance has had an elevated risk of interruption since {time}"
                )
            }
        }
    }
}

/// The notices that are in effect.
#[derive(Default)]
pub(super) struct Notices {
    standing: Vec<Notice>,
    /// Whether the metadata service has been successfully queried for an interruption.
    has_read_interruption: bool,
    /// The last interruption whose notice appeared after the first query, and the time at which it appeared.
    appeared: Option<(Notice, DateTime<Utc>)>,
    /// The last interruption that was over. The metadata service may still return its notice.
    passed: Option<Notice>,
}

/// The changes since the previous query.
#[derive(Default)]
pub(super) struct NoticeChanges {
    /// The new notices, starting with the most urgent one.
    pub(super) new: Vec<Notice>,
    /// The notices that the metadata service no longer returns, or that are over.
    pub(super) withdrawn: Vec<Notice>,
    /// An interruption that was already over when its notice was first read, assuming that the clock of this host is
    /// correct.
    pub(super) missed: Option<Notice>,
    /// The reason why the service could not be queried or some notices could not be read.
    pub(super) failure: Option<String>,
}

impl Notices {
    /// Returns whether no notice is in effect.
    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// Returns whether the autoscaling group is terminating the instance.
    pub(super) fn is_terminating(&self) -> bool {
        self.standing.contains(&Notice::Terminating)
    }

    /// Queries the metadata service. If a notice cannot be read, the last known notice of its kind remains in effect.
    /// Notices of other kinds are not affected. Cancel safe.
    pub(super) async fn refresh(
        &mut self,
        metadata: &mut InstanceMetadata,
        ignores_rebalance: bool,
    ) -> NoticeChanges {
        let mut changes = NoticeChanges::default();
        let mut failures = Vec::new();
        let mut standing = Vec::new();
        for kind in [Kind::Terminating, Kind::Spot, Kind::Rebalance] {
            if kind == Kind::Rebalance && ignores_rebalance {
                continue;
            }
            let result = match failures.last().cloned() {
                // Each further query would take just as long and delay the drain.
                Some(failure) if !metadata.is_reachable() => Err(failure),
                _ => kind.read(metadata).await,
            };
            let was_read = result.is_ok();
            let before = self.standing.iter().find(|notice| notice.kind() == kind);
            let now = match result {
                Ok(now) => now,
                Err(failure) => {
                    // If the service does not respond, the failure is the same for every notice.
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                    before.cloned()
                }
            };
            let time = Utc::now();
            if kind == Kind::Spot && was_read {
                let is_new = now.is_some() && before != now.as_ref() && self.passed != now;
                if self.has_read_interruption && is_new {
                    self.appeared = now.clone().map(|notice| (notice, time));
                }
                self.has_read_interruption = true;
            }
            let appeared_at = |notice: &Notice| {
                let appeared = self.appeared.as_ref().filter(|(known, _)| known == notice);
                appeared.map(|(_, at)| *at)
            };
            let has_passed = |notice: &Notice| notice.has_passed(appeared_at(notice), time);
            let (passed, now) =
                if now.as_ref().is_some_and(has_passed) { (now, None) } else { (None, now) };
            if let Some(passed) = passed
                && self.passed.as_ref() != Some(&passed)
            {
                changes.missed = Some(passed.clone()).filter(|passed| before != Some(passed));
                self.passed = Some(passed);
            }
            if before != now.as_ref() {
                // A notice that is replaced by another of the same kind is not reported as withdrawn.
                changes.withdrawn.extend(before.filter(|_| now.is_none()).cloned());
                changes.new.extend(now.clone());
            }
            standing.extend(now);
        }
        self.standing = standing;
        changes.failure = (!failures.is_empty()).then(|| failures.join("; "));
        changes
    }
}

async fn terminating(metadata: &mut InstanceMetadata) -> Result<Option<Notice>, String> {
    // An instance outside an autoscaling group does not have this value.
    let state = metadata.find("autoscaling/target-lifecycle-state").await?;
    let is_terminating = matches!(state.as_deref(), Some("Terminated" | "Warmed:Terminated"));
    Ok(is_terminating.then_some(Notice::Terminating))
}

async fn spot_interruption(metadata: &mut InstanceMetadata) -> Result<Option<Notice>, String> {
    let path = "spot/instance-action";
    let Some(text) = metadata.find(path).await? else { return Ok(None) };
    let InstanceAction { action, time } = parse(path, &text)?;
    Ok(Some(Notice::SpotInterruption(action, time)))
}

async fn rebalance_recommendation(
    metadata: &mut InstanceMetadata,
) -> Result<Option<Notice>, String> {
    let path = "events/recommendations/rebalance";
    let Some(text) = metadata.find(path).await? else { return Ok(None) };
    let document: RebalanceDocument = parse(path, &text)?;
    Ok(Some(Notice::RebalanceRecommendation(document.notice_time)))
}

fn parse<T: for<'a> Deserialize<'a>>(path: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("the instance metadata {path} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_over_some_minutes_after_its_time() {
        let now = DateTime::parse_from_rfc3339("2026-11-30T18:30:00Z").unwrap().to_utc();
        for (time, has_passed) in [
            ("2026-11-30T18:32:00Z", false),
            ("2026-11-30T18:26:00Z", false),
            ("2026-11-30T18:24:59Z", true),
            ("2025-01-01T00:00:00Z", true),
            ("soon", false),
        ] {
            let notice = Notice::SpotInterruption("hibernate".to_owned(), time.to_owned());
            assert_eq!(notice.has_passed(None, now), has_passed, "{time}");
            // The clock of this host may be ahead.
            assert!(!notice.has_passed(Some(now), now), "{time}");
        }
        let notice = Notice::SpotInterruption("stop".to_owned(), "2026-11-30T18:20:00Z".to_owned());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!notice.has_passed(Some(now), at(7 * 60)));
        assert!(notice.has_passed(Some(now), at(7 * 60 + 1)));
        let recommended = Notice::RebalanceRecommendation("2025-01-01T00:00:00Z".to_owned());
        assert!(!recommended.has_passed(None, now));
        assert!(!Notice::Terminating.has_passed(None, now));
    }
}
