//! `[worker]`: the queues that a worker serves.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::limits;
use super::settings::SettingsTable;
use crate::catalogue::QueueName;
use crate::catalogue::names::NAME_BYTES_MAX;
use crate::cli::Role;

/// The name of the database for queues that do not select another one.
pub const DEFAULT_DATABASE: &str = "default";

/// The pool of workers whose configuration does not name one.
pub const DEFAULT_POOL: &str = "default";

/// The values of `application_intent`, each with the corresponding value of `reads_only`.
const INTENTS: [(&str, bool); 2] = [("read-write", false), ("read-only", true)];

/// The maximum length of a program name in UTF-16 code units (MS-TDS 2.2.6.4, type of `program_name`).
const APPLICATION_NAME_UNITS_MAX: usize = 128;

/// The queues that a worker serves, and the timers and limits that apply to all of them.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The name of the group of workers that serve the same queues. Their headroom is published under this name.
    pub pool: String,
    /// The settings of queues, keyed by name or by a pattern with `*`. See `WorkerConfig::queue`.
    pub queues: BTreeMap<String, QueueConfig>,
    /// The time from the start of a call to its first progress report.
    pub progress_first: Duration,
    /// The interval between further progress reports.
    pub progress_interval: Duration,
    /// How long a claim waits for its grant.
    pub claim_timeout: Duration,
    /// How long an offered slot is reserved.
    pub offer_timeout: Duration,
    /// The maximum number of refused requests that a queue remembers so that it can offer them a slot.
    pub remembered_refusals_max: usize,
    /// The number of messages that a worker still accepts while it leaves a group, so that no message is lost.
    pub unsubscribe_messages_max: u64,
    /// How long the worker must receive no message before it checks that it has left the group.
    pub unsubscribe_quiet_time: Duration,
    /// The part size in bytes. An answer is streamed once it reaches twice this size.
    pub part_bytes: usize,
    /// The maximum size of an answer in bytes.
    pub answer_bytes_max: usize,
}

/// The settings of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The maximum number of concurrent calls.
    pub concurrency: usize,
    /// The database that contains the queue's procedures. `None` means the default database.
    pub database: Option<String>,
    /// Whether the procedures only read data (`application_intent = "read-only"`) and can use a replica.
    pub reads_only: bool,
    /// The program name of the queue's connections. The queue shares connections only with queues that have the same
    /// program name.
    pub application_name: Option<String>,
}

impl QueueConfig {
    /// Returns the name of the database that contains the queue's procedures.
    #[must_use]
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(DEFAULT_DATABASE)
    }
}

impl WorkerConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Self {
        let queues = table.named_tables("queues", |pattern, queue| {
            if !is_pattern(pattern) {
                let expected =
                    "expected a queue's name: letters, digits, '-', '_', and '*' for any of them";
                queue.error("", expected.to_owned());
            }
            QueueConfig {
                concurrency: queue.get_limited("concurrency", limits::CONCURRENCY),
                database: queue.get("database"),
                reads_only: queue
                    .get_choice("application_intent", &INTENTS, "read-write")
                    .unwrap_or_default(),
                application_name: read_application_name(queue),
            }
        });
        if role == Some(Role::Worker) && queues.is_empty() {
            let expected =
                "is missing: expected at least one queue, e.g. \"*\" = { concurrency = 16 }";
            table.error("queues", expected.to_owned());
        }
        Self {
            pool: read_pool(table),
            queues,
            progress_first: table.get_limited("progress_first", limits::PROGRESS_FIRST),
            progress_interval: table.get_limited("progress_interval", limits::PROGRESS_INTERVAL),
            claim_timeout: table.get_limited("claim_timeout", limits::CLAIM_TIMEOUT),
            offer_timeout: table.get_limited("offer_timeout", limits::OFFER_TIMEOUT),
            remembered_refusals_max: table
                .get_limited("remembered_refusals_max", limits::REMEMBERED_REFUSALS_MAX),
            unsubscribe_messages_max: table
                .get_limited("unsubscribe_messages_max", limits::UNSUBSCRIBE_MESSAGES_MAX),
            unsubscribe_quiet_time: table
                .get_limited("unsubscribe_quiet_time", limits::UNSUBSCRIBE_QUIET_TIME),
            part_bytes: table.get_bytes("part_bytes", limits::PART_BYTES),
            answer_bytes_max: table.get_bytes("answer_bytes_max", limits::ANSWER_BYTES_MAX),
        }
    }

    /// Returns the settings of a queue, or `None` if this worker does not serve it. An exact name takes precedence.
    /// Otherwise, the matching pattern with the most characters other than `*` applies. Ties are resolved in favour of
    /// the pattern with the most characters before its first `*`, and then of the first one in alphabetical order.
    #[must_use]
    pub fn queue(&self, queue: &QueueName) -> Option<&QueueConfig> {
        let name = queue.as_str();
        self.queues.get(name).or_else(|| {
            let matching = self.queues.iter().filter(|(pattern, _)| matches_pattern(pattern, name));
            let best = matching.max_by(|(a, _), (b, _)| precedence(a).cmp(&precedence(b)));
            best.map(|(_, config)| config)
        })
    }
}

/// Returns the precedence of a pattern among the patterns that match a queue.
fn precedence(pattern: &str) -> (usize, usize, Reverse<&str>) {
    let literals = pattern.bytes().filter(|byte| *byte != b'*').count();
    let start = pattern.split('*').next().map_or(0, str::len);
    (literals, start, Reverse(pattern))
}

fn read_pool(table: &mut SettingsTable<'_>) -> String {
    let name: String = table.get_or("pool", DEFAULT_POOL.to_owned());
    if name.contains('*') || !is_pattern(&name) {
        let expected =
            format!("expected 1 to {NAME_BYTES_MAX} letters, digits, '-' and '_', got {name:?}");
        table.error("pool", expected);
    }
    name
}

/// Reads a program name and checks that it fits into the login message.
fn read_application_name(queue: &mut SettingsTable<'_>) -> Option<String> {
    let name: String = queue.get("application_name")?;
    let length = name.encode_utf16().count();
    let is_bad = name.trim() != name || name.chars().any(char::is_control);
    if length == 0 || length > APPLICATION_NAME_UNITS_MAX || is_bad {
        let expected = format!(
            "expected 1 to {APPLICATION_NAME_UNITS_MAX} characters, no control character, no space at either end"
        );
        queue.error("application_name", expected);
        return None;
    }
    Some(name)
}

fn is_pattern(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(good)
}

/// Returns whether a name matches a pattern. A `*` in the pattern matches any number of characters.
#[must_use]
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // Matching the first occurrence leaves as much text as possible for the remaining parts.
        let Some((_, after)) = name.split_once(part) else {
            return false;
        };
        name = after;
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_toml;

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, name, expected) in [
            ("*", "horse-get", true),
            ("horse-*", "horse-get", true),
            ("horse-*", "horse-", true),
            ("horse-*", "horse", false),
            ("*-get", "horse-get", true),
            ("*-get", "horse-get-all", false),
            ("h*-*t", "horse-get", true),
            ("a*a", "a", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("horse-get", "horse-get", true),
            ("horse-get", "horse-gets", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_exact_name_precedes_the_longest_pattern() {
        let config = load_toml(
            r#"
            [worker.queues]
            "*" = { concurrency = 1 }
            "horse-*" = { concurrency = 2 }
            "horse-search*" = { concurrency = 3 }
            "*-transfer" = { concurrency = 4 }
            horse-get = { concurrency = 5 }
            "a*" = { concurrency = 6 }
            "*z" = { concurrency = 7 }
            "*m*" = { concurrency = 8 }
            "*b*c" = { concurrency = 9 }
            "*c*b*" = { concurrency = 10 }
            "#,
        );
        let concurrency = |name| {
            let queue = QueueName::new(name).unwrap();
            config.worker.queue(&queue).map(|config| config.concurrency)
        };
        assert_eq!(concurrency("report"), Some(1));
        assert_eq!(concurrency("horse-list"), Some(2));
        assert_eq!(concurrency("horse-search-all"), Some(3));
        assert_eq!(concurrency("horse-transfer"), Some(4));
        assert_eq!(concurrency("horse-get"), Some(5));
        assert_eq!(concurrency("a-m-z"), Some(6), "the one with the longest beginning");
        assert_eq!(concurrency("xmz"), Some(8), "the first in alphabetical order");
        assert_eq!(concurrency("xcbc"), Some(9));
    }
}
