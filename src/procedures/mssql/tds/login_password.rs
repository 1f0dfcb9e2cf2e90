//! The password of a database login. The password can be replaced while the worker runs.
//!
//! Each refused login counts towards an account lockout. Therefore, the password file is read
//! before each login and again after a refused one, and only one login at a time tries a password
//! that the server has not recently accepted. The other logins wait for the result.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Secret;

/// The time after an accepted login during which several logins may use its password concurrently.
const ACCEPTED_FOR: Duration = Duration::from_secs(1);
/// The time limit for reading a password file.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The password of a login.
#[derive(Debug)]
pub(super) struct LoginPassword {
    state: Mutex<State>,
    /// Held by the login that tries a password.
    trial: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// The password from the configuration or, if the password file has changed since it was read,
    /// from the file.
    newest: Secret,
    /// The password that the server last accepted, with the time, or `None` after the server has
    /// refused it.
    accepted: Option<(Secret, Instant)>,
    /// The password that the server last refused, or `None` after the server has accepted it.
    refused: Option<Secret>,
    /// Whether the last attempt to read the file failed.
    is_unreadable: bool,
}

/// A password with which to log in. No other login tries a password while `trial` is held. Keep the
/// attempt until the caller of `dial` has recorded a refusal too. Otherwise, the next login would
/// try the same password and be refused as well.
#[derive(Debug)]
pub(crate) struct PasswordAttempt<'a> {
    owner: &'a LoginPassword,
    password: Secret,
    trial: Option<tokio::sync::MutexGuard<'a, ()>>,
    /// Whether a different password has already been refused in this attempt.
    is_second: bool,
}

impl PasswordAttempt<'_> {
    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    /// Records that the server accepted the password.
    pub(super) fn record_accepted(&self) {
        let mut state = self.owner.state();
        state.refused.take_if(|one| same(one, &self.password));
        state.accepted = Some((self.password.clone(), Instant::now()));
    }

    /// Records that the server refused the password. Returns whether this value now holds a second
    /// attempt, with another password that may be accepted. The other password is the new one in
    /// the file if the file has changed in the meantime. It is the previous one if the file was
    /// changed before the password was changed on the server. This method is cancel safe.
    pub(super) async fn record_refused(&mut self) -> bool {
        if self.trial.is_none() {
            self.trial = Some(self.owner.trial.lock().await);
        }
        self.owner.read_file().await;
        let other = self.owner.state().record_refused(&self.password);
        let Some(other) = other.filter(|_| !self.is_second) else { return false };
        (self.password, self.is_second) = (other, true);
        true
    }
}

impl State {
    /// Returns the password for the next login, and whether the server has just accepted it.
    fn next(&self) -> (Secret, bool) {
        let is_refused = self.refused.as_ref().is_some_and(|one| same(one, &self.newest));
        match &self.accepted {
            Some((password, at)) if is_refused || same(password, &self.newest) => {
                (password.clone(), at.elapsed() < ACCEPTED_FOR)
            }
            _ => (self.newest.clone(), false),
        }
    }

    /// Records that the server refused `used`, and returns another password that may be accepted.
    fn record_refused(&mut self, used: &Secret) -> Option<Secret> {
        let was_accepted = self.accepted.take_if(|(one, _)| same(one, used)).is_some();
        let is_refused = self.refused.as_ref().is_some_and(|one| same(one, &self.newest));
        if same(used, &self.newest) {
            self.refused = Some(used.clone());
            return self.accepted.as_ref().map(|(password, _)| password.clone());
        }
        // The new password may be valid by now, even if the server refused it before.
        (was_accepted || !is_refused).then(|| self.newest.clone())
    }
}

impl LoginPassword {
    pub(super) fn new(password: Secret) -> Self {
        let state = State { newest: password, accepted: None, refused: None, is_unreadable: false };
        Self { state: Mutex::new(state), trial: tokio::sync::Mutex::default() }
    }

    /// Replaces the password. Returns whether the new password is different.
    pub(super) fn set(&self, password: &Secret) -> bool {
        let mut state = self.state();
        let is_new = !same(&state.newest, password);
        state.newest = password.clone();
        is_new
    }

    /// Reads the password file, and returns the password for the next login. Waits while another
    /// login tries a password, unless the server has just accepted this one. This method is cancel
    /// safe.
    pub(super) async fn attempt(&self) -> PasswordAttempt<'_> {
        self.read_file().await;
        let (password, is_accepted) = self.state().next();
        if is_accepted {
            return PasswordAttempt { owner: self, password, trial: None, is_second: false };
        }
        let trial = self.trial.lock().await;
        let (password, is_accepted) = self.state().next();
        let trial = (!is_accepted).then_some(trial);
        PasswordAttempt { owner: self, password, trial, is_second: false }
    }

    /// Reads the password from its file, if it has one. Logs once why the file cannot be read.
    async fn read_file(&self) {
        let before = self.state().newest.clone();
        if before.file().is_none() {
            return;
        }
        let secret = before.clone();
        let reading = tokio::task::spawn_blocking(move || secret.read_again());
        let read = match tokio::time::timeout(READ_TIMEOUT, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(error.to_string()),
            Err(elapsed) => Err(elapsed.to_string()),
        };
        let mut state = self.state();
        let was_unreadable = std::mem::replace(&mut state.is_unreadable, read.is_err());
        match read {
            Err(error) if !was_unreadable => {
                tracing::warn!(
                    error,
                    "the password cannot be read again: the old one stays in use"
                );
            }
            // A reload may have replaced the password in the meantime.
            Ok(read) if !same(&read, &before) && same(&state.newest, &before) => {
                tracing::info!(file = ?read.file(), "the password file has changed; using the new password");
                state.newest = read;
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(one: &Secret, other: &Secret) -> bool {
    one.expose() == other.expose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// Logs in to a server that accepts one password. Returns the passwords that were tried.
    async fn log_in(password: &LoginPassword, server: &str) -> Vec<String> {
        let mut tried = Vec::new();
        let mut attempt = password.attempt().await;
        loop {
            tried.push(attempt.password().expose().to_owned());
            if attempt.password().expose() == server {
                attempt.record_accepted();
                return tried;
            }
            if !attempt.record_refused().await {
                return tried;
            }
        }
    }

    #[tokio::test]
    async fn a_password_that_is_not_in_effect_yet_is_tried_once_before_and_once_after() {
        let password = LoginPassword::new(secret("old"));
        assert_eq!(log_in(&password, "old").await, ["old"]);
        assert!(password.set(&secret("new")) && !password.set(&secret("new")));
        assert_eq!(log_in(&password, "old").await, ["new", "old"]);
        assert_eq!(log_in(&password, "old").await, ["old"]);
        assert_eq!(log_in(&password, "new").await, ["old", "new"]);
        assert_eq!(log_in(&password, "new").await, ["new"]);
        // A newer password is tried although the one before it was refused.
        password.set(&secret("newer"));
        assert_eq!(log_in(&password, "newest").await, ["newer", "new"]);
        assert_eq!(log_in(&password, "newest").await, ["newer"]);
        password.set(&secret("newest"));
        assert_eq!(log_in(&password, "newest").await, ["newest"]);
    }

    #[tokio::test]
    async fn logins_wait_for_the_one_that_tries_a_password() {
        let password = LoginPassword::new(secret("only"));
        let first = password.attempt().await;
        let mut second = Box::pin(password.attempt());
        assert!(futures_util::poll!(&mut second).is_pending());
        first.record_accepted();
        drop(first);
        let second = second.await;
        assert!(second.trial.is_none(), "the password was just accepted");
        assert!(password.attempt().await.trial.is_none());
        password.set(&secret("other"));
        assert!(password.attempt().await.trial.is_some());
    }

    #[tokio::test]
    async fn no_login_tries_a_password_until_the_refused_attempt_is_dropped() {
        let password = LoginPassword::new(secret("only"));
        let mut first = password.attempt().await;
        assert!(!first.record_refused().await);
        let mut second = Box::pin(password.attempt());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.trial.is_some());
    }
}
