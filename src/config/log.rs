//! `[log]`: what is logged and how it looks.

use tracing_subscriber::EnvFilter;

use super::settings::Table;

/// What is logged when nothing is said.
const FILTER_DEFAULT: &str = "info";

/// Logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A `tracing` filter, e.g. `info` or `info,fjord::messaging=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
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
            table.mistake("filter", expected.to_owned());
        }
        Self { filter, format }
    }
}

/// Whether a text is a filter of logs. A word that is no level would be taken as a target's name and so silence
/// everything else, which nobody who wrote `wran` meant: a target needs its level.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let plain = text.split(',').map(str::trim);
    let worded = |part: &str| part.contains(['=', '[']) || levels.contains(&part);
    plain.into_iter().all(worded) && text.parse::<EnvFilter>().is_ok()
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
