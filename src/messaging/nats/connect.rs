//! Connection options: servers, credentials, TLS and reconnects.

use std::sync::Arc;

use async_nats::ConnectOptions;

use super::connection_state::ConnectionState;
use super::credentials;
use crate::config::messaging::NatsConfig;
use crate::messaging::TransportError;

/// Creates a client that connects in the background and retries indefinitely.
pub(super) async fn client(
    config: &NatsConfig,
    name: &str,
    number: u64,
    state: &Arc<ConnectionState>,
) -> Result<async_nats::Client, TransportError> {
    let servers = config
        .servers
        .iter()
        .map(|server| server.parse::<async_nats::ServerAddr>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TransportError::Failed(e.into()))?;
    let (backoff, events, failures) = (Arc::clone(state), Arc::clone(state), Arc::clone(state));
    let options = options(config, name)
        .retry_on_initial_connect()
        .reconnect_delay_callback(move |attempts| backoff.backoff.delay(attempts))
        .event_callback(move |event| {
            events.on_event(number, &event);
            std::future::ready(())
        })
        .reconnect_to_server_callback(move |servers, _info| {
            // Only this callback receives the cause of a failed connection attempt. The cause is
            // logged after 1, 2, 4, 8 … failures, so that an outage does not produce a line for
            // each attempt.
            for server in &servers {
                if let Some(cause) = &server.last_error
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
            let known =
                servers.into_iter().map(|server| (host_of(&server.addr), server.last_error));
            failures.problems.set_servers(known);
            std::future::ready(None)
        });
    options.connect(servers).await.map_err(|e| TransportError::Failed(e.into()))
}

/// Returns the options that all connections share.
pub(super) fn options(config: &NatsConfig, name: &str) -> ConnectOptions {
    let credentials = config.credentials.clone();
    // The library calls this for every connection.
    let authenticate = move |nonce| credentials::authenticate(credentials.clone(), nonce);
    with_tls(base(ConnectOptions::with_auth_callback(authenticate), config, name), config)
}

fn base(options: ConnectOptions, config: &NatsConfig, name: &str) -> ConnectOptions {
    let options = options
        .name(name)
        .max_reconnects(None)
        .connection_timeout(config.connect_timeout)
        .ping_interval(config.ping_interval)
        .subscription_capacity(config.subscription_messages_max)
        .client_capacity(config.commands_max)
        .custom_inbox_prefix(config.inbox_prefix.as_str())
        // `Subject` guarantees that subjects are valid.
        .skip_subject_validation(true);
    if config.discover { options } else { options.ignore_discovered_servers() }
}

/// Returns the host and port of a server, without any credentials in its URL.
pub(super) fn host_of(server: &async_nats::ServerAddr) -> String {
    format!("{}:{}", server.host(), server.port())
}

/// Adds TLS. The library reads the files for every connection, so replaced files are picked up.
fn with_tls(options: ConnectOptions, config: &NatsConfig) -> ConnectOptions {
    let Some(tls) = &config.tls else { return options };
    // Without this, the client would send the password unencrypted to a server that does not use
    // TLS.
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
