//! Sends signed requests to an AWS service that uses the query protocol. The number of attempts is limited.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::{HeaderValue, header};
use tokio::time::sleep;

use super::http_client::{CONNECT_LIMIT, HttpClient, SendFailure};
use super::instance_metadata::{InstanceMetadata, RoleCredentials};
use super::service_error::ServiceError;
use crate::jitter::jittered;

/// The maximum time to wait for the response to one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The maximum number of attempts for a request. Further attempts are unnecessary, because a timer or the service
/// manager runs the command again later.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before the second attempt. It doubles before each further attempt.
const PAUSE: Duration = Duration::from_secs(1);
const _: () = assert!(
    CONNECT_LIMIT.as_secs() < ATTEMPT_LIMIT.as_secs(),
    "a request must not be taken for sent because connecting takes long"
);
/// The content type of the query protocol.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// A client for one AWS service.
pub(super) struct SignedApi {
    client: HttpClient,
    /// The name of the service in signatures and in the names of its endpoints.
    name: &'static str,
    /// The namespace of the service's actions in policies.
    policy_prefix: &'static str,
    region: String,
    url: String,
}

/// The error of a failed call.
pub(super) struct CallFailure {
    pub(super) message: String,
    /// The error returned by the service, if it refused the last attempt.
    pub(super) refusal: Option<ServiceError>,
    /// Whether an attempt may have succeeded, because it was sent but the response was missing or did not settle the
    /// outcome.
    pub(super) may_have_succeeded: bool,
}

impl CallFailure {
    /// Returns the failure of a call for which no request was sent.
    pub(super) fn before_sending(message: String) -> Self {
        Self { message, refusal: None, may_have_succeeded: false }
    }
}

impl SignedApi {
    /// Creates a client for a service in the instance's region. `url` replaces the public endpoint.
    ///
    /// # Errors
    /// Returns a message if the region is not known.
    pub(super) async fn new(
        client: HttpClient,
        (name, policy_prefix): (&'static str, &'static str),
        url: Option<&str>,
        metadata: &mut InstanceMetadata,
    ) -> Result<Self, String> {
        let region = metadata.get("placement/region").await?;
        let url = if let Some(url) = url {
            url.to_owned()
        } else {
            let domain = metadata.get("services/domain").await?;
            format!("https://{name}.{region}.{domain}")
        };
        Ok(Self { client, name, policy_prefix, region, url })
    }

    /// Calls an action. `form` contains the encoded parameters except `Action`. Each attempt uses the credentials that
    /// the metadata service returns at the time of the attempt.
    ///
    /// # Errors
    /// Returns `CallFailure` if the last attempt fails, or if an earlier attempt fails in a way that a retry cannot
    /// fix.
    pub(super) async fn call(
        &self,
        action: &str,
        form: &str,
        metadata: &mut InstanceMetadata,
    ) -> Result<(), CallFailure> {
        let body = format!("Action={action}&{form}");
        let mut pause = PAUSE;
        let mut attempt = 1;
        let mut may_have_succeeded = false;
        loop {
            let credentials = metadata.credentials().await.map_err(|message| CallFailure {
                may_have_succeeded,
                ..CallFailure::before_sending(message)
            })?;
            let failure = match self.send(&body, &credentials).await {
                Ok(None) => return Ok(()),
                Ok(Some(error)) => {
                    may_have_succeeded |= error.is_ambiguous();
                    if !error.is_transient() || attempt == ATTEMPTS_MAX {
                        let message = self.describe(action, &error, &credentials, attempt);
                        let refusal = Some(error);
                        return Err(CallFailure { message, refusal, may_have_succeeded });
                    }
                    error.to_string()
                }
                Err(SendFailure { reason, was_sent }) => {
                    may_have_succeeded |= was_sent;
                    if attempt == ATTEMPTS_MAX {
                        let message =
                            format!("could not reach {} in {attempt} attempts: {reason}", self.url);
                        return Err(CallFailure { message, refusal: None, may_have_succeeded });
                    }
                    reason
                }
            };
            tracing::debug!(failure, attempt, "an attempt has failed");
            sleep(jittered(pause, 0.5..=1.5)).await;
            pause *= 2;
            attempt += 1;
        }
    }

    fn describe(
        &self,
        action: &str,
        error: &ServiceError,
        RoleCredentials { role, expiration, .. }: &RoleCredentials,
        attempt: u32,
    ) -> String {
        let hint = if error.is_denied() {
            format!(": role {role} must permit {}:{action}", self.policy_prefix)
        } else if error.has_expired() {
            format!(
                ": according to the instance metadata, the credentials of role {role} expire at {expiration}; check the \
                 clock of this host"
            )
        } else if error.is_bad_signature() {
            ": check the clock of this host".to_owned()
        } else if error.is_transient() {
            format!(", after {attempt} attempts")
        } else {
            String::new()
        };
        format!("{} refuses {action}: {error}{hint}", self.url)
    }

    /// Makes one attempt. Returns the service's error if the service refuses the request.
    async fn send(
        &self,
        body: &str,
        credentials: &RoleCredentials,
    ) -> Result<Option<ServiceError>, SendFailure> {
        let not_sent = |reason| SendFailure { reason, was_sent: false };
        let request = self.signed(body, credentials).map_err(not_sent)?;
        let request = reqwest::Request::try_from(request);
        let request = request.map_err(|error| not_sent(error.to_string()))?;
        let (status, answer) = self.client.send(request, ATTEMPT_LIMIT).await?;
        Ok((!status.is_success()).then(|| ServiceError::read(status, &answer)))
    }

    fn signed(
        &self,
        body: &str,
        credentials: &RoleCredentials,
    ) -> Result<http::Request<String>, String> {
        let cannot_sign = |reason: String| format!("cannot sign the request: {reason}");
        let url = format!("{}/", self.url);
        let identity = credentials.credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| cannot_sign(error.to_string()))?
            .into();
        let headers = [(header::CONTENT_TYPE.as_str(), FORM)].into_iter();
        let signable = SignableRequest::new(
            "POST",
            url.as_str(),
            headers,
            SignableBody::Bytes(body.as_bytes()),
        );
        let signable = signable.map_err(|error| cannot_sign(error.to_string()))?;
        let signed = sign(signable, &parameters).map_err(|error| cannot_sign(error.to_string()))?;
        let (headers, _) = signed.into_parts().0.into_parts();
        let mut request = http::Request::post(url)
            .header(header::CONTENT_TYPE, FORM)
            .body(body.to_owned())
            .map_err(|error| cannot_sign(error.to_string()))?;
        for header in headers {
            let mut value = HeaderValue::from_str(header.value())
                .map_err(|_| cannot_sign("the session token is not text".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header.name(), value);
        }
        Ok(request)
    }
}
