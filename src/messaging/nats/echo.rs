//! Messages to ourselves: one that comes back proves that the server has read it, and all that was sent before it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::message::{Subject, SubjectError};

/// The echoes that are waited for.
#[derive(Debug)]
pub(super) struct Echoes {
    base: Subject,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// An echo that is waited for; forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Echo<'a> {
    echoes: &'a Echoes,
    number: u64,
    came: oneshot::Receiver<()>,
}

impl Echoes {
    /// None is waited for.
    pub(super) fn new(inbox: &Subject) -> Result<Self, SubjectError> {
        let base = inbox.join("echo")?;
        Ok(Self { base, next: AtomicU64::new(0), waiting: Mutex::default() })
    }

    /// What has to be subscribed to.
    pub(super) fn subject(&self) -> Subject {
        self.base.all_below()
    }

    /// Begins to wait for one.
    pub(super) fn expect(&self) -> Echo<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, came) = oneshot::channel();
        self.lock().insert(number, sender);
        Echo { echoes: self, number, came }
    }

    /// A message arrived on the subject that was subscribed to.
    pub(super) fn arrived(&self, subject: &str) {
        let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
        if let Some(waiting) = number.and_then(|number: u64| self.lock().remove(&number)) {
            // Who waited may just have given up.
            let _given_up = waiting.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Echo<'_> {
    /// Where an empty message has to be sent.
    pub(super) fn subject(&self) -> Subject {
        self.echoes.base.join_numbers([self.number])
    }

    /// Waits until it comes; for ever when it never does. Safe to drop.
    pub(super) async fn came(&mut self) {
        if (&mut self.came).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        self.echoes.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_echo_is_told_from_others_and_forgotten_with_whoever_waited() {
        let echoes = Echoes::new(&Subject::new("inbox.me").unwrap()).unwrap();
        let (mut first, second) = (echoes.expect(), echoes.expect());
        assert_eq!(first.subject().as_str(), "inbox.me.echo.0");
        assert_eq!(second.subject().as_str(), "inbox.me.echo.1");
        for other in ["inbox.me.echo.7", "inbox.me.echo.x", ""] {
            echoes.arrived(other);
        }
        echoes.arrived("inbox.me.echo.0");
        first.came().await;
        drop((first, second));
        assert!(echoes.lock().is_empty());
    }
}
