//! What systemd is told (`Type=notify`). Without systemd every call is silent.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Tasks;

/// The process serves.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The process reads its files again. Call `ready` when it is done.
pub fn reloading() {
    // The clock's value belongs into the same datagram: systemd ignores a reload without it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock for systemd"),
    }
}

/// The process drains, for at most `limit`.
pub fn stopping(limit: Duration) {
    let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Feeds the watchdog from the runtime that serves, when systemd asks for it: a runtime that hangs
/// stops feeding.
pub fn feed_watchdog(tasks: &Tasks) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let _detached = tasks.spawn_background(async move {
        let mut beat = tokio::time::interval(limit / 3);
        loop {
            beat.tick().await;
            notify(&[NotifyState::Watchdog]);
        }
    });
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
