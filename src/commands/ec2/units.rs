//! Queries and stops the systemd units of the roles on this host. Every call to systemctl has a time limit.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::Role;

/// The time limit for a call to systemctl. The call does not wait for the unit to stop.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(10);

/// The state of a unit, as reported by systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitState {
    /// No process of the unit is running.
    Stopped,
    /// The unit has been asked to stop but has not finished its requests.
    Stopping,
    /// The unit is running or starting.
    Running,
}

/// Returns the name of a role's unit.
pub(super) fn unit(role: Role) -> String {
    format!("fjord@{}.service", role.as_str())
}

/// Returns the state of a unit. Cancel safe.
///
/// # Errors
/// Returns a message if the state cannot be determined.
pub(super) async fn state(unit: &str) -> Result<UnitState, String> {
    let text = systemctl(&["show", "--property=LoadState", "--property=ActiveState", unit]).await?;
    let value = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    match (value("ActiveState"), value("LoadState")) {
        // The roles may be running on this host in units with other names.
        (Some("inactive"), Some("not-found")) => Err("systemctl: the unit is not found".to_owned()),
        (Some("inactive" | "failed"), _) => Ok(UnitState::Stopped),
        (Some("deactivating"), _) => Ok(UnitState::Stopping),
        (Some(_), _) => Ok(UnitState::Running),
        (None, _) => Err("systemctl: expected ActiveState in its output".to_owned()),
    }
}

/// Asks systemd to stop a unit. Does not wait until the unit has stopped. Cancel safe.
///
/// # Errors
/// Returns a message if systemctl fails.
pub(super) async fn stop(unit: &str) -> Result<(), String> {
    systemctl(&["stop", "--no-block", unit]).await.map(drop)
}

/// Runs systemctl and returns its output.
async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(SYSTEMCTL_LIMIT, command.output())
        .await
        .map_err(|_| format!("systemctl: did not exit within {} s", SYSTEMCTL_LIMIT.as_secs()))?;
    let output = ended.map_err(|error| format!("systemctl: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("systemctl: {}: {}", output.status, reason.trim()))
}
