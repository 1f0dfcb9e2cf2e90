//! Probes of the link. A probe is a message that this process sends to itself. When it comes back, the server has read
//! it and everything that was sent before it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::message::{Subject, SubjectError};

/// The maximum number of subscriptions without interest that are remembered until the next check. It exceeds the number
/// of subscriptions that are checked.
const UNSERVED_MAX: usize = 64;

/// The probes that have not come back yet.
#[derive(Debug)]
pub(super) struct LinkProbes {
    base: Subject,
    trial: Subject,
    unserved: Subject,
    next: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// The subscriptions in which the server has no interest.
    unserved_ids: Mutex<BTreeSet<u64>>,
}

/// A probe that has not come back. Dropping the probe unregisters it.
#[derive(Debug)]
pub(super) struct LinkProbe<'a> {
    probes: &'a LinkProbes,
    number: u64,
    returned: oneshot::Receiver<()>,
}

impl LinkProbes {
    /// Creates an empty set of probes whose subjects are below `inbox`.
    pub(super) fn new(inbox: &Subject) -> Result<Self, SubjectError> {
        let (base, trial) = (inbox.join("echo")?, inbox.join("trial")?);
        let unserved = base.join("unserved")?;
        Ok(Self {
            base,
            trial,
            unserved,
            next: AtomicU64::new(0),
            pending: Mutex::default(),
            unserved_ids: Mutex::default(),
        })
    }

    /// Returns the subject on which probes come back.
    pub(super) fn subject(&self) -> Subject {
        self.base.all_below()
    }

    /// Returns a subject to which only client number `client` subscribes.
    pub(super) fn trial_subject(&self, client: u64) -> Subject {
        self.trial.join_numbers([client])
    }

    /// Registers a new probe. The caller must send it.
    pub(super) fn start(&self) -> LinkProbe<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, returned) = oneshot::channel();
        self.lock().insert(number, sender);
        LinkProbe { probes: self, number, returned }
    }

    /// Returns the subject to which the server replies if it has no interest in the subscription with this `id`.
    pub(super) fn unserved_subject(&self, id: u64) -> Subject {
        self.unserved.join_numbers([id])
    }

    /// Returns the subscriptions in which the server has reported no interest since the last call.
    pub(super) fn take_unserved(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.unserved_ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Completes the probe to which a received message belongs, or records a subscription without interest.
    pub(super) fn on_message(&self, subject: &str) {
        if let Some(id) = subject.strip_prefix(self.unserved.as_str()) {
            let mut ids = self.unserved_ids.lock().unwrap_or_else(PoisonError::into_inner);
            if ids.len() < UNSERVED_MAX {
                ids.extend(id.strip_prefix('.').and_then(|id| id.parse::<u64>().ok()));
            }
            return;
        }
        let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
        if let Some(sender) = number.and_then(|number: u64| self.lock().remove(&number)) {
            // The probe may just have been dropped.
            let _dropped = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkProbe<'_> {
    /// Returns the subject to which an empty message must be sent.
    pub(super) fn subject(&self) -> Subject {
        self.probes.base.join_numbers([self.number])
    }

    /// Waits until the probe comes back. Waits forever if it is lost. Cancel safe.
    pub(super) async fn returned(&mut self) {
        if (&mut self.returned).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LinkProbe<'_> {
    fn drop(&mut self) {
        self.probes.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_are_distinguished_and_removed_when_dropped() {
        let probes = LinkProbes::new(&Subject::new("inbox.me").unwrap()).unwrap();
        let (mut first, second) = (probes.start(), probes.start());
        assert_eq!(first.subject().as_str(), "inbox.me.echo.0");
        assert_eq!(second.subject().as_str(), "inbox.me.echo.1");
        for other in ["inbox.me.echo.7", "inbox.me.echo.x", ""] {
            probes.on_message(other);
        }
        probes.on_message("inbox.me.echo.0");
        first.returned().await;
        assert_eq!(probes.unserved_subject(1).as_str(), "inbox.me.echo.unserved.1");
        probes.on_message("inbox.me.echo.unserved.1");
        assert_eq!(probes.lock().len(), 1, "the subscription is not a probe");
        assert_eq!(probes.take_unserved(), BTreeSet::from([1]));
        assert_eq!(probes.take_unserved(), BTreeSet::new());
        drop((first, second));
        assert!(probes.lock().is_empty());
    }
}
