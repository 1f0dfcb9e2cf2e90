//! `[messaging]`: the connection to NATS.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::limits;
use super::settings::SettingsTable;
use super::tls::ClientTlsConfig;
use crate::cli::Role;
use crate::file_version::FileVersion;
use crate::message::Subject;

/// The settings of the connection between gateways and workers.
#[derive(Clone, Debug)]
pub struct MessagingConfig {
    /// The prefix of all subjects. The default is `fjord`.
    pub prefix: Subject,
    /// Whether this process answers NATS service API requests (`$SRV`).
    pub service_api: bool,
    /// The transport that carries the messages.
    pub transport: TransportConfig,
}

/// The supported transports.
#[derive(Clone, Debug)]
pub enum TransportConfig {
    /// NATS.
    Nats(NatsConfig),
}

/// The settings of the connection to NATS: `[messaging.nats]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// The servers in the cluster, each as `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// Whether servers announced by the cluster are also used.
    pub discover: bool,
    /// TLS settings. `None` is possible only with `insecure_plain_text = true`.
    pub tls: Option<ClientTlsConfig>,
    /// Whether TLS precedes the server's first line (`handshake_first` on the server).
    pub tls_first: bool,
    /// The monitoring endpoints of the servers for `fjord status`, each as `http://host:port`.
    pub monitoring: Vec<String>,
    /// The credentials of a user of the system account, for the queries of `fjord status`.
    pub system: Option<NatsCredentials>,
    /// The credentials of this process.
    pub credentials: NatsCredentials,
    /// The prefix of reply inbox subjects. The default is `_INBOX`.
    pub inbox_prefix: Subject,
    /// The maximum time to establish a connection.
    pub connect_timeout: Duration,
    /// The interval between pings. A connection without an answer for two intervals is replaced.
    pub ping_interval: Duration,
    /// The maximum delay between attempts to reconnect, including jitter.
    pub reconnect_delay_max: Duration,
    /// The maximum number of messages that a subscription queues. The client library drops further messages.
    pub subscription_messages_max: usize,
    /// The maximum number of commands that are waiting to be written to the connection.
    pub commands_max: usize,
    /// The maximum time for the client library to accept a publish or subscribe command.
    pub operation_timeout: Duration,
}

/// The credentials of a NATS client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsCredentials {
    /// No credentials except a client certificate, if there is one.
    None,
    /// A user name and a password.
    User {
        /// The user name.
        user: String,
        /// The user's password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// An nkey seed.
    Nkey(Secret),
    /// A `.creds` file. It is read again for every connection.
    CredentialsFile(PathBuf),
}

impl MessagingConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Option<Self> {
        let prefix = read_subject(table, "prefix", "fjord");
        let service_api = table.get_or("service_api", true);
        table.get_choice("transport", &[("nats", ())], "nats");
        let nats = table.table("nats", |nats| NatsConfig::read(nats, role));
        Some(Self { prefix: prefix?, service_api, transport: TransportConfig::Nats(nats?) })
    }
}

/// Reads a subject. If it is invalid, uses the default so that the other keys are still read.
fn read_subject(table: &mut SettingsTable<'_>, name: &str, default: &str) -> Option<Subject> {
    let subject = Subject::new(&table.get_or(name, default.to_owned()));
    if subject.is_err() {
        let expected = "expected NATS subject tokens joined by dots, without wildcards";
        table.error(name, expected.to_owned());
    }
    subject.or_else(|_| Subject::new(default)).ok()
}

impl TransportConfig {
    /// Returns the maximum time from the loss of a connection to the next connection, assuming that a server can be
    /// reached. Messages sent before the loss is detected may be lost.
    #[must_use]
    pub fn reconnect_time_max(&self) -> Duration {
        let Self::Nats(nats) = self;
        nats.ping_interval * limits::NATS_SILENT_PINGS
            + nats.reconnect_delay_max
            + nats.connect_timeout
    }
}

impl NatsConfig {
    /// Returns the versions of the files that are read for each connection. Files from which other secrets were read
    /// are not included, because those secrets are part of the configuration.
    #[must_use]
    pub fn file_versions(&self) -> Vec<Option<FileVersion>> {
        let credentials = match &self.credentials {
            NatsCredentials::CredentialsFile(path) => Some(path.as_path()),
            _ => None,
        };
        let tls = self.tls.iter().flat_map(ClientTlsConfig::files);
        tls.chain(credentials).map(FileVersion::read).collect()
    }

    fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Option<Self> {
        let servers = read_servers(table, role);
        let inbox_prefix = read_subject(table, "inbox_prefix", "_INBOX");
        Some(Self {
            tls: read_tls(table, &servers),
            servers,
            discover: table.get_or("discover", false),
            tls_first: table.get_or("tls_first", false),
            monitoring: read_monitoring(table),
            system: table.optional_table("system", NatsCredentials::read),
            credentials: NatsCredentials::read(table),
            connect_timeout: table.get_limited("connect_timeout", limits::NATS_CONNECT_TIMEOUT),
            ping_interval: table.get_limited("ping_interval", limits::NATS_PING_INTERVAL),
            reconnect_delay_max: table
                .get_limited("reconnect_delay_max", limits::NATS_RECONNECT_DELAY_MAX),
            subscription_messages_max: table
                .get_limited("subscription_messages_max", limits::NATS_SUBSCRIPTION_MESSAGES_MAX),
            commands_max: table.get_limited("commands_max", limits::NATS_COMMANDS_MAX),
            operation_timeout: table
                .get_limited("operation_timeout", limits::NATS_OPERATION_TIMEOUT),
            inbox_prefix: inbox_prefix?,
        })
    }
}

fn read_servers(table: &mut SettingsTable<'_>, role: Option<Role>) -> Vec<String> {
    if role.is_some() {
        table.require("servers", "every NATS server, e.g. [\"tls://nats-1.example:4222\"]");
    }
    // A URL that contains '@' is not shown because it may contain a password.
    let servers = table.get_list_without("servers", '@').unwrap_or_default();
    let good = |server: &String| {
        let rest = server.strip_prefix("tls://").or_else(|| server.strip_prefix("nats://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', ' ']))
    };
    if !servers.iter().all(good) || (servers.is_empty() && table.has("servers")) {
        let expected = "expected tls://host:port or nats://host:port for at least one server, without user or \
                        password, which are keys of their own";
        table.error("servers", expected.to_owned());
    }
    servers
}

fn read_monitoring(table: &mut SettingsTable<'_>) -> Vec<String> {
    let urls: Vec<String> = table.get_or("monitoring", Vec::new());
    let good = |url: &String| {
        let rest = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
        rest.is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()
        })
    };
    if !urls.iter().all(good) {
        let expected = "expected the monitoring endpoint of each server as http://host:port";
        table.error("monitoring", expected.to_owned());
    }
    urls
}

/// Reads the TLS settings. By default, the system's certificate authorities are trusted.
fn read_tls(table: &mut SettingsTable<'_>, servers: &[String]) -> Option<ClientTlsConfig> {
    let plain = table.get_or("insecure_plain_text", false);
    let tls_server = servers.iter().any(|server| server.starts_with("tls://"));
    if plain && (table.has("tls") || tls_server) {
        let expected = "conflicts with [messaging.nats.tls] or a tls:// server: remove one of them";
        table.error("insecure_plain_text", expected.to_owned());
    } else if plain {
        table.warn("insecure_plain_text", "the connection to NATS has no TLS");
    }
    let tls = table.table("tls", ClientTlsConfig::read);
    (!plain).then_some(tls)
}

impl NatsCredentials {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let user: Option<String> = table.get("user");
        let (password, token) = (table.get_secret("password"), table.get_secret("token"));
        let (nkey, file) = (table.get_secret("nkey"), table.get_secret_file("credentials_file"));
        let kinds = [user.is_some(), token.is_some(), nkey.is_some(), file.is_some()];
        if kinds.iter().filter(|given| **given).count() > 1 {
            let expected = "more than one kind of credentials: expected user and password, \
                            or token, or nkey, or credentials_file";
            table.error("", expected.to_owned());
        }
        if user.is_some() != password.is_some() {
            let missing = if user.is_some() { "password" } else { "user" };
            table.error(missing, "expected both user and password".to_owned());
        }
        match (user, password, token, nkey, file) {
            (Some(user), Some(password), ..) => Self::User { user, password },
            (_, _, Some(token), ..) => Self::Token(token),
            (_, _, _, Some(seed), _) => Self::Nkey(seed),
            (.., Some(path)) => Self::CredentialsFile(path),
            _ => Self::None,
        }
    }
}
