//! The log filter of this process. It consists of the configured directives and of temporary directives.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing_subscriber::{EnvFilter, Registry, reload};

use super::LogError;
use crate::config::log::is_filter;

/// Silences the SQL Server driver regardless of the configured filter. The driver logs messages and rows, which contain
/// values from callers.
const SILENT: &str = "tiberius=off";
/// Enables the lines that record operators' commands. No filter can silence them.
const AUDIT: &str = "fjord::fleet::control=info";

/// The filter of the process's subscriber.
static FILTER: OnceLock<ProcessFilter> = OnceLock::new();

struct ProcessFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    directives: Mutex<Directives>,
}

/// The directives of a filter. Later directives take precedence.
#[derive(Debug, Default)]
struct Directives {
    configured: String,
    /// The directives set by `set_temporary_filter`, with the number that identifies them.
    temporary: Option<(u64, String)>,
    last_number: u64,
}

/// Makes the filter of the subscriber changeable. Only the first call in a process has an effect.
pub(super) fn install(handle: reload::Handle<EnvFilter, Registry>, configured: &str) {
    let directives = Directives { configured: configured.to_owned(), ..Directives::default() };
    // This cannot fail, because a process starts its logs only once.
    FILTER.set(ProcessFilter { handle, directives: Mutex::new(directives) }).ok();
}

/// Changes the configured filter of this process's logs. Temporary directives remain in effect. Does nothing if the
/// process does not log.
///
/// # Errors
/// Returns `LogError::Filter` if the text is not a filter. The current filter then remains in effect.
pub fn set_filter(filter: &str) -> Result<(), LogError> {
    parse(filter)?;
    FILTER
        .get()
        .map_or(Ok(()), |process| process.change(|now| filter.clone_into(&mut now.configured)))
}

/// Adds directives to the configured filter until `end_temporary_filter` is called. The new directives replace earlier
/// temporary ones. Returns the number that identifies the new directives.
///
/// # Errors
/// Returns `LogError::Filter` if the text is not a filter. Nothing changes in that case.
pub fn set_temporary_filter(filter: &str) -> Result<u64, LogError> {
    parse(filter)?;
    let mut number = 0;
    if let Some(process) = FILTER.get() {
        process.change(|now| number = now.set_temporary(filter))?;
    }
    Ok(number)
}

/// Removes the temporary directives with this number. Returns `false` if other temporary directives have replaced them.
pub fn end_temporary_filter(number: u64) -> bool {
    let mut has_ended = false;
    let changed = FILTER.get().map(|process| process.change(|now| has_ended = now.end(number)));
    matches!(changed, Some(Ok(()))) && has_ended
}

/// Returns whether a text is a filter.
#[must_use]
pub fn is_valid_filter(filter: &str) -> bool {
    parse(filter).is_ok()
}

impl ProcessFilter {
    fn change(&self, change: impl FnOnce(&mut Directives)) -> Result<(), LogError> {
        let mut directives = self.lock();
        change(&mut directives);
        let filter = directives.to_filter()?;
        self.handle.reload(filter).map_err(|_| LogError::Filter)
    }

    fn lock(&self) -> MutexGuard<'_, Directives> {
        self.directives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directives {
    fn set_temporary(&mut self, filter: &str) -> u64 {
        self.last_number += 1;
        self.temporary = Some((self.last_number, filter.to_owned()));
        self.last_number
    }

    fn end(&mut self, number: u64) -> bool {
        self.temporary.take_if(|(current, _)| *current == number).is_some()
    }

    fn to_filter(&self) -> Result<EnvFilter, LogError> {
        let Some((_, temporary)) = &self.temporary else { return parse(&self.configured) };
        parse(&format!("{},{temporary}", self.configured))
    }
}

pub(super) fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed: Option<EnvFilter> = is_filter(filter).then(|| filter.parse().ok()).flatten();
    let mut parsed = parsed.ok_or(LogError::Filter)?;
    for directive in [SILENT, AUDIT] {
        parsed = parsed.add_directive(directive.parse().map_err(|_| LogError::Filter)?);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_filter_is_an_error() {
        assert!(parse("info,fjord::messaging=debug").is_ok());
        assert!(matches!(parse("wran"), Err(LogError::Filter)));
        assert!(!is_valid_filter("fjord=wran"));
    }

    /// Returns the directives in effect, sorted.
    fn applied(directives: &Directives) -> Vec<String> {
        let text = directives.to_filter().unwrap().to_string();
        let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
        parts.sort_unstable();
        parts
    }

    #[test]
    fn temporary_directives_take_precedence_and_are_removed_by_their_number() {
        let configured = "info,async_nats=warn".to_owned();
        let mut directives = Directives { configured, ..Directives::default() };
        let audit = "fjord::fleet::control=info";
        assert_eq!(applied(&directives), ["async_nats=warn", audit, "info", "tiberius=off"]);
        let first = directives.set_temporary("debug,tiberius=trace");
        assert_eq!(applied(&directives), ["async_nats=warn", "debug", audit, "tiberius=off"]);
        let second = directives.set_temporary("off,fjord::fleet::control=off");
        assert!(!directives.end(first), "replaced");
        assert_eq!(applied(&directives), ["async_nats=warn", audit, "off", "tiberius=off"]);
        directives.configured = "off,fjord::fleet::control=off".to_owned();
        assert!(directives.end(second));
        assert_eq!(applied(&directives), [audit, "off", "tiberius=off"]);
    }
}
