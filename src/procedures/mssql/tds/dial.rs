//! Opens a connection to SQL Server: TCP, PRELOGIN, TLS, login and redirects.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::select_ok;
use socket2::{SockRef, TcpKeepalive};
use tiberius::{AuthMethod, Config, EncryptionLevel, error::Error};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::access_tokens::AccessTokens;
use super::addresses::resolve;
use super::browser;
use super::login_password::{LoginPassword, PasswordAttempt};
use super::prelogin::{self, PreloginOptions};
use super::socket::{TcpProbe, TdsSocket};
use super::stream::TdsStream;
use super::stream_state::StreamState;
use crate::config::Secret;
use crate::config::procedures::{MssqlConfig, MssqlEncryption};
use crate::procedures::mssql::error_numbers::{self, LoginFailure};
use crate::tls::{ClientStream, Connector};

/// The application protocol (ALPN) of TDS 8.
const TDS_8: &[u8] = b"tds/8.0";
/// The maximum number of redirects before the attempt fails.
const REDIRECTS_MAX: usize = 3;
/// The idle time before the first keep-alive probe, and the pause between probes. Cloud networks
/// drop idle connections after four minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(5);

/// The driver's client over fjord's stream.
pub(crate) type TdsClient = tiberius::Client<Compat<TdsStream>>;

/// The reason why a connection could not be opened. No call was sent.
#[derive(Debug)]
pub(crate) struct ConnectError {
    /// The class of the failure, which determines when the next attempt is made.
    pub(crate) failure: LoginFailure,
    /// Whether the server refused the password. If so, another password may be accepted.
    refuses_password: bool,
    /// The cause, for the log.
    pub(crate) source: Box<dyn StdError + Send + Sync>,
}

/// A secret with which to log in.
#[derive(Debug)]
pub(crate) enum LoginSecret<'a> {
    /// A password. Other logins may wait until it has been tried.
    Password(PasswordAttempt<'a>),
    /// An access token that has not expired.
    Token(Secret),
}

impl ConnectError {
    fn unreachable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let failure = LoginFailure::Unreachable;
        Self { failure, refuses_password: false, source: source.into() }
    }
}

/// Opens connections to one database.
#[derive(Debug)]
pub(crate) struct TdsConnector {
    config: MssqlConfig,
    password: LoginPassword,
    tokens: Option<Arc<AccessTokens>>,
    tls: Connector,
}

impl TdsConnector {
    pub(crate) fn new(config: MssqlConfig, tls: Connector) -> Self {
        let tokens = config.tokens.clone().map(|source| Arc::new(AccessTokens::new(source)));
        Self { password: LoginPassword::new(config.password.clone()), tokens, config, tls }
    }

    /// Replaces the password. Returns whether the new password is different.
    pub(crate) fn set_password(&self, password: &Secret) -> bool {
        self.password.set(password)
    }

    /// Reads the password file or gets an access token, and returns the secret for the next login. Waits while another
    /// login tries a password. This method is cancel safe.
    ///
    /// # Errors
    /// Returns an error if the source of access tokens fails.
    pub(crate) async fn login_secret(&self) -> Result<LoginSecret<'_>, ConnectError> {
        let Some(tokens) = &self.tokens else {
            return Ok(LoginSecret::Password(self.password.attempt().await));
        };
        let token = tokens.current().await;
        token.map(LoginSecret::Token).map_err(ConnectError::unreachable)
    }

    /// Connects and logs in within `connect_timeout`. If the server refuses the password, tries once more with another
    /// password that may be accepted. The caller must record the result before it drops the secret, because the next
    /// login can try a password as soon as the secret is dropped. This method is cancel safe.
    pub(crate) async fn dial(
        &self,
        application: &str,
        secret: &mut LoginSecret<'_>,
    ) -> Result<(TdsClient, Arc<StreamState>), ConnectError> {
        let attempt = match secret {
            LoginSecret::Password(attempt) => attempt,
            LoginSecret::Token(token) => {
                let ended = self.log_in(application, token).await;
                // A token that was refused must not be used again.
                if let (Some(tokens), Err(error)) = (&self.tokens, &ended)
                    && error.refuses_password
                {
                    tokens.discard(token);
                }
                return ended;
            }
        };
        loop {
            let refusal = match self.log_in(application, attempt.password()).await {
                Err(error) if error.refuses_password => error,
                ended => {
                    if ended.is_ok() {
                        attempt.record_accepted();
                    }
                    return ended;
                }
            };
            if !attempt.record_refused().await {
                return Err(refusal);
            }
        }
    }

    /// Connects and logs in within `connect_timeout`.
    async fn log_in(
        &self,
        application: &str,
        secret: &Secret,
    ) -> Result<(TdsClient, Arc<StreamState>), ConnectError> {
        let limit = self.config.connect_timeout;
        let followed = tokio::time::timeout(limit, self.follow(application, secret)).await;
        followed.unwrap_or_else(|elapsed| Err(ConnectError::unreachable(elapsed)))
    }

    /// Logs in. Follows redirects from an availability group's listener, or from the gateway of Azure SQL.
    async fn follow(
        &self,
        application: &str,
        secret: &Secret,
    ) -> Result<(TdsClient, Arc<StreamState>), ConnectError> {
        let mut host = self.config.host.clone();
        let mut port = match &self.config.instance {
            None => self.config.port,
            Some(instance) => {
                browser::find_port(&host, instance).await.map_err(ConnectError::unreachable)?
            }
        };
        for _ in 0..=REDIRECTS_MAX {
            match self.login((&host, port), application, secret).await {
                Err(LoginError::Redirected { host: next, port: at }) => (host, port) = (next, at),
                Err(LoginError::Failed(error)) => return Err(error),
                Ok(connection) => return Ok(connection),
            }
        }
        Err(ConnectError::unreachable("the server redirects more than three times"))
    }

    async fn login(
        &self,
        (host, port): (&str, u16),
        application: &str,
        secret: &Secret,
    ) -> Result<(TdsClient, Arc<StreamState>), LoginError> {
        let stream = connect_tcp(host, port).await.map_err(ConnectError::unreachable)?;
        set_options(&stream).map_err(ConnectError::unreachable)?;
        let tcp = Arc::new(TcpProbe::new(&stream).map_err(ConnectError::unreachable)?);
        let is_first = host == self.config.host;
        let name = self.config.certificate_name.as_deref().filter(|_| is_first).unwrap_or(host);
        let (tls, prelogin) = if matches!(self.config.encryption, MssqlEncryption::Strict(_)) {
            self.encrypt_first(name, stream, &tcp).await?
        } else {
            self.negotiate_first(name, stream, &tcp).await?
        };
        let state = Arc::new(StreamState::new(tcp));
        let tds = TdsStream::new(tls, Arc::clone(&state), prelogin);
        let driver = self.driver_config((host, port), application, secret);
        // The handshake's future is boxed, because it is large and rarely needed.
        match Box::pin(tiberius::Client::connect(driver, tds.compat())).await {
            Ok(client) => Ok((client, state)),
            Err(Error::Routing { host, port }) => Err(LoginError::Redirected { host, port }),
            Err(error) => {
                let failure = error_numbers::login_failure(&error);
                let refuses_password = error_numbers::refuses_password(&error);
                Err(ConnectError { failure, refuses_password, source: error.into() }.into())
            }
        }
    }

    fn prelogin(&self, is_encrypted: bool) -> PreloginOptions {
        PreloginOptions { is_encrypted, has_token: self.tokens.is_some() }
    }

    /// Exchanges PRELOGIN packets, and then starts TLS inside TDS. Returns the server's PRELOGIN
    /// answer.
    async fn negotiate_first(
        &self,
        name: &str,
        mut stream: TcpStream,
        tcp: &Arc<TcpProbe>,
    ) -> Result<(ClientStream<TdsSocket>, BytesMut), ConnectError> {
        let prelogin = prelogin::negotiate(&mut stream, self.prelogin(false)).await;
        let prelogin = prelogin.map_err(ConnectError::unreachable)?;
        let socket = TdsSocket::new(stream, Arc::clone(tcp));
        let mut tls = self.tls.connect(name, socket).await.map_err(ConnectError::unreachable)?;
        tls.get_mut().0.end_handshake();
        Ok((tls, prelogin))
    }

    /// Starts TLS, and then exchanges PRELOGIN packets inside it (TDS 8).
    async fn encrypt_first(
        &self,
        name: &str,
        stream: TcpStream,
        tcp: &Arc<TcpProbe>,
    ) -> Result<(ClientStream<TdsSocket>, BytesMut), ConnectError> {
        let socket = TdsSocket::without_packets(stream, Arc::clone(tcp));
        let tls = self.tls.connect_with_alpn(name, vec![TDS_8.to_vec()], socket).await;
        let mut tls = tls.map_err(ConnectError::unreachable)?;
        let prelogin = prelogin::negotiate(&mut tls, self.prelogin(true)).await;
        Ok((tls, prelogin.map_err(ConnectError::unreachable)?))
    }

    fn driver_config(
        &self,
        (host, port): (&str, u16),
        application: &str,
        secret: &Secret,
    ) -> Config {
        let mut driver = Config::new();
        driver.host(host);
        driver.port(port);
        driver.database(&self.config.database);
        driver.application_name(application);
        driver.readonly(self.config.read_only);
        driver.authentication(if self.tokens.is_some() {
            AuthMethod::aad_token(secret.expose())
        } else {
            AuthMethod::sql_server(&self.config.user, secret.expose())
        });
        // The stream is already encrypted.
        driver.encryption(EncryptionLevel::NotSupported);
        // fjord's deadlines limit the whole call. The driver's timeouts would restart with every
        // token.
        driver.handshake_timeout(None);
        driver.command_timeout(None);
        driver
    }
}

enum LoginError {
    Redirected { host: String, port: u16 },
    Failed(ConnectError),
}

impl From<ConnectError> for LoginError {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error)
    }
}

/// Disables Nagle's algorithm, and enables keep-alive to detect a lost peer on an idle connection.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_PAUSE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Connects to the first address that answers. An availability group's listener has one address in
/// each subnet.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let attempts =
        resolve(host, port).await?.into_iter().map(|address| Box::pin(TcpStream::connect(address)));
    select_ok(attempts).await.map(|(stream, _)| stream)
}
