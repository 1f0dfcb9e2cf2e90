//! Logs the failures of an operation that is retried indefinitely. A persistent failure is not logged at every attempt.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::commands::Output;
use crate::commands::printable::printable;

/// The time after which a persistent failure is logged again.
const FAILURE_REPEAT: Duration = Duration::from_mins(10);

/// The message of the operation's last failure, without digits, and the time at which it was logged. Digits are ignored
/// because some messages contain the current time, such as those about an expired signature or certificate.
#[derive(Default)]
pub(super) struct FailureLog(Option<(String, Instant)>);

impl FailureLog {
    /// Logs a failure that is new or has persisted for a long time.
    pub(super) fn log(
        &mut self,
        failure: &str,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<()> {
        let kind: String = failure.chars().filter(|it| !it.is_ascii_digit()).collect();
        let is_known = self
            .0
            .as_ref()
            .is_some_and(|(known, at)| *known == kind && at.elapsed() < FAILURE_REPEAT);
        if is_known {
            return Ok(());
        }
        writeln!(output.err, "error: {}", printable(failure))?;
        self.0 = Some((kind, Instant::now()));
        Ok(())
    }

    /// Clears the last failure after the operation has succeeded. Returns whether there was a failure.
    pub(super) fn recover(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_differs_only_in_its_time_is_logged_once() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output { out: &mut out, err: &mut err };
        let mut failures = FailureLog::default();
        failures.log("Signature expired: 20261130T210000Z", &mut output).unwrap();
        failures.log("Signature expired: 20261130T210010Z", &mut output).unwrap();
        failures.log("Access denied", &mut output).unwrap();
        assert!(failures.recover());
        failures.log("Access denied", &mut output).unwrap();
        let lines = String::from_utf8(err).unwrap();
        let expected = [
            "error: Signature expired: 20261130T210000Z",
            "error: Access denied",
            "error: Access denied",
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }
}
