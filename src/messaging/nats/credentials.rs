//! Credentials. Their files are read for every connection, so the next connection uses a replaced
//! file.

use std::path::Path;

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::config::Secret;
use crate::config::messaging::NatsCredentials;

/// Creates the credentials for a connection and signs the server's nonce if required.
pub(super) async fn authenticate(
    credentials: NatsCredentials,
    nonce: Vec<u8>,
) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    match &credentials {
        NatsCredentials::None => {}
        NatsCredentials::User { user, password } => {
            auth.username = Some(user.clone());
            auth.password = Some(read(password).await?.expose().to_owned());
        }
        NatsCredentials::Token(token) => auth.token = Some(read(token).await?.expose().to_owned()),
        NatsCredentials::Nkey(seed) => {
            let pair = pair(read(seed).await?.expose())?;
            auth.nkey = Some(pair.public_key());
            auth.signature = Some(pair.sign(&nonce).map_err(AuthError::new)?);
        }
        NatsCredentials::CredentialsFile(path) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| refused(path, &error.to_string()))?;
            let mut sections = sections(&text);
            let (Some(jwt), Some(seed)) = (sections.next(), sections.next()) else {
                return Err(refused(path, "expected a user JWT and an nkey seed"));
            };
            let pair = pair(seed)?;
            auth.jwt = Some(jwt.to_owned());
            auth.signature = Some(pair.sign(&nonce).map_err(AuthError::new)?);
        }
    }
    Ok(auth)
}

/// Reads a secret from its file again. Returns it unchanged if it did not come from a file.
async fn read(secret: &Secret) -> Result<Secret, AuthError> {
    let Some(path) = secret.file() else { return Ok(secret.clone()) };
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| refused(path, &error.to_string()))?;
    let secret = Secret::from_file(path, &text);
    if secret.expose().is_empty() { Err(refused(path, "the file is empty")) } else { Ok(secret) }
}

fn pair(seed: &str) -> Result<KeyPair, AuthError> {
    // The library's error may contain part of the seed.
    KeyPair::from_seed(seed.trim()).map_err(|_| AuthError::new("the nkey seed is not valid"))
}

fn refused(path: &Path, why: &str) -> AuthError {
    AuthError::new(format!("{}: {why}", path.display()))
}

/// Returns the first non-empty line after each `BEGIN` line of a credentials file written by `nsc`.
fn sections(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.find(|line| !line.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_and_a_seed_are_found_between_other_text() {
        let text = "-----BEGIN NATS USER JWT-----\r\neyJ0.e30.c2ln\r\n------END NATS USER JWT------\r\n\r\n\
                    *** IMPORTANT ***\nkeep it\n\n-----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n";
        assert_eq!(sections(text).collect::<Vec<_>>(), ["eyJ0.e30.c2ln", "SUAB"]);
        assert_eq!(sections("").count(), 0);
        assert_eq!(sections("-----BEGIN NATS USER JWT-----").count(), 0);
    }
}
