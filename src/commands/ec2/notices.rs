//! The notices with which EC2 announces that it will stop an instance.

use std::fmt;

use serde::Deserialize;

use super::instance_metadata::InstanceMetadata;

/// A reason to drain the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The autoscaling group terminates the instance.
    Terminating,
    /// A spot instance will be interrupted: the action, and the time at which it begins.
    SpotInterruption(String, String),
    /// A spot instance has had an elevated risk of interruption since this time.
    RebalanceRecommendation(String),
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

/// Returns the notices that the metadata service currently has, the most urgent first, and a message if the service cannot be
/// queried or some notice cannot be read. A failure does not affect the other notices. Cancel safe.
pub(super) async fn read(
    metadata: &mut InstanceMetadata,
    ignores_rebalance: bool,
) -> (Vec<Notice>, Option<String>) {
    let mut results = vec![terminating(metadata).await, spot_interruption(metadata).await];
    if !ignores_rebalance {
        results.push(rebalance_recommendation(metadata).await);
    }
    let (mut notices, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(notice) => notices.extend(notice),
            // A service that does not answer fails in the same way for each notice.
            Err(failure) if failures.contains(&failure) => {}
            Err(failure) => failures.push(failure),
        }
    }
    let failure = (!failures.is_empty()).then(|| failures.join("; "));
    (notices, failure)
}

async fn terminating(metadata: &mut InstanceMetadata) -> Result<Option<Notice>, String> {
    // Instances that are in no group do not have this value.
    let state = metadata.find("autoscaling/target-lifecycle-state").await?;
    Ok((state.as_deref() == Some("Terminated")).then_some(Notice::Terminating))
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
