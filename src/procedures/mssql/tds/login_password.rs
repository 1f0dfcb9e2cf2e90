//! The password of a database's login, which can be replaced while the worker runs.
//!
//! Each refused login counts towards an account lockout. Therefore a password that was read from a
//! changed file is tried once, by one login, whatever the number of logins that were refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Secret;

/// The password of a login.
#[derive(Debug)]
pub(super) struct LoginPassword {
    state: Mutex<State>,
    /// Held while a password from a changed file is tried.
    renewal: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    current: Secret,
    /// The password that the server refused last, until it accepts one.
    refused: Option<Secret>,
}

/// A password that replaces a refused one and that is to be tried once.
#[derive(Debug)]
pub(super) struct PasswordRenewal<'a> {
    owner: &'a LoginPassword,
    password: Secret,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl PasswordRenewal<'_> {
    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    /// Records that the server refused the password.
    pub(super) fn record_refused(self) {
        self.owner.state().refused = Some(self.password.clone());
    }
}

impl LoginPassword {
    pub(super) fn new(password: Secret) -> Self {
        let state = State { current: password, refused: None };
        Self { state: Mutex::new(state), renewal: tokio::sync::Mutex::default() }
    }

    /// Replaces the password. Returns whether it was replaced by a different one.
    pub(super) fn set(&self, password: &Secret) -> bool {
        let mut state = self.state();
        let is_new = state.current.expose() != password.expose();
        state.current = password.clone();
        is_new
    }

    /// Returns the password for the next login. If the server refused it before, reads it from its
    /// file again. Safe to drop.
    pub(super) async fn current(&self) -> Secret {
        let current = self.state().current.clone();
        if self.is_refused(&current)
            && let Some(read) = read_again(&current).await
        {
            return self.replace(&current, read);
        }
        current
    }

    /// Returns the password to try after the server refused `used`: one that was set in the
    /// meantime, or one from a changed file. Returns `None` if there is none, or if the server has
    /// refused it too. Waits while another login tries one. Safe to drop.
    pub(super) async fn renew(&self, used: &Secret) -> Option<PasswordRenewal<'_>> {
        let guard = self.renewal.lock().await;
        let current = self.state().current.clone();
        let password = if current.expose() == used.expose() {
            self.state().refused = Some(used.clone());
            let read = read_again(used).await?;
            self.replace(used, read)
        } else {
            current
        };
        let is_other = password.expose() != used.expose() && !self.is_refused(&password);
        is_other.then_some(PasswordRenewal { owner: self, password, _guard: guard })
    }

    /// Records that the server accepted a password, if it did.
    pub(super) fn record_accepted(&self, is_accepted: bool, password: &Secret) {
        let mut state = self.state();
        if is_accepted && state.current.expose() == password.expose() {
            state.refused = None;
        }
    }

    /// Replaces `used` by the password that was read from its file, unless another password was set
    /// in the meantime. Returns the current password.
    fn replace(&self, used: &Secret, read: Secret) -> Secret {
        let mut state = self.state();
        if state.current.expose() == used.expose() && read.expose() != used.expose() {
            tracing::info!(file = ?read.file(), "the password file has changed: using the new one");
            state.current = read;
        }
        state.current.clone()
    }

    fn is_refused(&self, password: &Secret) -> bool {
        self.state().refused.as_ref().is_some_and(|one| one.expose() == password.expose())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a password from its file again. Logs why it cannot be read.
async fn read_again(password: &Secret) -> Option<Secret> {
    password.file()?;
    let password = password.clone();
    let read = tokio::task::spawn_blocking(move || password.read_again()).await.ok()?;
    read.inspect_err(|error| tracing::warn!(error, "the refused password cannot be read again"))
        .ok()
}
