//! The recent problems of the NATS connection, described for operators.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::messaging::CLIENT_REPLACED;

/// How long a problem is shown after its last occurrence. The alert rules look back for the same time.
const SHOWN_FOR: Duration = Duration::from_mins(10);
/// The maximum number of servers and of refused subjects that are shown.
const SHOWN_MAX: usize = 8;
/// The maximum number of servers and of refused subjects that are remembered.
const REMEMBERED_MAX: usize = 64;

/// The recent problems of the connection.
#[derive(Debug, Default)]
pub(super) struct LinkProblems(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The servers, each with the cause of its last failure, in the library's order. Empty while connected.
    servers: Vec<(String, Option<String>)>,
    /// The last connection failure of any server.
    last_failure: Option<String>,
    /// The subjects, without their variable parts, to which the server has refused messages.
    refused_publishes: BTreeMap<String, Occurrences>,
    dropped: Option<Occurrences>,
    /// The reason why a client was last replaced.
    replaced: Option<(&'static str, Occurrences)>,
}

#[derive(Clone, Copy, Debug)]
struct Occurrences {
    count: u64,
    last: Instant,
}

impl Occurrences {
    fn add(before: Option<Self>, now: Instant) -> Self {
        let recent = before.filter(|before| before.is_recent(now));
        Self { count: recent.map_or(0, |before| before.count) + 1, last: now }
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < SHOWN_FOR
    }

    /// Returns the number of occurrences, and the time since the last one.
    fn text(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.last).as_secs();
        match self.count {
            1 => format!("once, {seconds} s ago"),
            count => format!("{count} times, the last time {seconds} s ago"),
        }
    }
}

impl LinkProblems {
    /// Clears the causes of failed connections after a connection was made.
    pub(super) fn connected(&self) {
        let mut state = self.lock();
        state.servers.clear();
        state.last_failure = None;
    }

    /// Replaces the known servers, each with the cause of its last failure.
    pub(super) fn set_servers(&self, servers: impl Iterator<Item = (String, Option<String>)>) {
        self.lock().servers = servers.take(REMEMBERED_MAX).collect();
    }

    /// Records a failed connection attempt. The library does not report to which server the attempt was made.
    pub(super) fn record_connect_failure(&self, cause: String) {
        self.lock().last_failure = Some(cause);
    }

    /// Records that the server has refused a message. The variable parts of the subject have been removed.
    pub(super) fn record_refused_publish(&self, subject: &str, now: Instant) {
        let refused = &mut self.lock().refused_publishes;
        refused.retain(|_, each| each.is_recent(now));
        if refused.len() >= REMEMBERED_MAX && !refused.contains_key(subject) {
            let oldest = refused.iter().min_by_key(|(_, each)| each.last);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                refused.remove(&oldest);
            }
        }
        let before = refused.get(subject).copied();
        refused.insert(subject.to_owned(), Occurrences::add(before, now));
    }

    /// Returns the part of `subject` for which the server has refused a message since `since`.
    pub(super) fn refused_publish(&self, subject: &str, since: Instant) -> Option<String> {
        let state = self.lock();
        let mut refused = state.refused_publishes.iter();
        let found = refused.find(|(start, each)| {
            let rest = subject.strip_prefix(start.as_str());
            each.last >= since && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        found.map(|(start, _)| start.clone())
    }

    /// Records a message that was dropped because its subscription was read too slowly.
    pub(super) fn record_dropped(&self, now: Instant) {
        let mut state = self.lock();
        state.dropped = Some(Occurrences::add(state.dropped, now));
    }

    /// Records that the client was replaced.
    pub(super) fn record_replaced(&self, reason: &'static str, now: Instant) {
        let mut state = self.lock();
        let before = state.replaced.map(|(_, before)| before);
        state.replaced = Some((reason, Occurrences::add(before, now)));
    }

    /// Returns the reason why no server could be reached. The text names every server with the cause of its last
    /// failure.
    pub(super) fn connect_failure(&self) -> Option<String> {
        let state = self.lock();
        let is_reported = |failure: &str| {
            state
                .servers
                .iter()
                .any(|(_, cause)| cause.as_deref().is_some_and(|cause| cause.contains(failure)))
        };
        let unreported = state.last_failure.as_deref().filter(|failure| !is_reported(failure));
        // The library never reports a cause for a server whose name it cannot resolve.
        let unknown = unreported.map_or_else(
            || "not tried yet".to_owned(),
            |cause| format!("{cause}, or not tried yet"),
        );
        let mut parts: Vec<String> = state
            .servers
            .iter()
            .map(|(server, cause)| format!("{server}: {}", cause.as_deref().unwrap_or(&unknown)))
            .collect();
        shorten(&mut parts);
        if state.servers.iter().all(|(_, cause)| cause.is_some()) {
            parts.extend(unreported.map(str::to_owned));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Returns the problems that have occurred recently, except connection failures, keyed by the part of the
    /// connection that they affect.
    pub(super) fn notes(&self, now: Instant) -> BTreeMap<String, String> {
        let state = self.lock();
        let mut notes = BTreeMap::new();
        let refused = state.refused_publishes.iter().filter(|(_, each)| each.is_recent(now));
        let mut refused: Vec<String> =
            refused.map(|(subject, each)| format!("{subject} ({})", each.text(now))).collect();
        if !refused.is_empty() {
            shorten(&mut refused);
            let subjects = refused.join(", ");
            notes.insert(
                "nats permissions".to_owned(),
                format!("NATS does not permit this user to publish to {subjects}"),
            );
        }
        if let Some(dropped) = state.dropped.filter(|each| each.is_recent(now)) {
            let text = dropped.text(now);
            notes.insert(
                "nats messages".to_owned(),
                format!(
                    "messages were dropped, because this process reads too slowly (at least {text})"
                ),
            );
        }
        if let Some((reason, replaced)) = state.replaced.filter(|(_, each)| each.is_recent(now)) {
            let text = replaced.text(now);
            notes.insert(
                CLIENT_REPLACED.to_owned(),
                format!("the connection was replaced by a new one, because {reason} ({text})"),
            );
        }
        notes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the texts beyond the maximum with a text that contains their number.
fn shorten(texts: &mut Vec<String>) {
    let more = texts.len().saturating_sub(SHOWN_MAX);
    texts.truncate(SHOWN_MAX);
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_to_connect_names_every_server_until_a_connection_is_made() {
        let problems = LinkProblems::default();
        assert_eq!(problems.connect_failure(), None);
        problems.record_connect_failure("dns error".to_owned());
        assert_eq!(problems.connect_failure().unwrap(), "dns error");
        let server = |name: &str, cause: Option<&str>| (name.to_owned(), cause.map(str::to_owned));
        let servers = [server("a:1", Some("refused")), server("b:2", None)];
        problems.set_servers(servers.into_iter());
        let text = "a:1: refused; b:2: dns error, or not tried yet";
        assert_eq!(problems.connect_failure().unwrap(), text);
        problems.record_connect_failure("refused".to_owned());
        let text = "a:1: refused; b:2: not tried yet";
        assert_eq!(problems.connect_failure().unwrap(), text);
        problems.connected();
        assert_eq!(problems.connect_failure(), None);
    }

    #[test]
    fn refused_and_dropped_messages_are_shown_for_a_limited_time_and_number() {
        let problems = LinkProblems::default();
        let start = Instant::now();
        assert!(problems.notes(start).is_empty());
        for number in 0..2 * SHOWN_MAX {
            problems.record_refused_publish(&format!("a.{number}"), start);
        }
        problems.record_refused_publish("a.0", start);
        let ninth = "a.12".to_owned();
        assert_eq!(problems.refused_publish(&ninth, start), Some(ninth), "not shown, but known");
        problems.record_dropped(start);
        let now = start + Duration::from_secs(5);
        let notes = problems.notes(now);
        let permissions = &notes["nats permissions"];
        assert!(
            permissions.contains("publish to a.0 (2 times, the last time 5 s ago)"),
            "{permissions}"
        );
        assert_eq!(permissions.matches("5 s ago").count(), SHOWN_MAX, "{permissions}");
        assert!(permissions.ends_with(", and 8 more"), "{permissions}");
        assert!(notes["nats messages"].contains("(at least once, 5 s ago)"), "{notes:?}");
        problems.record_replaced("it ended", start);
        let notes = problems.notes(now);
        assert!(notes["nats client"].contains("because it ended (once, 5 s ago)"), "{notes:?}");
        let refused = |subject, since| problems.refused_publish(subject, since);
        assert_eq!(refused("a.0.7", start).as_deref(), Some("a.0"));
        assert_eq!(refused("a.01", start), None, "another token");
        assert_eq!(refused("a.0", now), None, "earlier");
        assert!(problems.notes(start + SHOWN_FOR).is_empty());
        problems.record_dropped(start + SHOWN_FOR);
        assert!(problems.notes(start + SHOWN_FOR)["nats messages"].contains("once"));
    }

    #[test]
    fn the_number_of_remembered_subjects_and_servers_is_limited() {
        let problems = LinkProblems::default();
        let start = Instant::now();
        for number in 0..=REMEMBERED_MAX {
            let now = start + Duration::from_millis(u64::try_from(number).unwrap());
            problems.record_refused_publish(&format!("a.{number}"), now);
        }
        assert_eq!(problems.refused_publish("a.0", start), None, "the oldest");
        assert!(problems.refused_publish(&format!("a.{REMEMBERED_MAX}"), start).is_some());
        assert_eq!(problems.lock().refused_publishes.len(), REMEMBERED_MAX);
        let servers = (0..10).map(|number| (format!("s{number}:1"), Some("refused".to_owned())));
        problems.set_servers(servers);
        let text = problems.connect_failure().unwrap();
        assert!(text.ends_with("s7:1: refused; and 2 more"), "{text}");
    }
}
