//! The SQL Server backend, which calls stored procedures over TDS.
//!
//! A call is sent as a remote procedure call by name with typed parameters, or as a statement if an
//! RPC is not possible. A connection serves one call at a time, and returns to its pool only after
//! the answer has been read to the end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::{
    Backend, BackendError, BackendErrorKind, Call, CallError, ExpectedProcedure,
    ProcedureDescription, ProcedureResult, ResultDescription, RowSink, VerifyCallback,
};
use crate::catalogue::ProcedureName;
use crate::config::procedures::{DatabaseConfig, MssqlConfig, MssqlEncryption};
use crate::future::BoxFuture;
use crate::lifecycle::Cancel;
use crate::tls::Connector;

mod call;
mod error_numbers;
mod metadata;
mod pools;
mod server_message;
mod tds;
mod types;
mod verify;

use call::SessionContextPermission;
use metadata::{ServerDetector, SignatureCache};
use pools::{Lease, Pools};

/// The time limit for describing the procedures in a database.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Creates the backend of the database that the configuration calls `name`. Connects on demand.
///
/// # Errors
/// Returns `BackendError` if the TLS files cannot be used.
pub fn connect(config: &MssqlConfig, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let tls = match &config.encryption {
        MssqlEncryption::Required(files) | MssqlEncryption::Strict(files) => Connector::new(files),
        MssqlEncryption::TrustAny => Connector::trusting_any().map_err(Into::into),
    };
    let tls = tls.map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?;
    let connector = tds::TdsConnector::new(config.clone(), tls);
    Ok(Arc::new(Mssql {
        name: name.to_owned(),
        config: config.clone(),
        pools: Pools::new(config, name, connector),
        signatures: SignatureCache::default(),
        server: ServerDetector::default(),
        session_permission: SessionContextPermission::default(),
        untyped_null_refused: AtomicBool::new(false),
        closing: Cancel::new(),
    }))
}

/// A database on SQL Server.
#[derive(Debug)]
struct Mssql {
    name: String,
    config: MssqlConfig,
    pools: Pools,
    signatures: SignatureCache,
    server: ServerDetector,
    session_permission: SessionContextPermission,
    /// Set once the server has refused an untyped NULL, although servers of its kind usually accept
    /// untyped NULLs.
    untyped_null_refused: AtomicBool,
    closing: Cancel,
}

impl Backend for Mssql {
    fn system(&self) -> &'static str {
        "microsoft.sql_server"
    }

    fn call<'a>(
        &'a self,
        call: Call<'a>,
        rows: &'a mut dyn RowSink,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<ProcedureResult, CallError>> {
        Box::pin(self.call_with_retries(call, rows, cancel))
    }

    fn verify<'a>(
        &'a self,
        expected: &'a [ExpectedProcedure],
        report: &'a mut VerifyCallback<'_>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(self.verify_all(expected, report))
    }

    fn describe<'a>(
        &'a self,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ProcedureDescription>, BackendError>> {
        Box::pin(self.describe_all(pattern))
    }

    fn describe_result<'a>(
        &'a self,
        procedure: &'a ProcedureName,
    ) -> BoxFuture<'a, Result<ResultDescription, BackendError>> {
        Box::pin(self.describe_answer(procedure))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.ping_once())
    }

    fn reconfigure(&self, config: &DatabaseConfig) {
        let DatabaseConfig::Mssql(config) = config else { return };
        self.pools.reconfigure(config);
    }

    fn retire(&self) {
        self.pools.retire();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closing.cancel();
        self.pools.close();
        Box::pin(std::future::ready(()))
    }
}

impl Mssql {
    /// Describes the reason why there is no procedure of this name.
    fn missing_text(&self, procedure: &ProcedureName) -> String {
        if let Some(reason) = self.signatures.other_object(procedure) {
            return reason;
        }
        let (database, login) = (&self.config.database, self.login());
        format!("no such procedure in the database {database} is visible to the login {login}")
    }

    /// Returns the login's name for a message.
    fn login(&self) -> &str {
        if self.config.tokens.is_some() { "of the access token" } else { &self.config.user }
    }

    async fn describe_all(&self, pattern: &str) -> Result<Vec<ProcedureDescription>, BackendError> {
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        let mut lease = self.pools.lease_any(deadline).await?;
        let connection = lease.connection().ok_or_else(unavailable)?;
        let description = metadata::describe(&mut connection.client, &self.signatures, pattern);
        let answer = timeout_at(deadline, description).await;
        finish_query(lease, answer)
    }

    async fn describe_answer(
        &self,
        procedure: &ProcedureName,
    ) -> Result<ResultDescription, BackendError> {
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        let mut lease = self.pools.lease_any(deadline).await?;
        let connection = lease.connection().ok_or_else(unavailable)?;
        let description =
            metadata::describe_result(&mut connection.client, &self.signatures, procedure);
        let answer = timeout_at(deadline, description).await;
        finish_query(lease, answer)
    }

    async fn ping_once(&self) -> Result<(), BackendError> {
        self.pools.trim();
        if self.pools.is_busy_and_healthy() {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.connect_timeout;
        let mut lease = match self.pools.lease_any(deadline).await {
            // Calls are using all connections, but nothing indicates an outage of the database.
            Err(error)
                if error.kind == BackendErrorKind::PoolTimedOut && self.pools.can_connect() =>
            {
                return Ok(());
            }
            lease => lease?,
        };
        let connection = lease.connection().ok_or_else(unavailable)?;
        let query =
            async { connection.client.simple_query("SELECT 1").await?.into_results().await };
        let answer = timeout_at(deadline, query).await;
        finish_query(lease, answer).map(drop)
    }
}

/// Handles the end of one of fjord's own queries. Keeps the connection only if the query was
/// answered.
fn finish_query<T>(
    lease: Lease,
    answer: Result<Result<T, tiberius::error::Error>, Elapsed>,
) -> Result<T, BackendError> {
    match answer {
        Ok(Ok(answer)) => {
            lease.keep();
            Ok(answer)
        }
        Ok(Err(error)) => {
            lease.discard("broken");
            Err(BackendError::caused_by(BackendErrorKind::Unavailable, error))
        }
        Err(elapsed) => {
            lease.discard("timeout");
            Err(BackendError::caused_by(BackendErrorKind::Unavailable, elapsed))
        }
    }
}

fn unavailable() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable)
}
