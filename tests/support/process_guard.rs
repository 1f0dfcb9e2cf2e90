//! Kills the child processes of a test run that is itself killed, because no `Drop` runs in that
//! case.

use std::sync::OnceLock;

use fjord::commands::process_guard::ProcessGuard;

/// The guard. It is never dropped, so that its shell also kills the processes that are left at the
/// end.
static GUARD: OnceLock<ProcessGuard> = OnceLock::new();

fn guard() -> &'static ProcessGuard {
    GUARD.get_or_init(|| ProcessGuard::start(None).expect("a shell is installed"))
}

/// Adds a process to the list.
pub(crate) fn watch(pid: u32) {
    guard().watch(pid);
}

/// Removes a process whose exit status has been collected, because the kernel can reuse its id.
pub(crate) fn forget(pid: u32) {
    guard().forget(pid);
}
