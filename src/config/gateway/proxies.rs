//! The load balancers and proxies that are trusted to report their clients' addresses.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::settings::SettingsTable;

const KEY: &str = "trusted_proxies";

/// The proxies that are trusted to report their clients' addresses.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// The addresses of the trusted proxies.
    pub trusted: TrustedProxies,
    /// Whether connections from these addresses begin with a PROXY protocol version 2 header.
    pub proxy_protocol: bool,
}

/// The address ranges of trusted proxies. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Creates a set of address ranges.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Returns whether no proxy is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an address belongs to a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

impl ProxyConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let texts: Vec<String> = table.get_or(KEY, Vec::new());
        let mut ranges = Vec::with_capacity(texts.len());
        for text in &texts {
            match range(text) {
                Ok(range) => ranges.push(range),
                Err(expected) => table.error(KEY, format!("{text:?}: {expected}")),
            }
        }
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            table.warn(KEY, "every client is trusted as a proxy and can claim any address");
        }
        let proxy_protocol = table.get_or("proxy_protocol", false);
        if proxy_protocol && texts.is_empty() {
            let expected = "requires gateway.trusted_proxies: the addresses of the proxies that send the PROXY \
                            protocol header";
            table.error("proxy_protocol", expected.to_owned());
        }
        Self { trusted: TrustedProxies::new(ranges), proxy_protocol }
    }
}

/// Parses an address range or a single address. Bits set beyond the prefix are an error, because
/// either the address or the prefix length must be wrong.
fn range(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    // `IpNet`'s own parser is not used, because it reads 010 as ten. Other programs read 010 as
    // eight.
    let read = text
        .split_once('/')
        .and_then(|(address, prefix)| IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok());
    let range = read.ok_or_else(|| {
        "expected an address range, e.g. \"10.0.0.0/8\" or \"fd00::/8\", or an address".to_owned()
    })?;
    if range.trunc() != range {
        let meant = range.trunc();
        return Err(format!(
            "has bits set beyond its prefix: expected {meant}, or a longer prefix"
        ));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unambiguous_ranges_are_accepted() {
        for (text, is_good) in [
            ("10.0.0.0/8", true),
            ("0.0.0.0/0", true),
            ("192.0.2.7", true),
            ("192.0.2.7/32", true),
            ("fd00::/8", true),
            ("2001:db8::1", true),
            ("10.0.0.1/8", false),
            ("10.0.0.0/33", false),
            ("10.0.0/8", false),
            ("fd00::/129", false),
            ("010.0.0.0/8", false),
            ("10.0.0.0/ 8", false),
            ("10.0.0.0/8 ", false),
            ("balancer.example", false),
            ("", false),
        ] {
            assert_eq!(range(text).is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn an_ipv4_address_mapped_to_ipv6_is_the_same_address() {
        let trusted = TrustedProxies::new([range("10.0.0.0/8").unwrap()]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("::a01:203", false),
        ] {
            assert_eq!(trusted.contains(address.parse().unwrap()), expected, "{address}");
        }
    }
}
