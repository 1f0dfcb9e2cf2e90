//! The lifecycle action of this instance. The autoscaling group waits until the action is completed before it
//! terminates the instance.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::http_client::HttpClient;
use super::instance_metadata::InstanceMetadata;
use super::metric_data::encoded;
use super::service_error::ServiceError;
use super::signed_api::{CallFailure, SignedApi};
use crate::cli::WatchArguments;

/// The name of EC2 Auto Scaling in signatures and endpoint names, followed by its name in policies.
const SERVICE: (&str, &str) = ("autoscaling", "autoscaling");
/// The time limit for a heartbeat. A slow heartbeat must not delay the drain, and the next one follows soon.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);
/// The maximum number of times that the service may reject the completion because the action does not exist. After
/// that, the hook or the group is considered unknown. The action can begin a few seconds after the metadata service
/// announces the termination.
const REFUSALS_MAX: u32 = 5;
/// The number of rejections after which a heartbeat is reported as a failure.
const HEARTBEAT_REFUSALS_MAX: u32 = 2;

/// The action of a lifecycle hook for this instance.
pub(super) struct LifecycleAction {
    client: HttpClient,
    url: Option<String>,
    hook: String,
    group: String,
    last_heartbeat: Option<Instant>,
    /// Whether a heartbeat was accepted. If so, the action exists or has existed.
    is_known: bool,
    /// Whether a request to complete the action may have succeeded although no response arrived.
    may_be_completed: bool,
    /// The number of consecutive responses in which the service said that the action does not exist.
    refusals: u32,
}

/// The result of a request to complete the action.
pub(super) enum Completion {
    /// The group no longer waits for this instance.
    Completed,
    /// The action does not exist yet. The request must be repeated.
    NotYet,
    /// The action does not exist.
    NoAction(String),
    /// The request failed with this message and must be repeated.
    Failed(String),
}

impl LifecycleAction {
    /// Creates the action of the configured hook. Returns `None` if no hook is configured. In that case, systemd passes
    /// empty names.
    pub(super) fn configured(client: &HttpClient, arguments: &WatchArguments) -> Option<Self> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let (hook, group) = given(&arguments.hook).zip(given(&arguments.group))?;
        Some(Self {
            client: client.clone(),
            url: arguments.autoscaling_url.clone(),
            hook,
            group,
            last_heartbeat: None,
            is_known: false,
            may_be_completed: false,
            refusals: 0,
        })
    }

    /// Returns whether no heartbeat has been sent within the last `interval`.
    pub(super) fn is_heartbeat_due(&self, interval: Duration) -> bool {
        self.last_heartbeat.is_none_or(|last| last.elapsed() >= interval)
    }

    /// Returns whether a heartbeat has been sent.
    pub(super) fn has_heartbeat(&self) -> bool {
        self.last_heartbeat.is_some()
    }

    /// Reports to the group that the drain is still in progress. This restarts the heartbeat timeout. Cancel safe.
    ///
    /// # Errors
    /// Returns a message if the heartbeat was not accepted.
    pub(super) async fn heartbeat(
        &mut self,
        metadata: &mut InstanceMetadata,
    ) -> Result<(), String> {
        self.last_heartbeat = Some(Instant::now());
        let called = self.call("RecordLifecycleActionHeartbeat", "", metadata);
        let called = timeout(HEARTBEAT_LIMIT, called).await;
        let late = || {
            let seconds = HEARTBEAT_LIMIT.as_secs();
            let message = format!("no answer to a lifecycle heartbeat within {seconds} s");
            Err(CallFailure::before_sending(message))
        };
        let Err(CallFailure { message, refusal, .. }) = called.unwrap_or_else(|_| late()) else {
            self.is_known = true;
            self.refusals = 0;
            return Ok(());
        };
        let Some(error) = refusal.filter(ServiceError::is_invalid) else {
            return Err(format!("{}: {message}", self.name()));
        };
        self.refusals += 1;
        if self.refusals < HEARTBEAT_REFUSALS_MAX { Ok(()) } else { Err(self.no_action(&error)) }
    }

    /// Reports to the group that it no longer has to wait for this instance. Cancel safe.
    pub(super) async fn complete(&mut self, metadata: &mut InstanceMetadata) -> Completion {
        let result = "&LifecycleActionResult=CONTINUE";
        let called = self.call("CompleteLifecycleAction", result, metadata).await;
        let Err(CallFailure { message, refusal, may_have_succeeded }) = called else {
            return Completion::Completed;
        };
        self.may_be_completed |= may_have_succeeded;
        let Some(error) = refusal.filter(ServiceError::is_invalid) else {
            self.refusals = 0;
            return Completion::Failed(format!("{}: {message}", self.name()));
        };
        if self.is_known && self.may_be_completed {
            return Completion::Completed;
        }
        self.refusals += 1;
        if self.refusals < REFUSALS_MAX {
            return Completion::NotYet;
        }
        Completion::NoAction(self.no_action(&error))
    }

    /// Returns the names of the hook and the group, for messages.
    pub(super) fn name(&self) -> String {
        format!("hook {} of group {}", self.hook, self.group)
    }

    fn no_action(&self, refusal: &ServiceError) -> String {
        let cause = if self.is_known {
            "the action ended before this instance was drained, for example because its heartbeat timeout expired"
        } else if self.may_be_completed {
            "an earlier request that received no answer may have completed the action; if not, check the names of the \
             hook and the group"
        } else {
            "check the names of the hook and the group"
        };
        format!("{} has no action for this instance: {refusal}: {cause}", self.name())
    }

    async fn call(
        &self,
        action: &str,
        parameters: &str,
        metadata: &mut InstanceMetadata,
    ) -> Result<(), CallFailure> {
        let instance = metadata.get("instance-id").await.map_err(CallFailure::before_sending)?;
        let form = format!(
            "Version=2011-01-01&LifecycleHookName={}&AutoScalingGroupName={}&InstanceId={}{parameters}",
            encoded(&self.hook),
            encoded(&self.group),
            encoded(&instance),
        );
        let api = SignedApi::new(self.client.clone(), SERVICE, self.url.as_deref(), metadata).await;
        api.map_err(CallFailure::before_sending)?.call(action, &form, metadata).await
    }
}
