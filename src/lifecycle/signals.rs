//! The signals of an operator and of systemd.

use std::io;

use tokio::signal::unix::{Signal as Unix, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: drain and end.
    Stop,
    /// SIGHUP: read catalogue, certificates and limits again.
    Reload,
}

/// Listens for signals.
#[derive(Debug)]
pub struct Signals {
    terminate: Unix,
    interrupt: Unix,
    hangup: Unix,
}

impl Signals {
    /// Starts to listen: from here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The system's error.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Safe to drop and to call again.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
