//! One connection to SQL Server: TCP, PRELOGIN, TLS, login, and whereto the server sends us instead.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use socket2::{SockRef, TcpKeepalive};
use tiberius::{AuthMethod, Config, EncryptionLevel, error::Error};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::errors::{self, LoginFailure};
use super::marks::Marks;
use super::prelogin;
use super::socket::{Socket, Tcp};
use super::wire::Wire;
use crate::config::procedures::MssqlConfig;
use crate::tls::Connector;

/// How often a server may send us to another one before we give up.
const REDIRECTS_MAX: usize = 3;
/// Addresses of one name that are tried, all at once.
const ADDRESSES_MAX: usize = 8;
/// An idle connection is probed after this long, and then this often: clouds drop idle ones after four minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(5);

/// The driver's client over our stream.
pub(super) type Client = tiberius::Client<Compat<Wire>>;

/// Why there is no connection. Nothing of a call has been sent.
#[derive(Debug)]
pub(super) struct DialError {
    /// What it means for the attempts after it.
    pub(super) failure: LoginFailure,
    /// The cause, for the log.
    pub(super) source: Box<dyn StdError + Send + Sync>,
}

impl DialError {
    fn away(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { failure: LoginFailure::Away, source: source.into() }
    }
}

/// Makes connections to one database.
#[derive(Debug)]
pub(super) struct Dialer {
    config: MssqlConfig,
    tls: Connector,
}

impl Dialer {
    /// A dialer for a database as it is configured.
    pub(super) fn new(config: MssqlConfig, tls: Connector) -> Self {
        Self { config, tls }
    }

    /// Connects and logs in, within the configured time. Safe to drop.
    pub(super) async fn dial(&self, application: &str) -> Result<(Client, Arc<Marks>), DialError> {
        let limit = self.config.connect_timeout;
        let dialled = tokio::time::timeout(limit, self.follow(application)).await;
        dialled.unwrap_or_else(|elapsed| Err(DialError::away(elapsed)))
    }

    /// Follows a read-only replica's or a gateway's redirection to where the session is to live.
    async fn follow(&self, application: &str) -> Result<(Client, Arc<Marks>), DialError> {
        let (mut host, mut port) = (self.config.host.clone(), self.config.port);
        for _ in 0..=REDIRECTS_MAX {
            match self.login(&host, port, application).await {
                Err(Login::Elsewhere { host: next, port: at }) => (host, port) = (next, at),
                Err(Login::Failed(error)) => return Err(error),
                Ok(session) => return Ok(session),
            }
        }
        Err(DialError::away("the server redirects without end"))
    }

    async fn login(
        &self,
        host: &str,
        port: u16,
        application: &str,
    ) -> Result<(Client, Arc<Marks>), Login> {
        let mut stream = reach(host, port).await.map_err(DialError::away)?;
        keep_alive(&stream).map_err(DialError::away)?;
        let greeting = prelogin::negotiate(&mut stream).await.map_err(DialError::away)?;
        let tcp = Arc::new(Tcp::of(&stream).map_err(DialError::away)?);
        let socket = Socket::new(stream, Arc::clone(&tcp));
        let is_first = host == self.config.host;
        let name = self.config.certificate_name.as_deref().filter(|_| is_first).unwrap_or(host);
        let mut tls = self.tls.connect(name, socket).await.map_err(DialError::away)?;
        tls.get_mut().0.handshake_done();
        let marks = Arc::new(Marks::new(tcp));
        let wire = Wire::new(tls, Arc::clone(&marks), greeting);
        let driver = self.driver(host, port, application);
        // Boxed: the handshake's future is large, and rare.
        match Box::pin(tiberius::Client::connect(driver, wire.compat())).await {
            Ok(client) => Ok((client, marks)),
            Err(Error::Routing { host, port }) => Err(Login::Elsewhere { host, port }),
            Err(error) => {
                let failure = errors::login_failure(&error);
                Err(DialError { failure, source: error.into() }.into())
            }
        }
    }

    fn driver(&self, host: &str, port: u16, application: &str) -> Config {
        let mut driver = Config::new();
        driver.host(host);
        driver.port(port);
        driver.database(&self.config.database);
        driver.application_name(application);
        driver.readonly(self.config.read_only);
        driver.authentication(AuthMethod::sql_server(
            &self.config.user,
            self.config.password.expose(),
        ));
        // The stream is encrypted already; the driver adds nothing to it.
        driver.encryption(EncryptionLevel::NotSupported);
        // Ours bound the whole: the driver's start again with every token.
        driver.handshake_timeout(None);
        driver.command_timeout(None);
        driver
    }
}

enum Login {
    Elsewhere { host: String, port: u16 },
    Failed(DialError),
}

impl From<DialError> for Login {
    fn from(error: DialError) -> Self {
        Self::Failed(error)
    }
}

/// Small requests go out at once; a peer that has vanished is noticed while nobody calls.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_PAUSE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Reaches the first of a name's addresses that answers: an availability group's listener has one in each subnet.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let attempts = addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)));
    select_ok(attempts).await.map(|(stream, _)| stream)
}
