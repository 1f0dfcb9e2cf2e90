//! The address in a reply subject: the attempt that the subject belongs to, and the token that
//! proves that this process created the subject.

use rand::RngExt;
use siphasher::sip::SipHasher24;

/// The attempt that a reply subject belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyAddress {
    pub(super) queue: u32,
    pub(super) request: u64,
    pub(super) attempt: u32,
}

/// Computes the token of an address: SipHash-2-4 (64 bits) with a random key of 128 bits.
pub(super) struct AddressTokens(SipHasher24);

impl AddressTokens {
    pub(super) fn new() -> Self {
        let mut random = rand::rng();
        Self(SipHasher24::new_with_keys(random.random(), random.random()))
    }

    pub(super) fn token(&self, address: ReplyAddress) -> u64 {
        let ReplyAddress { queue, request, attempt } = address;
        let numbers = u128::from(request) << 64 | u128::from(queue) << 32 | u128::from(attempt);
        self.0.hash(&numbers.to_le_bytes())
    }

    /// Parses `<queue>.<request>.<attempt>.<token>`. Returns `None` if the token is wrong.
    pub(super) fn parse(&self, tail: &str) -> Option<ReplyAddress> {
        let mut numbers = tail.split('.');
        let address = ReplyAddress {
            queue: numbers.next()?.parse().ok()?,
            request: numbers.next()?.parse().ok()?,
            attempt: numbers.next()?.parse().ok()?,
        };
        let token: u64 = numbers.next()?.parse().ok()?;
        (numbers.next().is_none() && self.token(address) == token).then_some(address)
    }
}

impl std::fmt::Debug for AddressTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressTokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Subject;

    const ADDRESS: ReplyAddress = ReplyAddress { queue: 3, request: 17, attempt: 2 };

    #[test]
    fn numbered_subjects_equal_joined_ones() {
        let base = Subject::new("inbox.r").unwrap();
        let joined = base.join(format!("0.{}.2", u64::MAX)).unwrap();
        assert_eq!(base.join_numbers([0, u64::MAX, 2]), joined);
    }

    #[test]
    fn an_address_is_three_numbers_and_their_token() {
        let tokens = AddressTokens::new();
        let token = tokens.token(ADDRESS);
        assert_eq!(tokens.parse(&format!("3.17.2.{token}")), Some(ADDRESS));
        let extra = format!("3.17.2.{token}.1");
        let other = format!("3.17.2.{}", token.wrapping_add(1));
        for bad in ["", "3", "3.17.2", &extra, &other, "3.17.x.99", "-1.2.3.99", "3..2.99"] {
            assert_eq!(tokens.parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_is_valid_for_one_queue_request_attempt_and_process() {
        let (tokens, others) = (AddressTokens::new(), AddressTokens::new());
        let token = tokens.token(ADDRESS);
        assert_eq!(token, tokens.token(ADDRESS));
        assert_ne!(token, others.token(ADDRESS), "each process has its own key");
        for other in [
            ReplyAddress { queue: 4, ..ADDRESS },
            ReplyAddress { request: 18, ..ADDRESS },
            ReplyAddress { attempt: 1, ..ADDRESS },
        ] {
            assert_ne!(token, tokens.token(other), "{other:?}");
        }
    }
}
