//! The ports of a run: each configured port, or a free port if the configured one is in use.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A port chosen for a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChosenPort {
    /// The port in use.
    pub(super) port: u16,
    /// The port named in the configuration.
    pub(super) configured: u16,
}

/// Chooses distinct ports on 127.0.0.1.
#[derive(Debug, Default)]
pub(super) struct PortChooser {
    /// Keeps the chosen ports bound until all ports have been chosen.
    bound: Vec<TcpListener>,
}

impl PortChooser {
    /// Returns the configured port if it can be bound, and a free port otherwise. Another program
    /// can bind the port before the process that needs it starts. In that case, the process exits
    /// with an error.
    ///
    /// # Errors
    /// Returns the operating system's error if no port is free.
    pub(super) fn choose(&mut self, configured: u16) -> io::Result<ChosenPort> {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = bind(configured).or_else(|_| bind(0))?;
        let port = listener.local_addr()?.port();
        self.bound.push(listener);
        Ok(ChosenPort { port, configured })
    }
}

impl ChosenPort {
    /// Returns a remark if the port differs from the configured one. A configured port of 0 means
    /// any port, so it gets no remark.
    pub(super) fn remark(self, purpose: &str) -> Option<String> {
        let Self { port, configured } = self;
        (port != configured && configured != 0)
            .then(|| format!("port {configured} is in use: {purpose} uses port {port} instead"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_replaced() {
        let mut ports = PortChooser::default();
        let first = ports.choose(0).unwrap();
        assert_eq!(first.remark("the gateway"), None);
        let second = ports.choose(first.port).unwrap();
        assert_ne!(second.port, first.port);
        let remark = second.remark("the gateway").unwrap();
        let expected =
            format!("port {} is in use: the gateway uses port {} instead", first.port, second.port);
        assert_eq!(remark, expected);
        drop(ports);
        assert_eq!(PortChooser::default().choose(first.port).unwrap().port, first.port);
    }
}
