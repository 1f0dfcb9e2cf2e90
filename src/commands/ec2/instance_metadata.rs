//! A client for the EC2 instance metadata service, version 2. Each query requires a session token.

use std::time::Duration;

use aws_credential_types::Credentials;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::http_client::{HttpClient, SendFailure};

/// The maximum time to wait for a response, which normally takes a few milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The lifetime of a session token in seconds. This is the longest lifetime that the service permits. A token is
/// renewed after half of this time.
const TOKEN_SECONDS: u32 = 21_600;
/// The path to the credentials of the instance's role. The name of the role is appended to it.
const ROLE_PATH: &str = "iam/security-credentials/";

/// A client for the metadata service, and its session token.
pub(super) struct InstanceMetadata {
    client: HttpClient,
    url: String,
    token: Option<(String, Instant)>,
    /// Whether the service responded to the last request.
    is_reachable: bool,
}

/// The temporary credentials of the instance's role.
pub(super) struct RoleCredentials {
    pub(super) role: String,
    pub(super) credentials: Credentials,
    /// The time at which the credentials expire, in the service's format.
    pub(super) expiration: String,
}

/// The JSON document that contains the credentials.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CredentialsDocument {
    code: String,
    message: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl InstanceMetadata {
    /// Creates a client without connecting to the service.
    pub(super) fn new(client: HttpClient, url: &str) -> Self {
        Self { client, url: url.trim_end_matches('/').to_owned(), token: None, is_reachable: true }
    }

    /// Returns whether the service responded to the last request, regardless of the status.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_reachable
    }

    /// Returns a value, or `None` if the instance does not have it. Cancel safe.
    ///
    /// # Errors
    /// Returns a message if the service does not respond or refuses the request.
    pub(super) async fn find(&mut self, path: &str) -> Result<Option<String>, String> {
        let mut answer = self.query(path).await?;
        if answer.0 == StatusCode::UNAUTHORIZED {
            // A token can become invalid, for example when the instance is stopped and started.
            self.token = None;
            answer = self.query(path).await?;
        }
        match answer {
            (StatusCode::OK, text) => Ok(Some(text.trim().to_owned())),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(format!(
                "the instance metadata service {} answers {path} with status {status}, expected 200",
                self.url
            )),
        }
    }

    /// Returns a value that every instance has. Cancel safe.
    ///
    /// # Errors
    /// Returns a message if the value does not exist or the service does not respond.
    pub(super) async fn get(&mut self, path: &str) -> Result<String, String> {
        let value = self.find(path).await?.filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("the instance metadata service {} has no {path}", self.url))
    }

    /// Returns the credentials of the instance's role. Cancel safe.
    ///
    /// # Errors
    /// Returns a message if the instance has no role or its role cannot be assumed.
    pub(super) async fn credentials(&mut self) -> Result<RoleCredentials, String> {
        let names = self.find(ROLE_PATH).await?.unwrap_or_default();
        let Some(role) = names.lines().next().filter(|role| !role.is_empty()) else {
            return Err("the instance has no role: attach an instance profile".to_owned());
        };
        let text = self.get(&format!("{ROLE_PATH}{role}")).await?;
        let document: CredentialsDocument = serde_json::from_str(&text).map_err(|_| {
            format!(
                "expected the credentials of role {role} as JSON from the instance metadata service"
            )
        })?;
        let CredentialsDocument { code, message, .. } = &document;
        if code != "Success" {
            return Err(format!("there are no credentials for role {role}: {code}: {message}"));
        }
        if document.access_key_id.is_empty() || document.secret_access_key.is_empty() {
            return Err(format!("the credentials of role {role} are incomplete"));
        }
        let (id, secret) = (document.access_key_id, document.secret_access_key);
        let token = Some(document.token).filter(|token| !token.is_empty());
        Ok(RoleCredentials {
            role: role.to_owned(),
            credentials: Credentials::new(id, secret, token, None, "instance profile"),
            expiration: document.expiration,
        })
    }

    async fn query(&mut self, path: &str) -> Result<(StatusCode, String), String> {
        let token = self.token().await?;
        let url = format!("{}/latest/meta-data/{path}", self.url);
        let request = self.client.request(Method::GET, &url);
        self.send(request.header("X-aws-ec2-metadata-token", token)).await
    }

    /// Returns the session token. Requests a new one if there is none or if it is due for renewal.
    async fn token(&mut self) -> Result<String, String> {
        if let Some((token, until)) = &self.token
            && *until > Instant::now()
        {
            return Ok(token.clone());
        }
        let until = Instant::now() + Duration::from_secs(u64::from(TOKEN_SECONDS / 2));
        let request = self
            .client
            .request(Method::PUT, &format!("{}/latest/api/token", self.url))
            .header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
        let (status, token) = self.send(request).await?;
        if status != StatusCode::OK || token.is_empty() {
            return Err(format!(
                "the instance metadata service {} does not issue a session token (status {status}): expected version 2 of the \
                 service (IMDSv2), enabled for this instance",
                self.url
            ));
        }
        self.token = Some((token.clone(), until));
        Ok(token)
    }

    async fn send(
        &mut self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, String), String> {
        let url = &self.url;
        let failed = |reason: String| {
            format!(
                "cannot query the instance metadata service {url}: {reason} (expected an EC2 instance with the metadata \
                 service enabled; in a container, the service's hop limit must be at least 2)"
            )
        };
        let request = request.build().map_err(|error| failed(error.to_string()))?;
        let answered = self.client.send(request, ANSWER_LIMIT).await;
        self.is_reachable = answered.is_ok();
        answered.map_err(|SendFailure { reason, .. }| failed(reason))
    }
}
