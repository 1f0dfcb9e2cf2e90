//! The key of an answer: everything that a call's answer can depend on.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::HeaderValue;

use crate::catalogue::{Endpoint, Representation};
use crate::envelope::{Final, Request};

/// The key of an answer. Two requests with the same key call the same procedure with the same arguments on behalf of the
/// same caller, and want the same representation.
#[derive(Clone, Debug)]
pub(super) struct AnswerKey {
    /// The endpoint of one loaded catalogue. A reload creates new endpoints. The weak reference prevents the endpoint's
    /// address from being reused, but does not keep a removed endpoint in memory.
    endpoint: Weak<Endpoint>,
    /// The index of the queue: the queues of an endpoint can have different procedures.
    queue: usize,
    /// The validated parameters, in the order of the catalogue and with all defaults. They include claims.
    payload: Bytes,
    /// The caller, or `None` if the endpoint's answers do not depend on it.
    principal: Option<String>,
    /// The media type.
    accept: Option<String>,
}

impl AnswerKey {
    pub(super) fn new((endpoint, queue): (&Arc<Endpoint>, usize), request: &Request) -> Self {
        Self {
            endpoint: Arc::downgrade(endpoint),
            queue,
            payload: request.payload.clone(),
            principal: request.principal.clone().filter(|_| !endpoint.cache.is_shared),
            accept: request.accept.clone(),
        }
    }

    /// Returns whether an answer can be sent to the clients that request it. The answer's headers must be valid, and
    /// the answer must be in the representation that the clients accept.
    pub(super) fn is_valid_answer(&self, answer: &Final) -> bool {
        let Some(endpoint) = self.endpoint.upgrade() else { return false };
        let content_type = &*answer.content_type;
        let mut declared = answer.headers.iter().filter(|(header, _)| endpoint.has_header(*header));
        let is_wanted = |one: &&Representation| match &self.accept {
            Some(accept) => one.media_type() == accept,
            None => **one == Representation::Json,
        };
        let wanted = endpoint.produces.iter().find(is_wanted);
        let is_represented = |wanted| endpoint.is_represented(wanted, content_type);
        (answer.body.is_empty() || wanted.is_some_and(is_represented))
            && HeaderValue::from_str(content_type).is_ok()
            && declared.all(|(header, value)| header.check(value).is_ok())
    }

    /// Returns the size of the key in bytes.
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.payload.len() + text(&self.principal) + text(&self.accept)
    }
}

impl PartialEq for AnswerKey {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.endpoint, &other.endpoint)
            && self.queue == other.queue
            && self.payload == other.payload
            && self.principal == other.principal
            && self.accept == other.accept
    }
}

impl Eq for AnswerKey {}

impl Hash for AnswerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Weak::as_ptr(&self.endpoint).hash(state);
        self.queue.hash(state);
        self.payload.hash(state);
        self.principal.hash(state);
        self.accept.hash(state);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalogue::load::fixture::catalogue;
    use crate::catalogue::{Execution, ResponseHeader};
    use crate::outcome::Outcome;

    /// Returns two endpoints: one whose answers depend on the caller, and one whose answers do not.
    pub(in super::super) fn endpoints() -> [Arc<Endpoint>; 2] {
        let catalogue = catalogue(
            r#""own": {"route":"GET /own", KEYS, "cache": {"coalesce": true}},
               "shared": {"route":"GET /shared", KEYS, "cache": {"coalesce": true, "shared": true}}"#,
        );
        ["own", "shared"].map(|id| {
            let mut endpoints = catalogue.endpoints().iter();
            Arc::clone(endpoints.find(|endpoint| endpoint.id.as_str() == id).unwrap())
        })
    }

    pub(in super::super) fn key(
        endpoint: &Arc<Endpoint>,
        payload: &'static str,
        principal: Option<&str>,
        accept: Option<&str>,
    ) -> AnswerKey {
        let request = Request {
            endpoint: endpoint.id.clone(),
            request_id: "r".into(),
            attempt: 1,
            timeout: Duration::ZERO,
            execution: Execution::AtLeastOnce,
            dry_run: false,
            waiting: 0,
            window: 0,
            accept: accept.map(ToOwned::to_owned),
            principal: principal.map(ToOwned::to_owned),
            idempotency_key: None,
            traceparent: None,
            tracestate: None,
            payload: payload.into(),
        };
        AnswerKey::new((endpoint, 0), &request)
    }

    #[test]
    fn an_answer_that_cannot_be_sent_is_not_valid() {
        let catalogue = catalogue(
            r#""csv": {"route":"GET /csv", KEYS, "produces": ["application/json", "text/csv"],
                 "headers": {"Location": "location"}, "cache": {"ttl": "5s"}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let answer = |content_type: &'static str, headers| Final {
            headers,
            ..Final::whole(200, content_type, "x".into(), Outcome::Ok)
        };
        let location = |value: &str| vec![(ResponseHeader::Location, value.to_owned())];
        let (json, csv) = ("application/json", "text/csv; header=present");
        for (accept, answer, expected) in [
            (None, answer(json, Vec::new()), true),
            (None, answer(csv, Vec::new()), false),
            (Some("text/csv"), answer(csv, Vec::new()), true),
            (Some("text/csv"), answer(json, Vec::new()), false),
            (None, answer(json, location("/a")), true),
            (None, answer(json, location("a b")), false),
            (None, answer(json, vec![(ResponseHeader::ETag, "undeclared".to_owned())]), true),
        ] {
            assert_eq!(key(endpoint, "{}", None, accept).is_valid_answer(&answer), expected);
        }
    }

    #[test]
    fn a_key_contains_everything_on_which_an_answer_depends() {
        let [own, shared] = endpoints();
        let first = key(&own, "{}", Some("ann"), None);
        assert!(first == key(&own, "{}", Some("ann"), None));
        for other in [
            key(&own, "{\"a\":1}", Some("ann"), None),
            key(&own, "{}", Some("bob"), None),
            key(&own, "{}", None, None),
            key(&own, "{}", Some("ann"), Some("text/csv")),
            key(&endpoints()[0], "{}", Some("ann"), None),
            key(&shared, "{}", Some("ann"), None),
            AnswerKey { queue: 1, ..first.clone() },
        ] {
            assert!(first != other, "{other:?}");
        }
        let first = key(&shared, "{}", Some("ann"), None);
        assert!(first == key(&shared, "{}", Some("bob"), None));
        assert!(first == key(&shared, "{}", None, None));
    }
}
