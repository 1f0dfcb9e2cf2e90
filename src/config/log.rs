//! `[log]`: what is logged and how it looks.

use super::settings::Table;

/// The default filter. The NATS client library logs each attempt to connect without its cause; our own lines have it.
const FILTER_DEFAULT: &str = "info,async_nats=warn";

/// Logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A `tracing` filter, e.g. `info` or `info,fjord::messaging=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether a worker logs the messages of its databases. They can contain values from requests.
    pub database_messages: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON, unless stdout is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let words =
            [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = table.choice("format", &words, "auto").unwrap_or(LogFormat::Auto);
        let filter = table.get_or("filter", FILTER_DEFAULT.to_owned());
        if !is_filter(&filter) {
            let expected = "expected a level (error, warn, info, debug, trace, off), or several of \
                            target=level with commas, e.g. info,fjord::messaging=debug";
            table.error("filter", expected.to_owned());
        }
        let database_messages = table.get_or("database_messages", false);
        Self { filter, format, database_messages }
    }
}

/// Whether a text is a filter of logs: a level, or `target=level`, several with commas.
///
/// The filter's own parser takes a word that is no level as a target and silences everything else, which nobody who
/// wrote `wran` meant. So a target needs its level here.
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
    fn a_misspelt_level_is_no_filter() {
        for good in ["info", "info,fjord::messaging=debug", "off", "fjord=trace,warn"] {
            assert!(is_filter(good), "{good}");
        }
        for wrong in ["wran", "", "info,", "fjord=wran", "info;debug", "warn, fjord=trace"] {
            assert!(!is_filter(wrong), "{wrong}");
        }
    }
}
