//! The ports of a run: the configured ports, or free ones in place of those that are in use.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A port that was chosen for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChosenPort {
    /// The port that is used.
    pub(super) port: u16,
    /// The port in the configuration.
    pub(super) configured: u16,
}

/// Chooses distinct ports on 127.0.0.1.
#[derive(Debug, Default)]
pub(super) struct PortChooser {
    /// The chosen ports remain bound until all ports are chosen.
    bound: Vec<TcpListener>,
}

impl PortChooser {
    /// Returns the configured port if it can be bound, and otherwise a free one. Another program
    /// can bind the port before the process that needs it, which then exits with an error.
    ///
    /// # Errors
    /// The operating system's error if no port is free.
    pub(super) fn choose(&mut self, configured: u16) -> io::Result<ChosenPort> {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = bind(configured).or_else(|_| bind(0))?;
        let port = listener.local_addr()?.port();
        self.bound.push(listener);
        Ok(ChosenPort { port, configured })
    }
}

impl ChosenPort {
    /// Returns a remark if another port than the configured one is used. Port 0 asks for any port.
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
