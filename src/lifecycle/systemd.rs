//! Sends notifications to systemd (`Type=notify`). Without systemd, the functions do nothing.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Tasks;

/// Reports that the process is serving requests.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that a reload has started. Call `ready` when the reload has finished.
pub fn reloading() {
    // The time must be in the same datagram. Otherwise, systemd ignores the notification.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock for systemd"),
    }
}

/// Reports that the process is draining. The drain takes up to `limit`.
pub fn stopping(limit: Duration) {
    let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Notifies the watchdog at regular intervals if systemd has enabled it. The task runs on the same runtime as the
/// requests, so the notifications stop if the runtime hangs.
pub fn feed_watchdog(tasks: &Tasks) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let _detached = tasks.spawn_background(async move {
        let mut ticks = tokio::time::interval(limit / 3);
        loop {
            ticks.tick().await;
            notify(&[NotifyState::Watchdog]);
        }
    });
}

/// Hands a listener over to systemd. systemd passes it to the unit's next process (`FileDescriptorStoreMax`).
pub fn keep_listener(listener: BorrowedFd<'_>) {
    // systemd 219 ignores the name.
    let states = [NotifyState::FdStore, NotifyState::FdName("https")];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[listener]) {
        tracing::warn!(%error, "cannot hand the listener to systemd: a restart will refuse connections");
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
