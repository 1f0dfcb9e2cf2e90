//! Runs work on a separate thread. A signal can then end the process even while the work is blocked, for example on a
//! pipe that is never read.

use std::io;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::lifecycle::Signals;

/// The maximum time to wait for the work to end after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Becomes `true` at the first signal.
pub(super) type StopFlag = watch::Receiver<bool>;

/// Runs the work and returns its result. After a signal, the flag tells the work to end. Returns `None` if the work
/// does not end within `STOP_LIMIT` or before a second signal. The work's thread is then left running.
///
/// # Errors
/// Returns the operating system's error if the signals or the thread cannot be set up.
pub(super) fn run<T: Send + 'static>(
    work: impl FnOnce(StopFlag) -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (stop, flag) = watch::channel(false);
        let (sender, mut result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("test".to_owned());
        thread.spawn(move || sender.send(work(flag)).ok())?;
        tokio::select! {
            result = &mut result => return Ok(result.ok()),
            _ = signals.next() => {}
        }
        stop.send_replace(true);
        tokio::select! {
            result = &mut result => Ok(result.ok()),
            _ = signals.next() => Ok(None),
            () = sleep(STOP_LIMIT) => Ok(None),
        }
    })
}
