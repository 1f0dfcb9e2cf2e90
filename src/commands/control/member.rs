//! A process of the fleet that can receive commands.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::fleet::control::{CommandTarget, ControlCommand};

/// A process in the fleet.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Member {
    pub(super) role: String,
    pub(super) id: String,
    pub(super) host: String,
    pub(super) version: String,
    /// The last command to which the process has replied.
    pub(super) replied_to: Option<&'static str>,
    /// The reasons why the last command failed. A missing reply is also a reason.
    pub(super) faults: Vec<String>,
    pub(super) notes: Vec<String>,
    /// The queues to which the process has applied the last command.
    pub(super) changed: Vec<String>,
    /// Whether the process is not counted, because it is not known to be a target or serves none of the command's
    /// queues.
    #[serde(skip)]
    pub(super) is_unconcerned: bool,
    /// Whether the NATS servers list the process although it has sent no report. Its host name is then unknown.
    #[serde(skip)]
    pub(super) hangs: bool,
    /// The queues of the process. `None` if the process has sent no report or its report does not list them.
    #[serde(skip)]
    pub(super) queues: Option<BTreeSet<String>>,
}

impl Member {
    /// Returns whether a command applies to the process, as far as is known.
    pub(super) fn must_execute(&self, to: &CommandTarget, command: &ControlCommand) -> bool {
        let serves = |served: &BTreeSet<String>| {
            command.queues().is_empty() || command.queues().iter().any(|name| served.contains(name))
        };
        !self.is_unconcerned
            && to.includes(&self.role, &self.id, &self.host)
            && command.role().is_none_or(|role| role.as_str() == self.role)
            && self.queues.as_ref().is_none_or(serves)
    }

    pub(super) fn name(&self) -> String {
        format!("{} {} on {}", self.role, self.id, self.host)
    }
}
