//! `[log]`: the filter and format of the log.

use super::settings::SettingsTable;

/// The default filter. It hides the NATS client library's info lines, which report each connection
/// attempt but not the reason for a failure. fjord logs the reason itself.
const FILTER_DEFAULT: &str = "info,async_nats=warn";

/// The log settings.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A `tracing` filter, e.g. `info` or `info,fjord::messaging=debug`.
    pub filter: String,
    /// The format of log lines.
    pub format: LogFormat,
    /// Whether a worker logs error messages of the database, which can contain values from
    /// requests.
    pub database_messages: bool,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if stdout is a terminal, otherwise JSON.
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Text,
}

impl LogConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let choices =
            [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = table.get_choice("format", &choices, "auto").unwrap_or(LogFormat::Auto);
        let filter = table.get_or("filter", FILTER_DEFAULT.to_owned());
        if !is_filter(&filter) {
            let expected = "expected a level (error, warn, info, debug, trace, off), or several target=level \
                            separated by commas, e.g. info,fjord::messaging=debug";
            table.error("filter", expected.to_owned());
        }
        let database_messages = table.get_or("database_messages", false);
        Self { filter, format, database_messages }
    }
}

/// Returns whether a string is a log filter, that is, a list of levels and `target=level` items
/// separated by commas.
///
/// `tracing`'s own parser would treat a misspelt level such as `wran` as a target and silence
/// everything else. Therefore, a target without a level is invalid here.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| {
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        levels.contains(&word)
    };
    let is_target = |word: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
        !word.is_empty() && word.bytes().all(good)
    };
    text.split(',').all(|part| match part.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_a_filter() {
        for good in ["info", "info,fjord::messaging=debug", "off", "fjord=trace,warn"] {
            assert!(is_filter(good), "{good}");
        }
        for wrong in ["wran", "", "info,", "fjord=wran", "info;debug", "warn, fjord=trace"] {
            assert!(!is_filter(wrong), "{wrong}");
        }
    }
}
