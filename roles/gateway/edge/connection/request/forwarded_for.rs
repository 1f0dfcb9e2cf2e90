//! Finds the client of a request that a trusted proxy forwarded, by reading `X-Forwarded-For` from its end.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::gateway::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the client's address: the last address in the list that does not belong to a trusted proxy.
///
/// Each proxy appends the address from which it received the request. Therefore, everything before an untrusted address
/// was written by the client at that address. The search stops at an entry that cannot be parsed, and the proxy that
/// wrote the entry is treated as the client.
pub(in super::super) fn client_address(
    connected: IpAddr,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut client = connected.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    let fields = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
    let mut entries =
        fields.into_iter().rev().flat_map(|field| field.as_bytes().rsplit(|b| *b == b','));
    while trusted.contains(client) {
        let Some(entry) = entries.next() else { break };
        let Some(address) = address(entry) else { break };
        client = address;
    }
    client
}

/// Parses an address in any form that proxies use: bare, in brackets, or with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        let ranges = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
        let trusted = TrustedProxies::new(ranges);
        let check = |connected: &str, fields: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(X_FORWARDED_FOR, field.parse().unwrap());
            }
            let found = client_address(connected.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{connected} {fields:?}");
        };
        check("10.0.0.1", &["192.0.2.1"], "192.0.2.1");
        check("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1");
        check("10.0.0.1", &["203.0.113.9, 192.0.2.1"], "192.0.2.1");
        check("10.0.0.1", &["192.0.2.1, 10.0.0.2,fd00::1"], "192.0.2.1");
        check("10.0.0.1", &["203.0.113.9", "192.0.2.1", "10.0.0.2"], "192.0.2.1");
        check("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1");
        check("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1");
        check("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1");
        check("10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[""], "10.0.0.1");
        check("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1");
        check("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["192.0.2.1,"], "10.0.0.1");
        check("198.51.100.1", &["192.0.2.1"], "198.51.100.1");
        check("198.51.100.1", &["192.0.2.1, 10.0.0.1"], "198.51.100.1");
    }
}
