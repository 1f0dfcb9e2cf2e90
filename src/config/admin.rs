//! `[admin]`: the listener for the fleet page, and for `/metrics`, `/healthz`, `/readyz` and `/status`.

use std::net::{Ipv4Addr, SocketAddr};

use super::hosts;
use super::limits;
use super::settings::SettingsTable;
use crate::cli::Role;

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address. The default is 127.0.0.1:9464 for a gateway and 127.0.0.1:9465 for a worker, so that one host can
    /// run both.
    pub listen: SocketAddr,
    /// The names accepted in `Host`, in addition to the host's own name, `localhost` and IP addresses. `*` accepts any
    /// name.
    pub hosts: Vec<String>,
    /// Whether the page shows the whole fleet or only this process. To show the fleet, the process queries it over
    /// NATS. By default, only gateways do this.
    pub fleet: bool,
}

impl AdminConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Self {
        let port = if role == Some(Role::Worker) {
            limits::ADMIN_PORT_WORKER
        } else {
            limits::ADMIN_PORT_GATEWAY
        };
        let listen = table.get_or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if !listen.ip().is_loopback() {
            table.warn(
                "listen",
                "metrics and the state of the fleet can be read from the network, without TLS or a password",
            );
        }
        let hosts = hosts::read(table, |host| host == "*");
        if hosts.iter().any(|host| host == "*") {
            table.warn(
                "hosts",
                "a web page can read metrics and the state of the fleet through its visitor's browser (DNS rebinding)",
            );
        }
        let fleet = table.get_or("fleet", role != Some(Role::Worker));
        Self { listen, hosts, fleet }
    }
}
