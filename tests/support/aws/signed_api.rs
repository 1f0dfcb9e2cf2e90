//! A local stand-in for `CloudWatch` and Auto Scaling. It checks signatures, and can refuse, fail or hang.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::REGION;
use super::instance_metadata::secret_key;
use crate::support::sigv4::{SigningKey, signature};

/// The actions of Auto Scaling that an instance may request.
const LIFECYCLE_ACTIONS: [&str; 2] = ["CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"];

/// How a service answers one request with a valid signature.
#[derive(Clone, Debug)]
pub(crate) enum ServiceAnswer {
    /// It refuses the request with this status, code and message.
    Refuse(u16, &'static str, &'static str),
    /// It answers with this status and text.
    Text(u16, String),
    /// It never answers.
    Hang,
}

/// A request that a service has accepted: its parameters.
pub(crate) type Accepted = BTreeMap<String, String>;

/// The state of the services.
#[derive(Debug, Default)]
pub(super) struct ApiState {
    /// The answers to the next requests for an action.
    pub(super) next_action_answers: BTreeMap<String, VecDeque<ServiceAnswer>>,
    /// The answers to all further requests for an action.
    pub(super) action_answers: BTreeMap<String, ServiceAnswer>,
    /// The answers to the next requests for other actions. Further requests are accepted.
    pub(super) answers: VecDeque<ServiceAnswer>,
    pub(super) accepted: Vec<Accepted>,
    pub(super) attempts: usize,
    /// The reasons why signatures were not valid.
    pub(super) bad_signatures: Vec<String>,
}

impl ApiState {
    /// Answers a request; `None` if the service hangs. `issued` is the number of credentials that have been read.
    pub(super) fn answer(
        &mut self,
        parts: &Parts,
        body: &Bytes,
        issued: u32,
    ) -> Option<(StatusCode, String)> {
        self.attempts += 1;
        if let Err(reason) = verify(parts, body, issued) {
            self.bad_signatures.push(reason);
            return Some(refusal(403, "SignatureDoesNotMatch", "the signature is not valid"));
        }
        let text = std::str::from_utf8(body).expect("a form");
        let form: Accepted =
            text.split('&').filter_map(|pair| pair.split_once('=')).map(decoded).collect();
        let next = self.next_action_answers.get_mut(&form["Action"]).and_then(VecDeque::pop_front);
        let of_action = next.or_else(|| self.action_answers.get(&form["Action"]).cloned());
        match of_action.or_else(|| self.answers.pop_front()) {
            Some(ServiceAnswer::Hang) => None,
            Some(ServiceAnswer::Refuse(status, code, message)) => {
                Some(refusal(status, code, message))
            }
            Some(ServiceAnswer::Text(status, text)) => {
                Some((StatusCode::from_u16(status).expect("a status"), text))
            }
            None => {
                self.accepted.push(form);
                Some((StatusCode::OK, "<PutMetricDataResponse/>".to_owned()))
            }
        }
    }
}

/// Decodes a parameter of a form.
fn decoded((name, value): (&str, &str)) -> (String, String) {
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned()
    };
    (decoded(name), decoded(value))
}

fn refusal(status: u16, code: &str, message: &str) -> (StatusCode, String) {
    let text = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    (StatusCode::from_u16(status).expect("a status"), text)
}

/// Recomputes the signature, and compares it with that of the request.
fn verify(parts: &Parts, body: &[u8], issued: u32) -> Result<(), String> {
    let header = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        value.ok_or_else(|| format!("no {name}"))
    };
    let get = |name: &str| header(&parts.headers, name);
    let authorization = get("authorization")?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let fields: BTreeMap<&str, &str> =
        fields.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let field = |name: &str| fields.get(name).copied().ok_or_else(|| format!("no {name}"));
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let [id, date, region, service, "aws4_request"] = credential[..] else {
        return Err(format!("the scope {credential:?}"));
    };
    let form = String::from_utf8_lossy(body);
    let expected = if form.starts_with("Action=PutMetricData&Version=2010-08-01&") {
        "monitoring"
    } else if LIFECYCLE_ACTIONS
        .iter()
        .any(|action| form.starts_with(&format!("Action={action}&Version=2011-01-01&")))
    {
        "autoscaling"
    } else {
        return Err(format!("the action {form}"));
    };
    // Several processes can use the service at once, each with its own credentials.
    let number = id.strip_prefix("ASIA").and_then(|number| number.parse::<u32>().ok());
    let number = number.filter(|number| (1..=issued).contains(number)).unwrap_or_default();
    let has_token = get("x-amz-security-token")? == format!("session-token-{number}");
    if number == 0 || region != REGION || service != expected || !has_token {
        return Err(format!("the credential {credential:?}"));
    }
    let time = get("x-amz-date")?;
    let signed_at = chrono::NaiveDateTime::parse_from_str(&time, "%Y%m%dT%H%M%SZ");
    let age = chrono::Utc::now() - signed_at.map_err(|error| error.to_string())?.and_utc();
    if age.num_seconds().abs() > 60 || !time.starts_with(date) {
        return Err(format!("the time {time}"));
    }
    let names: Vec<&str> = field("SignedHeaders")?.split(';').collect();
    if names != ["content-type", "host", "x-amz-date", "x-amz-security-token"] {
        return Err(format!("the signed headers {names:?}"));
    }
    let values: Result<Vec<String>, String> = names.iter().map(|name| get(name)).collect();
    let values = values?;
    let headers: Vec<(&str, &str)> =
        names.iter().copied().zip(values.iter().map(String::as_str)).collect();
    let key = SigningKey { secret: &secret_key(number), date, region, service };
    let computed = signature(parts.method.as_str(), &headers, body, &time, key);
    if computed != field("Signature")? {
        return Err(format!("the signature of {headers:?}"));
    }
    Ok(())
}
