//! Which load balancers and proxies are believed when they say who their client is.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::settings::Table;

/// The key of the ranges.
const KEY: &str = "trusted_proxies";

/// Who may say which client a connection or a request is from.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// Whose word counts.
    pub trusted: TrustedProxies,
    /// Whether their connections begin with PROXY protocol version 2.
    pub proxy_protocol: bool,
}

/// Address ranges of proxies that are believed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// These ranges.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Whether nobody is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is a proxy's that is believed.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

impl ProxyConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let texts: Vec<String> = table.get_or(KEY, Vec::new());
        let mut ranges = Vec::with_capacity(texts.len());
        for text in &texts {
            match range(text) {
                Ok(range) => ranges.push(range),
                Err(expected) => table.error(KEY, format!("{text:?}: {expected}")),
            }
        }
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            table.warn(KEY, "every client is believed when it says that it is another");
        }
        let proxy_protocol = table.get_or("proxy_protocol", false);
        if proxy_protocol && texts.is_empty() {
            let expected = "is true: expected gateway.trusted_proxies to say whose connections \
                            begin with it";
            table.error("proxy_protocol", expected.to_owned());
        }
        Self { trusted: TrustedProxies::new(ranges), proxy_protocol }
    }
}

/// A range, or a single address. Bits beyond the prefix are refused: they are a slip of the hand in one of the two.
fn range(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    // Not by `IpNet`'s own parser: that reads 010 as ten, where others read eight.
    let read = text
        .split_once('/')
        .and_then(|(address, prefix)| IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok());
    let range = read.ok_or_else(|| {
        "expected an address range, e.g. \"10.0.0.0/8\" or \"fd00::/8\", or an address".to_owned()
    })?;
    if range.trunc() != range {
        let meant = range.trunc();
        return Err(format!("has bits beyond its prefix: expected {meant}, or a longer prefix"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_written_without_doubt() {
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
    fn an_ipv4_address_is_the_same_inside_ipv6() {
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
