//! `[messaging]`: the message bus.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::limits;
use super::settings::Table;
use super::tls::ClientTlsConfig;
use crate::cli::Role;
use crate::message::Subject;

/// The message bus.
#[derive(Clone, Debug)]
pub struct MessagingConfig {
    /// The first tokens of every subject of ours; `fjord`.
    pub prefix: Subject,
    /// Whether this process answers the NATS service API (`$SRV`).
    pub service_api: bool,
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
    /// Where the servers tell about themselves, `http://host:port`; for `fjord status`.
    pub monitoring: Vec<String>,
    /// Who asks the servers about themselves, in their system account; for `fjord status`.
    pub system: Option<NatsCredentials>,
    /// How we prove who we are.
    pub credentials: NatsCredentials,
    /// The first tokens of reply inboxes; `_INBOX`.
    pub inbox_prefix: Subject,
    /// Longest wait for one connection to be made.
    pub connect_timeout: Duration,
    /// Interval of pings; a link over which nothing comes back for two of them is made anew.
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
    /// A `.creds` file: read at every connection.
    CredentialsFile(PathBuf),
}

impl MessagingConfig {
    pub(super) fn read(table: &mut Table<'_>, role: Option<Role>) -> Option<Self> {
        let prefix = read_subject(table, "prefix", "fjord");
        let service_api = table.get_or("service_api", true);
        table.choice("transport", &[("nats", ())], "nats");
        let nats = table.table("nats", |nats| NatsConfig::read(nats, role));
        Some(Self { prefix: prefix?, service_api, transport: TransportConfig::Nats(nats?) })
    }
}

/// A subject. After an error the rest is read on with the default, which is a good one.
fn read_subject(table: &mut Table<'_>, name: &str, default: &str) -> Option<Subject> {
    let subject = Subject::new(&table.get_or(name, default.to_owned()));
    if subject.is_err() {
        let expected = "expected NATS subject tokens joined by dots, without wildcards";
        table.error(name, expected.to_owned());
    }
    subject.or_else(|_| Subject::new(default)).ok()
}

impl NatsConfig {
    fn read(table: &mut Table<'_>, role: Option<Role>) -> Option<Self> {
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
            connect_timeout: table.limited("connect_timeout", limits::NATS_CONNECT_TIMEOUT),
            ping_interval: table.limited("ping_interval", limits::NATS_PING_INTERVAL),
            reconnect_delay_max: table
                .limited("reconnect_delay_max", limits::NATS_RECONNECT_DELAY_MAX),
            subscription_messages_max: table
                .limited("subscription_messages_max", limits::NATS_SUBSCRIPTION_MESSAGES_MAX),
            commands_max: table.limited("commands_max", limits::NATS_COMMANDS_MAX),
            operation_timeout: table.limited("operation_timeout", limits::NATS_OPERATION_TIMEOUT),
            inbox_prefix: inbox_prefix?,
        })
    }
}

fn read_servers(table: &mut Table<'_>, role: Option<Role>) -> Vec<String> {
    if role.is_some() {
        table.require("servers", "every NATS server, e.g. [\"tls://nats-1.example:4222\"]");
    }
    // Hidden while a user and a password may stand in it.
    let servers = table.list_without("servers", '@').unwrap_or_default();
    let good = |server: &String| {
        let rest = server.strip_prefix("tls://").or_else(|| server.strip_prefix("nats://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', ' ']))
    };
    if !servers.iter().all(good) || (servers.is_empty() && table.has("servers")) {
        let expected = "expected tls://host:port or nats://host:port of at least one server; \
                        user and password have keys of their own";
        table.error("servers", expected.to_owned());
    }
    servers
}

fn read_monitoring(table: &mut Table<'_>) -> Vec<String> {
    let urls: Vec<String> = table.get_or("monitoring", Vec::new());
    let good = |url: &String| {
        let rest = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
        rest.is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()
        })
    };
    if !urls.iter().all(good) {
        let expected = "expected http://host:port of each server's monitoring";
        table.error("monitoring", expected.to_owned());
    }
    urls
}

/// TLS with the system's authorities is what holds when nothing is said.
fn read_tls(table: &mut Table<'_>, servers: &[String]) -> Option<ClientTlsConfig> {
    let plain = table.get_or("insecure_plain_text", false);
    let tls_server = servers.iter().any(|server| server.starts_with("tls://"));
    if plain && (table.has("tls") || tls_server) {
        let expected =
            "is true beside [messaging.nats.tls] or a tls:// server: expected one of the two";
        table.error("insecure_plain_text", expected.to_owned());
    } else if plain {
        table.warn("insecure_plain_text", "NATS is spoken without TLS");
    }
    let tls = table.table("tls", ClientTlsConfig::read);
    (!plain).then_some(tls)
}

impl NatsCredentials {
    fn read(table: &mut Table<'_>) -> Self {
        let user: Option<String> = table.get("user");
        let (password, token) = (table.secret("password"), table.secret("token"));
        let (nkey, file) = (table.secret("nkey"), table.secret_file("credentials_file"));
        let ways = [user.is_some(), token.is_some(), nkey.is_some(), file.is_some()];
        if ways.iter().filter(|given| **given).count() > 1 {
            let expected = "more than one way to prove who we are: expected user and password, \
                            or token, or nkey, or credentials_file";
            table.error("", expected.to_owned());
        }
        if user.is_some() != password.is_some() {
            let missing = if user.is_some() { "password" } else { "user" };
            table.error(missing, "user and password go together: expected both".to_owned());
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
