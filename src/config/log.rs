//! `[log]`: what is logged and how it looks.

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
