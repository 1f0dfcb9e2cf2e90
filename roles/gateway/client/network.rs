//! The networks that per-client limits treat as one client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The unit to which per-client limits apply: an IPv4 address or an IPv6 prefix.
///
/// Limits on single IPv6 addresses would be useless: a client can use every address in its network,
/// usually 2^64 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// Returns the network of an address: an IPv6 prefix of `ipv6_prefix_bits`, capped at 128. An
    /// IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) counts as the IPv4 address.
    #[must_use]
    pub fn new(address: IpAddr, ipv6_prefix_bits: u32) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let host_bits = u128::BITS.saturating_sub(ipv6_prefix_bits);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or_default();
                Self(Ipv6Addr::from_bits(v6.to_bits() & mask).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

impl ClientNetwork {
    /// Returns the first address of the network.
    #[must_use]
    pub fn first_address(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for ClientNetwork {
    /// Writes the first address of the network.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_prefix_are_one_client() {
        for (one, other, bits, is_same) in [
            ("192.0.2.1", "192.0.2.1", 56, true),
            ("192.0.2.1", "192.0.2.2", 0, false),
            ("::ffff:192.0.2.1", "192.0.2.1", 56, true),
            ("2001:db8::1", "2001:db8:0:ff::2", 56, true),
            ("2001:db8::1", "2001:db8:0:100::1", 56, false),
            ("2001:db8::1", "2001:db8:0:1::1", 64, false),
            ("2001:db8::1", "2001:db8:0:ffff::1", 48, true),
            ("2001:db8::1", "2001:db8::2", 128, false),
            ("2001:db8::1", "2001:db8::2", 200, false),
            ("2001:db8::1", "fd00::1", 0, true),
        ] {
            let network = |text: &str| ClientNetwork::new(text.parse().unwrap(), bits);
            assert_eq!(network(one) == network(other), is_same, "{one} {other} /{bits}");
        }
    }
}
