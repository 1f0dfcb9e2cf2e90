//! The log of an operation that is tried again and again, in which a failure that persists does not fill the log.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::commands::Output;
use crate::commands::printable::printable;

/// The time after which a failure that persists is logged again.
const FAILURE_REPEAT: Duration = Duration::from_mins(10);

/// The last failure of an operation, and when it was logged.
#[derive(Default)]
pub(super) struct FailureLog(Option<(String, Instant)>);

impl FailureLog {
    /// Logs a failure that is new, or that has persisted for a long time.
    pub(super) fn log(
        &mut self,
        failure: String,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<()> {
        let is_known = self
            .0
            .as_ref()
            .is_some_and(|(known, at)| *known == failure && at.elapsed() < FAILURE_REPEAT);
        if is_known {
            return Ok(());
        }
        writeln!(output.err, "error: {}", printable(&failure))?;
        self.0 = Some((failure, Instant::now()));
        Ok(())
    }

    /// Forgets the last failure, because the operation has succeeded. Returns whether there was one.
    pub(super) fn recover(&mut self) -> bool {
        self.0.take().is_some()
    }
}
