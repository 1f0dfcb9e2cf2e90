//! Why a response is the last one of its connection.

use super::Response;

/// Why no more requests are taken on the connection of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Too many requests of its client were refused.
    AuthFailures,
    /// The client's certificate is not believed any more.
    ClientCertificate,
}

impl ConnectionEnd {
    /// The label of the metric.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::AuthFailures => "auth_failures",
            Self::ClientCertificate => "client_certificate",
        }
    }

    /// Marks a response.
    pub fn mark(self, response: &mut Response) {
        response.extensions_mut().insert(self);
    }

    /// Takes the mark of a response.
    pub fn take(response: &mut Response) -> Option<Self> {
        response.extensions_mut().remove()
    }
}
