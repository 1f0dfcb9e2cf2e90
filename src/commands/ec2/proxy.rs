//! The proxy for requests to AWS services, configured by environment variables.

use std::ffi::OsString;

use http::Uri;

/// The variables that name the proxy. The first one that is set and not empty is used.
const PROXY_VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// The variables that list the hosts to which requests are sent without the proxy.
const DIRECT_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxy configured in the environment.
#[derive(Clone, Debug)]
pub(super) struct ProxySettings {
    /// The variable from which the proxy was read.
    pub(super) variable: &'static str,
    /// The scheme, host and port of the proxy, without credentials.
    pub(super) address: String,
    pub(super) proxy: reqwest::Proxy,
}

impl ProxySettings {
    /// Reads the settings from environment variables. Returns `None` if they configure no proxy.
    ///
    /// # Errors
    /// Returns a message if the URL of the proxy is invalid. The message does not include the URL, which may contain a
    /// password.
    pub(super) fn read(environment: &[(OsString, OsString)]) -> Result<Option<Self>, String> {
        let Some((variable, value)) = first(environment, PROXY_VARIABLES)? else { return Ok(None) };
        let invalid = || {
            format!(
                "{variable} is not the URL of a proxy: expected http://HOST:PORT, https://HOST:PORT or HOST:PORT, with \
                 USER:PASSWORD@ before the host if needed"
            )
        };
        let url = if value.contains("://") { value } else { format!("http://{value}") };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let host = uri.host().filter(|host| !host.is_empty());
        let (Some(scheme), Some(host)) = (scheme, host) else { return Err(invalid()) };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(invalid());
        }
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        let address = format!("{scheme}://{host}{port}");
        let direct = first(environment, DIRECT_VARIABLES)?.map(|(_, hosts)| hosts);
        // reqwest applies `*` to host names, but not to IP addresses.
        if direct.as_deref().is_some_and(|hosts| hosts.split(',').any(|host| host.trim() == "*")) {
            return Ok(None);
        }
        let direct = direct.and_then(|hosts| reqwest::NoProxy::from_string(&hosts));
        let proxy = reqwest::Proxy::https(&url).map_err(|_| invalid())?.no_proxy(direct);
        Ok(Some(Self { variable, address, proxy }))
    }
}

/// Returns the first variable that is set and not empty, and its value.
fn first(
    environment: &[(OsString, OsString)],
    variables: [&'static str; 2],
) -> Result<Option<(&'static str, String)>, String> {
    for variable in variables {
        let value = environment.iter().find(|(name, _)| name == variable);
        let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) else { continue };
        let value = value.to_str().ok_or_else(|| format!("{variable} must be UTF-8"))?;
        return Ok(Some((variable, value.trim().to_owned())));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<ProxySettings>, String> {
        let variables: Vec<(OsString, OsString)> =
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        ProxySettings::read(&variables)
    }

    #[test]
    fn the_proxy_is_read_from_either_spelling() {
        for (variables, expected) in [
            (&[("HTTPS_PROXY", "http://proxy:3128")][..], "http://proxy:3128"),
            (&[("https_proxy", "proxy:3128")], "http://proxy:3128"),
            (&[("HTTPS_PROXY", ""), ("https_proxy", "https://[::1]:3129/")], "https://[::1]:3129"),
            (&[("HTTPS_PROXY", "proxy")], "http://proxy"),
            (&[("HTTPS_PROXY", "http://user:secret@10.0.0.1:80")], "http://10.0.0.1:80"),
            (&[("HTTPS_PROXY", "a:1"), ("https_proxy", "b:2")], "http://a:1"),
        ] {
            let settings = read(variables).expect("valid settings").expect("a proxy");
            assert_eq!(settings.address, expected, "{variables:?}");
        }
        for variables in [
            &[][..],
            &[("HTTPS_PROXY", "")],
            &[("HTTP_PROXY", "http://proxy:3128")],
            &[("HTTPS_PROXY", "http://proxy"), ("no_proxy", "a, *")],
        ] {
            assert!(read(variables).expect("valid settings").is_none(), "{variables:?}");
        }
    }

    #[test]
    fn a_malformed_value_is_an_error_that_does_not_show_it() {
        for value in [
            "http://user:secret@",
            "socks5://user:secret@proxy:1080",
            "http://user:secret@proxy:99999",
            "http://user:secret@proxy:port",
            "http://user:secret@proxy/path",
            "http://user:secret@proxy?query",
            "://secret",
            "user secret",
        ] {
            let failure = read(&[("https_proxy", value)]).expect_err(value);
            assert!(failure.starts_with("https_proxy is not the URL of a proxy"), "{failure}");
            assert!(!failure.contains("secret"), "{failure}");
        }
    }
}
