//! The id of a worker. It is a token in the worker's control subjects, `<prefix>.w.<queue>.<worker>.…`.

use std::fmt;
use std::ops::Range;

use crate::message::Subject;

/// The token that follows the prefix in the subjects of workers.
pub const WORKERS_TOKEN: &str = "w";

/// The maximum length of an id, in bytes.
const ID_BYTES_MAX: usize = 64;

/// A worker's id, taken from one of its control subjects.
#[derive(Clone)]
pub struct WorkerId {
    /// The whole subject. Its text is reference-counted, so keeping it copies nothing.
    control: Subject,
    id: Range<usize>,
}

impl WorkerId {
    /// Extracts the id from a control subject. Returns `None` unless the subject is below `workers`, the prefix of the
    /// subjects of a queue's workers. Only these workers may subscribe below it.
    #[must_use]
    pub fn parse(control: &Subject, workers: &Subject) -> Option<Self> {
        let text = control.as_str();
        let tail = text.strip_prefix(workers.as_str())?.strip_prefix('.')?;
        let id = tail.split('.').next().filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))?;
        // NATS servers do not check reply subjects.
        let is_valid = tail.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'));
        let start = text.len() - tail.len();
        is_valid.then(|| Self { control: control.clone(), id: start..start + id.len() })
    }

    /// Returns the control subject from which the id was taken.
    #[must_use]
    pub fn control(&self) -> &Subject {
        &self.control
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.control.as_str().get(self.id.clone()).unwrap_or_default()
    }
}

impl PartialEq for WorkerId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for WorkerId {}

impl std::hash::Hash for WorkerId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_only_from_a_subject_of_the_queue() {
        let workers = Subject::new("fjord.w.reports").unwrap();
        let id = |text: &str| {
            let found = WorkerId::parse(&Subject::from_received(text), &workers);
            found.map(|worker| worker.to_string())
        };
        assert_eq!(id("fjord.w.reports.a1.j.7").as_deref(), Some("a1"));
        assert_eq!(id("fjord.w.reports.a1").as_deref(), Some("a1"));
        let long = format!("fjord.w.reports.{}", "a".repeat(ID_BYTES_MAX + 1));
        for bad in [
            "fjord.w.reports",
            "fjord.w.reports.",
            "fjord.w.reports..j.7",
            "fjord.w.reports.*",
            "fjord.w.reports.a1.>",
            "fjord.w.reports.a1.j\u{1}",
            "fjord.w.reports2.a1.j.7",
            "fjord.w.payments.a1.j.7",
            "fjord.q.payments",
            &long,
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_from_different_subjects_of_a_worker_are_equal() {
        let workers = Subject::new("w.q").unwrap();
        let worker = |text: &str| WorkerId::parse(&Subject::new(text).unwrap(), &workers);
        assert_eq!(worker("w.q.a.j.7"), worker("w.q.a"));
        assert_ne!(worker("w.q.a.j.7"), worker("w.q.b.j.7"));
    }
}
