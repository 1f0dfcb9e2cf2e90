//! `[messaging]`: the message bus.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::tls::ClientTlsConfig;
use crate::messaging::Subject;

/// The message bus.
#[derive(Clone, Debug)]
pub struct MessagingConfig {
    /// The first tokens of every subject of ours; `fjord`.
    pub prefix: Subject,
    /// Which transport carries the messages.
    pub transport: TransportConfig,
}

/// The transports there are.
#[derive(Clone, Debug)]
pub enum TransportConfig {
    /// NATS.
    Nats(NatsConfig),
}

/// `[messaging.nats]`.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// `nats://host:port` or `tls://host:port`, every server of the cluster.
    pub servers: Vec<String>,
    /// Whether servers that the cluster announces are used too.
    pub discover: bool,
    /// TLS towards the servers; `None` only with `insecure_plain_text = true`.
    pub tls: Option<ClientTlsConfig>,
    /// Whether TLS comes before the server's first line (`handshake_first` on the server).
    pub tls_first: bool,
    /// How we prove who we are.
    pub credentials: NatsCredentials,
    /// The first tokens of reply inboxes; `_INBOX`.
    pub inbox_prefix: Subject,
    /// Longest wait for one connection to be made.
    pub connect_timeout: Duration,
    /// Interval of pings; two unanswered ones end the connection.
    pub ping_interval: Duration,
    /// Longest pause between attempts to reconnect; jittered.
    pub reconnect_delay_max: Duration,
    /// Messages that a subscription holds before the client library drops them.
    pub subscription_messages_max: usize,
    /// Commands that wait for the connection.
    pub commands_max: usize,
    /// Longest wait for a publish or subscribe to be taken.
    pub operation_timeout: Duration,
}

/// How a NATS client proves who it is.
#[derive(Clone, Debug)]
pub enum NatsCredentials {
    /// Not at all, or by the client certificate alone.
    None,
    /// User and password.
    User {
        /// The user.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// An nkey seed.
    Nkey(Secret),
    /// A `.creds` file: re-read at every reconnect.
    CredentialsFile(PathBuf),
}
