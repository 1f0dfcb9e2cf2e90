//! `[worker]`: the queues that this worker serves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits;
use super::settings::Table;
use crate::catalogue::QueueName;
use crate::catalogue::names::NAME_BYTES_MAX;
use crate::cli::Role;

/// The database that a queue uses unless it names another.
pub const DEFAULT_DATABASE: &str = "default";

/// What `application_intent` may be, and whether it means that procedures only read.
const INTENTS: [(&str, bool); 2] = [("read-write", false), ("read-only", true)];

/// The room for a program name in UTF-16 (MS-TDS 2.2.6.4, and the type of `program_name`).
const APPLICATION_NAME_UNITS_MAX: usize = 128;

/// What this worker serves and how.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Queue names, or patterns with `*`, to what holds for them. The longest match wins.
    pub queues: BTreeMap<String, QueueConfig>,
    /// When a running call first reports progress.
    pub progress_first: Duration,
    /// The interval of further progress.
    pub progress_interval: Duration,
    /// How long a claim waits for its grant.
    pub claim_timeout: Duration,
    /// How long an offered slot is kept for the caller it was offered to.
    pub offer_timeout: Duration,
    /// Refused callers that a queue remembers for an offer.
    pub refused_max: usize,
    /// Messages that are still let in after leaving a group, so that none on its way is lost.
    pub leave_messages: u64,
    /// How long the group must be silent before it counts as left.
    pub leave_idle: Duration,
    /// Size of the parts in which an answer leaves while its rows come, once two have gathered and when it may.
    pub part_bytes: usize,
    /// Largest answer in bytes.
    pub answer_bytes_max: usize,
}

/// What holds for one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Calls at once.
    pub concurrency: usize,
    /// The named database its procedures run on; the default one when absent.
    pub database: Option<String>,
    /// Whether its procedures only read (`application_intent = "read-only"`): a replica may run them.
    pub reads_only: bool,
    /// The program name of its connections, which are then shared only with queues of the same name.
    pub application_name: Option<String>,
}

impl QueueConfig {
    /// The database that its procedures run on.
    #[must_use]
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(DEFAULT_DATABASE)
    }
}

impl WorkerConfig {
    pub(super) fn read(table: &mut Table<'_>, role: Option<Role>) -> Self {
        let queues = table.named_tables("queues", |pattern, queue| {
            if !is_pattern(pattern) {
                let expected =
                    "expected a queue's name: letters, digits, '-', '_', and '*' for any of them";
                queue.error("", expected.to_owned());
            }
            QueueConfig {
                concurrency: queue.limited("concurrency", limits::CONCURRENCY),
                database: queue.get("database"),
                reads_only: queue
                    .choice("application_intent", &INTENTS, "read-write")
                    .unwrap_or_default(),
                application_name: application_name(queue),
            }
        });
        if role == Some(Role::Worker) && queues.is_empty() {
            let expected =
                "is missing: expected at least one queue, e.g. \"*\" = { concurrency = 16 }";
            table.error("queues", expected.to_owned());
        }
        Self {
            queues,
            progress_first: table.limited("progress_first", limits::PROGRESS_FIRST),
            progress_interval: table.limited("progress_interval", limits::PROGRESS_INTERVAL),
            claim_timeout: table.limited("claim_timeout", limits::CLAIM_TIMEOUT),
            offer_timeout: table.limited("offer_timeout", limits::OFFER_TIMEOUT),
            refused_max: table.limited("refused_max", limits::REFUSED_MAX),
            leave_messages: table.limited("leave_messages", limits::LEAVE_MESSAGES),
            leave_idle: table.limited("leave_idle", limits::LEAVE_IDLE),
            part_bytes: table.bytes("part_bytes", limits::PART_BYTES),
            answer_bytes_max: table.bytes("answer_bytes_max", limits::ANSWER_BYTES_MAX),
        }
    }

    /// What holds for a queue: its own name before every pattern, a pattern with more letters before one with fewer.
    /// `None`: this worker does not serve it.
    #[must_use]
    pub fn queue(&self, queue: &QueueName) -> Option<&QueueConfig> {
        let name = queue.as_str();
        self.queues.get(name).or_else(|| {
            let fitting = self.queues.iter().filter(|(pattern, _)| fits(pattern, name));
            let letters = |pattern: &str| pattern.bytes().filter(|byte| *byte != b'*').count();
            fitting.max_by_key(|(pattern, _)| letters(pattern)).map(|(_, config)| config)
        })
    }
}

/// A program name as the login has room for it.
fn application_name(queue: &mut Table<'_>) -> Option<String> {
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

/// Whether a name fits a pattern in which `*` stands for any letters, also none.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place that fits leaves the most for the parts behind it.
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
    fn a_star_stands_for_any_letters() {
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
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_longest_match_wins_and_the_own_name_before_all() {
        let config = load_toml(
            r#"
            [worker.queues]
            "*" = { concurrency = 1 }
            "horse-*" = { concurrency = 2 }
            "horse-search*" = { concurrency = 3 }
            "*-transfer" = { concurrency = 4 }
            horse-get = { concurrency = 5 }
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
    }
}
