//! The host names for which the admin listener accepts requests.
//!
//! With DNS rebinding, a web page can make its visitors' browsers send requests to any address,
//! including 127.0.0.1, using a name in the page's domain. The `Host` header of such a request
//! contains that name.

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// The permitted names. `localhost` and all IP addresses are also permitted.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// Creates the set from the configured names and this host's name, with and without its domain.
    pub(super) fn new(configured: &[String], host_name: &str) -> Self {
        let mut names = configured.to_vec();
        let short = host_name.split('.').next().unwrap_or_default();
        names.extend(
            [host_name, short].iter().filter(|name| !name.is_empty()).map(|&n| n.to_owned()),
        );
        Self(names)
    }

    /// Returns whether the `Host` header is permitted. Requests without the header are permitted,
    /// because all browsers send it.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(HOST).iter();
        let (first, second) = (values.next(), values.next());
        let Some(first) = first else { return true };
        let Ok(host) = Authority::try_from(first.as_bytes()) else { return false };
        second.is_none() && !host.as_str().contains('@') && self.allows_name(host.host())
    }

    fn allows_name(&self, name: &str) -> bool {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.strip_suffix('.').unwrap_or(name);
        bare.parse::<std::net::IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_permitted() {
        let hosts = AllowedHosts::new(&["metrics.internal".to_owned()], "gw-1.example.com");
        for (host, expected) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("10.0.0.7", true),
            ("localhost:9464", true),
            ("LOCALHOST.", true),
            ("metrics.internal:9464", true),
            ("gw-1:9464", true),
            ("gw-1.example.com", true),
            ("evil.example", false),
            ("gw-1.evil.example", false),
            ("localhost.evil.example:9464", false),
            ("127.0.0.1.evil.example", false),
            ("user@127.0.0.1", false),
            ("", false),
            ("a b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            assert_eq!(hosts.allows(&headers), expected, "{host:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HOST, "localhost".parse().unwrap());
        twice.append(HOST, "localhost".parse().unwrap());
        assert!(!hosts.allows(&twice), "two Host headers are ambiguous");
        assert!(hosts.allows(&HeaderMap::new()), "health checks over HTTP/1.0 send none");
        let any = AllowedHosts::new(&["*".to_owned()], "");
        let mut other = HeaderMap::new();
        other.insert(HOST, "evil.example".parse().unwrap());
        assert!(any.allows(&other));
    }
}
