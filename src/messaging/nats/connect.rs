//! How the connection is made, kept, and reported on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use rand::RngExt;
use tokio::sync::watch;

use crate::config::messaging::{NatsConfig, NatsCredentials};
use crate::messaging::{Link, LinkState, TransportError};
use crate::telemetry::conditions::{self, Condition};
use crate::telemetry::{counter, gauge, names};

/// The first pause before connecting again; it doubles up to the configured maximum.
const RECONNECT_DELAY_FIRST: Duration = Duration::from_millis(50);

/// Messages came faster than they were read.
const DROPPED: Condition = Condition::new("messages of NATS are dropped");
/// The server does not let us do something.
const REFUSED: Condition = Condition::new("NATS refuses");

/// A client that connects by itself, for as long as it takes.
pub(super) async fn client(
    config: &NatsConfig,
    name: &str,
    report: watch::Sender<Link>,
) -> Result<async_nats::Client, TransportError> {
    let refused = |e: Box<dyn std::error::Error + Send + Sync>| TransportError::Refused(e);
    let servers = config
        .servers
        .iter()
        .map(|server| server.parse::<async_nats::ServerAddr>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refused(e.into()))?;
    let options = options(config, name).await?.retry_on_initial_connect();
    let options = with_reports(options, report);
    options.connect(servers).await.map_err(|e| refused(e.into()))
}

/// How a connection is made and kept, whatever it is for.
pub(super) async fn options(
    config: &NatsConfig,
    name: &str,
) -> Result<ConnectOptions, TransportError> {
    let options = with_credentials(base(config, name), &config.credentials).await?;
    Ok(with_tls(options, config))
}

fn base(config: &NatsConfig, name: &str) -> ConnectOptions {
    let delay_max = config.reconnect_delay_max;
    let options = ConnectOptions::new()
        .name(name)
        .max_reconnects(None)
        .connection_timeout(config.connect_timeout)
        .ping_interval(config.ping_interval)
        .subscription_capacity(config.subscription_messages_max)
        .client_capacity(config.commands_max)
        .custom_inbox_prefix(config.inbox_prefix.as_str())
        // Every subject went through `Subject::new`.
        .skip_subject_validation(true)
        .reconnect_delay_callback(move |attempts| reconnect_delay(attempts, delay_max))
        .reconnect_to_server_callback(|servers, _info| async move {
            // The only place where the cause of a failed connection can be read while it is down. Said at the
            // first failure and then ever more rarely: an outage is one event, not one for each attempt.
            for server in servers {
                if let Some(cause) = server.last_error
                    && server.failed_attempts.is_power_of_two()
                {
                    tracing::warn!(
                        server = %host_of(&server.addr),
                        attempts = server.failed_attempts,
                        cause,
                        "cannot connect to NATS"
                    );
                }
            }
            None
        });
    if config.discover { options } else { options.ignore_discovered_servers() }
}

/// A server without the user and password that its URL may carry.
pub(super) fn host_of(server: &async_nats::ServerAddr) -> String {
    format!("{}:{}", server.host(), server.port())
}

/// Exponential with full jitter, so that a restarted cluster is not met by everybody at once.
fn reconnect_delay(attempts: usize, max: Duration) -> Duration {
    let doublings = u32::try_from(attempts.min(16)).unwrap_or(16);
    let ceiling = RECONNECT_DELAY_FIRST.saturating_mul(1 << doublings).min(max);
    rand::rng().random_range(Duration::ZERO..=ceiling)
}

async fn with_credentials(
    options: ConnectOptions,
    credentials: &NatsCredentials,
) -> Result<ConnectOptions, TransportError> {
    Ok(match credentials {
        NatsCredentials::None => options,
        NatsCredentials::User { user, password } => {
            options.user_and_password(user.clone(), password.expose().to_owned())
        }
        NatsCredentials::Token(token) => options.token(token.expose().to_owned()),
        NatsCredentials::Nkey(seed) => options.nkey(seed.expose().to_owned()),
        NatsCredentials::CredentialsFile(path) => {
            options.credentials_file(path).await.map_err(|e| TransportError::Refused(e.into()))?
        }
    })
}

/// The library reads the files again at every connection, so that replacing them is all a rotation needs.
fn with_tls(options: ConnectOptions, config: &NatsConfig) -> ConnectOptions {
    let Some(tls) = &config.tls else { return options };
    // Without this a server that speaks plain text would be sent the password in clear.
    let mut options = options.require_tls(true);
    if config.tls_first {
        options = options.tls_first();
    }
    if let Some(ca) = &tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some(identity) = &tls.identity {
        options =
            options.add_client_certificate(identity.certificate.clone(), identity.key.clone());
    }
    options
}

fn with_reports(options: ConnectOptions, report: watch::Sender<Link>) -> ConnectOptions {
    let connected_before = Arc::new(AtomicBool::new(false));
    let report = Arc::new(report);
    gauge(&names::NATS_CONNECTED, &[]).set(0.0);
    options.event_callback(move |event| {
        let connected_before = Arc::clone(&connected_before);
        let report = Arc::clone(&report);
        async move { on_event(&event, &connected_before, &report) }
    })
}

/// What a refusal is about, without what is different for each message: the tokens of a subject that say whose it is.
fn refused(error: &str) -> &str {
    let Some((head, subject)) = error.split_once('"') else { return error };
    // Of an inbox its first token, of `fjord.q.<queue>` three.
    let tokens = if subject.starts_with('_') { 1 } else { 3 };
    let subject = subject.split('"').next().unwrap_or_default();
    let length: usize = subject.split('.').take(tokens).map(|token| token.len() + 1).sum();
    let whole = head.len() + '"'.len_utf8() + length.saturating_sub(1);
    error.get(..whole).unwrap_or(error)
}

/// Counts and logs what the client reports. Must not block: the library awaits it.
fn on_event(event: &Event, connected_before: &AtomicBool, report: &watch::Sender<Link>) {
    let word = match event {
        Event::Connected => {
            gauge(&names::NATS_CONNECTED, &[]).set(1.0);
            if connected_before.swap(true, Ordering::Relaxed) {
                counter(&names::NATS_RECONNECTS, &[]).increment(1);
            }
            tracing::info!("connected to NATS");
            report.send_modify(|link| {
                *link = Link { state: LinkState::Up, epoch: link.epoch + 1 };
            });
            "connected"
        }
        Event::Disconnected => {
            gauge(&names::NATS_CONNECTED, &[]).set(0.0);
            tracing::warn!("connection to NATS lost, connecting again");
            report.send_modify(|link| link.state = LinkState::Down);
            "disconnected"
        }
        Event::LameDuckMode => {
            tracing::warn!("the NATS server is about to stop, moving to another");
            report.send_modify(|link| link.state = LinkState::Leaving);
            "lame_duck"
        }
        Event::SlowConsumer(subscription) => {
            if conditions::begins(&DROPPED, "") {
                tracing::error!(subscription, "messages were dropped: read too slowly");
            }
            "slow_consumer"
        }
        Event::ServerError(error) => {
            if conditions::begins(&REFUSED, refused(&error.to_string())) {
                tracing::error!(%error, "NATS refused; check the account's permissions");
            }
            "server_error"
        }
        Event::ClientError(error) => {
            // Why a connection failed is said where it is known, above.
            tracing::debug!(%error, "NATS client error");
            "client_error"
        }
        Event::Draining => "draining",
        Event::Closed => {
            report.send_modify(|link| link.state = LinkState::Down);
            "closed"
        }
    };
    counter(&names::NATS_EVENTS, &[(names::EVENT, word.to_owned())]).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_again_whatever_its_message() {
        for (error, known) in [
            (
                "Permissions Violation for Publish to \"_INBOX_x.a.17\"",
                "Permissions Violation for Publish to \"_INBOX_x",
            ),
            (
                "Permissions Violation for Publish to \"fjord.q.horse\"",
                "Permissions Violation for Publish to \"fjord.q.horse",
            ),
            (
                "nats: Permissions Violation for Publish to \"fjord.w.a.j.7\"",
                "nats: Permissions Violation for Publish to \"fjord.w.a",
            ),
            ("maximum connections exceeded", "maximum connections exceeded"),
            ("odd \"", "odd \""),
        ] {
            assert_eq!(refused(error), known);
        }
    }
}
