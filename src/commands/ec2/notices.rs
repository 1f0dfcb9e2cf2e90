//! The notices with which EC2 announces that it will stop an instance.

use std::fmt;

use serde::Deserialize;

use super::instance_metadata::InstanceMetadata;

/// A reason to drain the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The autoscaling group terminates the instance.
    Terminating,
    /// A spot instance is interrupted: the action, and when it begins.
    SpotInterruption(String, String),
    /// A spot instance has an elevated risk of interruption, since this time.
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
            Self::Terminating => write!(f, "the autoscaling group terminates this instance"),
            Self::SpotInterruption(action, time) => {
                write!(f, "this spot instance is interrupted ({action}) at {time}")
            }
            Self::RebalanceRecommendation(time) => {
                write!(f, "this spot instance has an elevated risk of interruption since {time}")
            }
        }
    }
}

/// Returns the notices that the metadata service currently has, the most urgent first. Cancel safe.
///
/// # Errors
/// A message if the service cannot be queried, or a notice cannot be read.
pub(super) async fn read(
    metadata: &mut InstanceMetadata,
    ignores_rebalance: bool,
) -> Result<Vec<Notice>, String> {
    let mut notices = Vec::new();
    // Instances that are in no group do not have this value.
    let state = metadata.find("autoscaling/target-lifecycle-state").await?;
    if state.as_deref() == Some("Terminated") {
        notices.push(Notice::Terminating);
    }
    if let Some(text) = metadata.find("spot/instance-action").await? {
        let InstanceAction { action, time } = parse("spot/instance-action", &text)?;
        notices.push(Notice::SpotInterruption(action, time));
    }
    if !ignores_rebalance
        && let Some(text) = metadata.find("events/recommendations/rebalance").await?
    {
        let document: RebalanceDocument = parse("events/recommendations/rebalance", &text)?;
        notices.push(Notice::RebalanceRecommendation(document.notice_time));
    }
    Ok(notices)
}

fn parse<T: for<'a> Deserialize<'a>>(path: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("the instance metadata {path} cannot be read: {error}"))
}
