//! Host names in the form in which clients send them in `Host`.

use std::net::{IpAddr, Ipv6Addr};

use super::settings::SettingsTable;

/// Reads the list `hosts`. Each name is returned in the form used for comparison: in lower case, without a trailing
/// dot, and with an IPv6 address in brackets. An entry that cannot equal any `Host` value is an error. Entries for
/// which `is_exempt` returns true are returned unchanged.
pub(super) fn read(table: &mut SettingsTable<'_>, is_exempt: impl Fn(&str) -> bool) -> Vec<String> {
    let hosts: Vec<String> = table.get_or("hosts", Vec::new());
    let read = hosts.into_iter().filter_map(|host| {
        if is_exempt(&host) {
            return Some(host);
        }
        canonical(&host)
            .map_err(|expected| table.error("hosts", format!("{host:?}: {expected}")))
            .ok()
    });
    read.collect()
}

fn canonical(host: &str) -> Result<String, &'static str> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if host.contains("://") {
        Err("expected a host name without a scheme, e.g. \"api.example\"")
    } else if host.contains('*') {
        Err("expected a complete host name: wildcards are not supported")
    } else if host.contains(['/', '?', '#', '@']) {
        Err("expected a host name alone, without a path or a user")
    } else if host.contains(':') {
        Err("expected a host name without a port: every port matches")
    } else if !host.is_ascii() {
        Err("expected a host name in ASCII (xn--…), as clients send it")
    } else if name.is_empty() || name.split('.').any(str::is_empty) || !name.bytes().all(is_plain) {
        Err("expected a host name, e.g. \"api.example\", or an IP address")
    } else {
        Ok(name.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_that_a_client_can_send_are_accepted() {
        for (host, expected) in [
            ("api.example", "api.example"),
            ("API.Example.", "api.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("my_host-1", "my_host-1"),
        ] {
            assert_eq!(canonical(host).as_deref(), Ok(expected), "{host}");
        }
        for (host, word) in [
            ("https://api.example", "scheme"),
            ("*.example", "wildcards"),
            ("*", "wildcards"),
            ("api.example/v1", "path"),
            ("user@api.example", "user"),
            ("api.example:8443", "port"),
            ("[2001:db8::1]:8443", "port"),
            ("žluť.example", "xn--"),
            ("api..example", "e.g."),
            ("a b", "e.g."),
            (".", "e.g."),
            ("", "e.g."),
        ] {
            assert!(canonical(host).unwrap_err().contains(word), "{host}");
        }
    }
}
