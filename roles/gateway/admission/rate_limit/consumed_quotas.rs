//! The consumption of callers at one gateway, in the form in which it is reported to the other gateways.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::catalogue::endpoint::RateLimit;
use crate::roles::gateway::client::network::ClientNetwork;

/// The maximum number of quotas, for each kind of caller, whose consumption a gateway collects between two messages.
/// Each gateway enforces any further quotas separately.
const CALLERS_MAX: usize = 8_192;
/// The maximum consumption in one entry, expressed as a time. It is longer than the sum of the longest window (24 h)
/// and the longest interval.
const CONSUMED_MAX: Duration = Duration::from_hours(48);

/// Identifies a caller's quota at an endpoint across all gateways: the first 16 bytes of a SHA-256 hash.
///
/// A changed limit creates a new quota. Consumption of the previous quota does not count towards the new one, even if
/// the gateways reload at different times.
///
/// The hash keeps principals and addresses out of messages and of the logs of NATS servers. The gateways need no shared
/// secret for it, because only gateways may receive the messages. The keys are only pseudonyms: anybody who can receive
/// the messages can check a guess. With 16 bytes, it is infeasible to find a principal whose key equals that of another
/// caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct QuotaKey([u8; QuotaKey::BYTES]);

/// The kind of caller that a quota belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallerKind {
    /// A caller with a principal.
    Principal,
    /// A caller without a principal, identified by its network.
    Address,
}

/// Each caller's consumption of its quota, expressed as the time in nanoseconds that the quota needs to refill by the
/// consumed amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConsumedQuotas {
    #[serde(default)]
    principals: HashMap<QuotaKey, u64>,
    #[serde(default)]
    addresses: HashMap<QuotaKey, u64>,
}

impl QuotaKey {
    const BYTES: usize = 16;

    /// Returns the key for an endpoint, its limit, and the caller: the principal or, if there is none, the network.
    pub(super) fn new(
        (endpoint, limit): (&str, RateLimit),
        principal: Option<&str>,
        network: ClientNetwork,
    ) -> (Self, CallerKind) {
        let mut digest = Context::new(&SHA256);
        digest.update(endpoint.as_bytes());
        // Neither an id nor a principal contains a control character.
        digest.update(b"\0");
        digest.update(&limit.requests.to_be_bytes());
        digest.update(&nanoseconds(limit.window).to_be_bytes());
        let kind = CallerKind::new(principal);
        if let Some(principal) = principal {
            digest.update(b"principal\0");
            digest.update(principal.as_bytes());
        } else {
            digest.update(b"address\0");
            match network.first_address() {
                IpAddr::V4(address) => digest.update(&address.octets()),
                IpAddr::V6(address) => digest.update(&address.octets()),
            }
        }
        let digest = digest.finish();
        let mut key = [0; Self::BYTES];
        for (to, from) in key.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        (Self(key), kind)
    }
}

impl CallerKind {
    /// Returns the kind of a caller with this principal, or without a principal.
    pub(super) fn new(principal: Option<&str>) -> Self {
        if principal.is_some() { Self::Principal } else { Self::Address }
    }
}

impl ConsumedQuotas {
    /// Adds consumption. Returns `false` if it is not added, because there are too many callers of this kind.
    pub(super) fn add(&mut self, (key, kind): (QuotaKey, CallerKind), consumed: Duration) -> bool {
        let quotas = match kind {
            CallerKind::Principal => &mut self.principals,
            CallerKind::Address => &mut self.addresses,
        };
        let nanos = nanoseconds(consumed);
        let is_full = quotas.len() >= CALLERS_MAX;
        match quotas.get_mut(&key) {
            Some(sum) => *sum = sum.saturating_add(nanos),
            None if is_full => return false,
            None => drop(quotas.insert(key, nanos)),
        }
        true
    }

    /// Returns whether the quotas of either kind of caller use at least half of the capacity.
    pub(super) fn is_half_full(&self) -> bool {
        self.principals.len().max(self.addresses.len()) >= CALLERS_MAX / 2
    }

    /// Returns the number of callers.
    pub(super) fn len(&self) -> usize {
        self.principals.len() + self.addresses.len()
    }

    /// Returns whether nothing was consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (QuotaKey, CallerKind, Duration)> {
        let principals = self.principals.iter().map(|entry| (entry, CallerKind::Principal));
        let addresses = self.addresses.iter().map(|entry| (entry, CallerKind::Address));
        let entries = principals.chain(addresses);
        entries.map(|((key, nanos), kind)| (*key, kind, Duration::from_nanos(*nanos)))
    }

    /// Returns whether the number of callers and every entry are within the limits of a report.
    pub(super) fn is_plausible(&self) -> bool {
        self.principals.len().max(self.addresses.len()) <= CALLERS_MAX
            && self.iter().all(|(_, _, consumed)| consumed <= CONSUMED_MAX)
    }

    /// Splits into parts of at most `callers_max` callers.
    pub(super) fn split(self, callers_max: usize) -> Vec<Self> {
        if self.len() <= callers_max {
            return vec![self];
        }
        let mut parts = vec![Self::default()];
        for (key, kind, consumed) in self.iter() {
            if parts.last().is_none_or(|part| part.len() >= callers_max) {
                parts.push(Self::default());
            }
            if let Some(part) = parts.last_mut() {
                part.add((key, kind), consumed);
            }
        }
        parts
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Serialize for QuotaKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for QuotaKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(QuotaKeyVisitor)
    }
}

struct QuotaKeyVisitor;

impl Visitor<'_> for QuotaKeyVisitor {
    type Value = QuotaKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes as unpadded URL-safe base64", QuotaKey::BYTES)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<QuotaKey, E> {
        let mut key = [0; QuotaKey::BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut key) {
            Ok(QuotaKey::BYTES) => Ok(QuotaKey(key)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}
