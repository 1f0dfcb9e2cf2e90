//! How a connection is made and kept.

use std::sync::Arc;

use async_nats::ConnectOptions;

use super::credentials;
use super::state::State;
use crate::config::messaging::NatsConfig;
use crate::messaging::TransportError;

/// A client that connects by itself, for as long as it takes.
pub(super) async fn client(
    config: &NatsConfig,
    name: &str,
    number: u64,
    state: &Arc<State>,
) -> Result<async_nats::Client, TransportError> {
    let servers = config
        .servers
        .iter()
        .map(|server| server.parse::<async_nats::ServerAddr>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TransportError::Refused(e.into()))?;
    let (pace, report) = (Arc::clone(state), Arc::clone(state));
    let options = options(config, name)
        .retry_on_initial_connect()
        .reconnect_delay_callback(move |attempts| pace.pace.delay(attempts))
        .event_callback(move |event| {
            report.on_event(number, &event);
            std::future::ready(())
        });
    options.connect(servers).await.map_err(|e| TransportError::Refused(e.into()))
}

/// How a connection is made and kept, whatever it is for.
pub(super) fn options(config: &NatsConfig, name: &str) -> ConnectOptions {
    let credentials = config.credentials.clone();
    // Asked at every connection.
    let prove = move |nonce| credentials::prove(credentials.clone(), nonce);
    with_tls(base(ConnectOptions::with_auth_callback(prove), config, name), config)
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
        // Every subject went through `Subject::new`.
        .skip_subject_validation(true)
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
