//! The reason why a response is the last one on its connection.

use super::Response;

/// The reason why a connection is closed after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Too many requests of the client have failed authentication.
    AuthFailures,
    /// The client's certificate is missing or no longer trusted.
    ClientCertificate,
}

impl CloseReason {
    /// Returns the value of the metric label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthFailures => "auth_failures",
            Self::ClientCertificate => "client_certificate",
        }
    }

    /// Marks a response as the last one on its connection.
    pub fn mark(self, response: &mut Response) {
        response.extensions_mut().insert(self);
    }

    /// Removes and returns the mark of a response.
    pub fn take(response: &mut Response) -> Option<Self> {
        response.extensions_mut().remove()
    }
}
