//! The callers that an endpoint accepts: the endpoint's `auth` key, and `catalogue.auth_default` in the configuration.

use schemars::JsonSchema;

use super::names::is_token;

/// The callers that an endpoint accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Every caller, without credentials.
    Public,
    /// Callers that authenticate with one of the methods and have all of the scopes.
    Required {
        /// The accepted methods.
        methods: Vec<AuthMethod>,
        /// The scopes, all of which a caller must have.
        scopes: Vec<String>,
        /// The accepted token issuers, by their names in the configuration. If empty, every issuer is accepted.
        issuers: Vec<String>,
    },
}

/// An authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Method")]
pub enum AuthMethod {
    /// A JWT as a bearer token.
    Jwt,
    /// An API key.
    ApiKey,
    /// A TLS client certificate.
    #[serde(rename = "certificate")]
    ClientCertificate,
}

impl AuthMethod {
    /// All methods. An endpoint that lists no methods accepts all of them.
    pub const ALL: [Self; 3] = [Self::Jwt, Self::ApiKey, Self::ClientCertificate];

    /// Returns the name in the catalogue, in the configuration and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api-key",
            Self::ClientCertificate => "certificate",
        }
    }
}

/// Checks the issuers of an `auth` value, and that its methods include `jwt`.
///
/// # Errors
/// Returns a message that states what was expected.
pub(crate) fn check_issuers(
    issuers: &[String],
    methods: &[AuthMethod],
) -> Result<(), &'static str> {
    if issuers.is_empty() || !issuers.iter().all(|name| is_token(name)) {
        return Err("expected one or more names of issuers in the configuration (auth.jwt.NAME)");
    }
    if methods.contains(&AuthMethod::Jwt) {
        Ok(())
    } else {
        Err("expected only with the method jwt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_parsed_from_its_own_name() {
        for method in AuthMethod::ALL {
            let name = serde_json::Value::from(method.as_str());
            assert_eq!(serde_json::from_value::<AuthMethod>(name).unwrap(), method);
        }
    }
}
