//! Operators' commands, the requests that contain them, and the replies.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::Role;
use crate::units::format_duration;

/// The token that follows the prefix in the subjects of commands.
pub const CONTROL_TOKEN: &str = "control";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlCommand {
    /// Read and check all files without changing anything.
    CheckReload,
    /// Apply the current contents of the configuration and of all files. A worker continues to serve removed queues and
    /// endpoints until `FinishReload`.
    Reload {
        /// The id of the rollout. The matching `FinishReload` has the same id.
        rollout: String,
    },
    /// Stop serving queues and endpoints that are no longer in the configuration, unless a later reload has been
    /// applied.
    FinishReload {
        /// The id of the rollout.
        rollout: String,
    },
    /// Drain and exit, as after SIGTERM.
    Drain,
    /// Refuse new requests for queues, but finish the running calls.
    PauseQueues {
        /// The names of the queues.
        queues: Vec<String>,
    },
    /// Accept requests for queues again.
    ResumeQueues {
        /// The names of the queues.
        queues: Vec<String>,
    },
    /// Change the maximum number of concurrent calls of a queue.
    LimitQueue {
        /// The name of the queue.
        queue: String,
        /// The new limit, or `None` to restore the configured one.
        limit: Option<usize>,
    },
    /// Change the weights of an endpoint's queues.
    WeighQueues {
        /// The id of the endpoint.
        endpoint: String,
        /// The new weights, by queue. Queues that are not listed keep their weights.
        weights: BTreeMap<String, u32>,
    },
    /// Add directives to the log filter for a limited time.
    SetLogFilter {
        /// The directives.
        filter: String,
        /// How long the directives apply, in milliseconds.
        duration_ms: u64,
    },
}

impl ControlCommand {
    /// Returns the name of the command in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CheckReload => "check-reload",
            Self::Reload { .. } => "reload",
            Self::FinishReload { .. } => "finish-reload",
            Self::Drain => "drain",
            Self::PauseQueues { .. } => "pause-queues",
            Self::ResumeQueues { .. } => "resume-queues",
            Self::LimitQueue { .. } => "limit-queue",
            Self::WeighQueues { .. } => "weigh-queues",
            Self::SetLogFilter { .. } => "set-log-filter",
        }
    }

    /// Returns the tokens that follow the prefix in the command's subject. NATS permissions can be granted for each
    /// subject separately.
    #[must_use]
    pub fn subject_tokens(&self) -> &'static str {
        match self {
            Self::CheckReload | Self::Reload { .. } | Self::FinishReload { .. } | Self::Drain => {
                CONTROL_TOKEN
            }
            Self::PauseQueues { .. }
            | Self::ResumeQueues { .. }
            | Self::LimitQueue { .. }
            | Self::WeighQueues { .. } => "control.queue",
            Self::SetLogFilter { .. } => "control.log",
        }
    }

    /// Returns the role whose processes execute the command, or `None` if both roles do.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::CheckReload
            | Self::Reload { .. }
            | Self::FinishReload { .. }
            | Self::Drain
            | Self::SetLogFilter { .. } => None,
            Self::PauseQueues { .. } | Self::ResumeQueues { .. } | Self::LimitQueue { .. } => {
                Some(Role::Worker)
            }
            Self::WeighQueues { .. } => Some(Role::Gateway),
        }
    }

    /// Returns the workers' queues that the command changes. Empty if the command does not apply to individual queues.
    #[must_use]
    pub fn queues(&self) -> &[String] {
        match self {
            Self::PauseQueues { queues } | Self::ResumeQueues { queues } => queues,
            Self::LimitQueue { queue, .. } => std::slice::from_ref(queue),
            Self::CheckReload
            | Self::Reload { .. }
            | Self::FinishReload { .. }
            | Self::Drain
            | Self::WeighQueues { .. }
            | Self::SetLogFilter { .. } => &[],
        }
    }
}

/// Formats the arguments for the audit log. The arguments come from the network.
impl fmt::Display for ControlCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckReload | Self::Drain => Ok(()),
            Self::Reload { rollout } | Self::FinishReload { rollout } => f.write_str(rollout),
            Self::PauseQueues { queues } | Self::ResumeQueues { queues } => {
                f.write_str(&queues.join(" "))
            }
            Self::LimitQueue { queue, limit: Some(limit) } => write!(f, "{queue} {limit}"),
            Self::LimitQueue { queue, limit: None } => write!(f, "{queue} configured"),
            Self::WeighQueues { endpoint, weights } => {
                f.write_str(endpoint)?;
                weights.iter().try_for_each(|(queue, weight)| write!(f, " {queue}={weight}"))
            }
            Self::SetLogFilter { filter, duration_ms } => {
                let duration = format_duration(Duration::from_millis(*duration_ms));
                write!(f, "{filter} for {duration}")
            }
        }
    }
}

/// The processes to which a command applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandTarget {
    /// All processes.
    All,
    /// All processes of a role: `gateway` or `worker`.
    Role(String),
    /// The process with this id, or every process on the host with this name.
    Member(String),
}

impl CommandTarget {
    /// Returns the target that includes all processes of a role.
    #[must_use]
    pub fn role(role: Role) -> Self {
        Self::Role(role.as_str().to_owned())
    }

    /// Parses a role, a process id or a host name. `None` means all processes.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::All };
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        role.map_or_else(|| Self::Member(text.to_owned()), Self::role)
    }

    /// Returns whether the target includes the process with this role, id and host name.
    #[must_use]
    pub fn includes(&self, role: &str, id: &str, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Role(name) => name == role,
            Self::Member(name) => name == id || name == host,
        }
    }
}

/// A request. `C` is the command, or its JSON while the receiver does not know yet whether it supports the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlRequest<C = ControlCommand> {
    /// The id of the request. Replies contain the same id.
    pub id: String,
    /// The user and host of the sender, for the audit log. This text is not verified. NATS permissions decide who may
    /// send requests.
    pub by: String,
    /// The processes that must execute the command.
    pub to: CommandTarget,
    /// How long the sender waits for replies, in milliseconds.
    pub timeout_ms: u64,
    /// The command.
    pub command: C,
}

/// The reply of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlReply {
    /// The id of the request that this reply answers.
    pub request: String,
    /// `gateway` or `worker`.
    pub role: String,
    /// The unique id of the process.
    pub id: String,
    /// The host name.
    pub host: String,
    /// The version of fjord.
    pub version: String,
    /// The reasons why the command failed. Empty if it succeeded.
    pub faults: Vec<String>,
    /// Facts that the operator should know.
    pub notes: Vec<String>,
    /// The queues to which the command was applied.
    pub changed: Vec<String>,
}
