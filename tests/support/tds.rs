//! A fake SQL Server on the loopback interface. It speaks TDS and simulates faults that a real
//! server cannot produce on demand.
//!
//! It uses `tds-protocol` for packets, PRELOGIN, types and DONE tokens. The same tests run on a real server
//! (`FJORD_TEST_MSSQL`), which shows that the fake server behaves like SQL Server.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fjord::lifecycle::{Cancel, Tasks};
use tds_protocol::prelogin::EncryptionLevel;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::certs::Certs;

mod articles;
mod collations;
mod conversions;
mod database;
mod first_result_set;
mod metadata;
pub(crate) mod northwind;
mod procedures;
mod reply;
mod request;
pub(crate) mod schema;
mod session;
mod session_context;
mod stream;
mod values;

use collations::Collation;
use request::{RpcParameter, TdsLogin};
use schema::{Declaration, Schema};
use values::Declared;

/// The password that the server accepts at first.
pub(crate) const PASSWORD: &str = "a secret of the fake server";

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct FakeSqlServer {
    /// The address on which the server listens.
    pub(crate) address: SocketAddr,
    /// The file with the certificate of the authority that issued the server's certificate.
    pub(crate) ca: PathBuf,
    /// The server's faults and counters.
    pub(crate) state: Arc<FakeState>,
    stop: Cancel,
    accepting: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// The faults that a server simulates, and its record of requests. Tests can change the faults.
#[derive(Debug)]
pub(crate) struct FakeState {
    schema: Schema,
    tls: Arc<rustls::ServerConfig>,
    /// The TLS configuration of strict encryption (TDS 8): TLS 1.3 and an application protocol.
    strict_tls: Arc<rustls::ServerConfig>,
    /// Whether TLS comes before anything else, as with "Force Strict Encryption".
    pub(crate) is_strict: AtomicBool,
    /// The encryption level in the server's answer to PRELOGIN.
    pub(crate) encryption: Mutex<EncryptionLevel>,
    /// The password that the server accepts.
    pub(crate) password: Mutex<String>,
    /// The access tokens that the server refuses.
    pub(crate) refused_tokens: Mutex<Vec<String>>,
    /// The error number with which every login fails, or 0 for none.
    pub(crate) login_error: AtomicU32,
    /// Whether read-only logins are refused, as if the replica were down.
    pub(crate) refuses_readers: AtomicBool,
    /// The address to which logins are redirected.
    pub(crate) redirect: Mutex<Option<SocketAddr>>,
    /// Whether `sys.parameters` is missing, as on Babelfish.
    pub(crate) lacks_parameters_view: AtomicBool,
    /// The error number with which the next query on `sys.parameters` fails, or 0 for none.
    pub(crate) parameters_view_error: AtomicU32,
    /// The number of queries on `sys.all_parameters`.
    pub(crate) fallback_reads: AtomicUsize,
    /// Whether the server identifies itself as Babelfish.
    pub(crate) is_babelfish: AtomicBool,
    /// Whether the server has no session context, as before version 2016.
    pub(crate) lacks_session_context: AtomicBool,
    /// Whether the login may not execute `sp_set_session_context`.
    pub(crate) denies_session_context: AtomicBool,
    /// The session context key that is already set, read-only, on new connections.
    pub(crate) foreign_key: Mutex<Option<&'static str>>,
    /// The number of messages that set the session context and contain no other call.
    pub(crate) context_messages: AtomicUsize,
    /// The code page of the database's collation.
    pub(crate) code_page: AtomicI64,
    /// The recreated table types, with the oldest one first.
    recreated: Mutex<Vec<(String, Vec<Declaration>)>>,
    /// A table type, and the columns that it gets after the driver's next query for columns.
    pub(crate) recreate_later: Mutex<Option<(&'static str, &'static str)>>,
    /// The error number with which the query for the kind of server fails, or 0 for none.
    pub(crate) probe_error: AtomicU32,
    /// Whether the server refuses an untyped NULL, as Babelfish does.
    pub(crate) refuses_untyped_null: AtomicBool,
    /// Whether the procedure `changed` has been replaced.
    pub(crate) is_changed: AtomicBool,
    /// The error number of a call to the replaced `changed` with its old parameters.
    pub(crate) changed_error: AtomicU32,
    /// Whether new connections are closed immediately.
    pub(crate) refuses_connections: AtomicBool,
    /// Whether the server refuses new connections after the procedure `drops` has closed one.
    pub(crate) goes_away_on_drop: AtomicBool,
    /// The number of further logins after which the server closes the connection.
    pub(crate) closes_after_login: AtomicUsize,
    /// The duration of a login, in milliseconds.
    pub(crate) login_ms: AtomicU64,
    /// The duration of a query for signatures, in milliseconds.
    pub(crate) signatures_ms: AtomicU64,
    /// The number of queries for signatures.
    pub(crate) signature_reads: AtomicUsize,
    /// The duration of batches that begin or roll back a transaction or query columns, in milliseconds.
    pub(crate) batch_ms: AtomicU64,
    /// The number of batches that were delayed by `batch_ms`.
    pub(crate) slow_batches: AtomicUsize,
    /// The number of the driver's queries for the columns of a table type.
    pub(crate) column_reads: AtomicUsize,
    /// Procedures that an ALTER in an open transaction locks. Queries for their parameters wait.
    pub(crate) locked: Mutex<Vec<String>>,
    /// The dropped procedures.
    pub(crate) dropped: Mutex<Vec<String>>,
    /// The number of connections, including those that were closed immediately.
    pub(crate) connects: AtomicUsize,
    /// The successful logins.
    pub(crate) logins: Mutex<Vec<TdsLogin>>,
    /// The number of login attempts, successful or not.
    pub(crate) attempts: AtomicUsize,
    /// The number of attention signals (requests to cancel) received.
    pub(crate) attentions: AtomicUsize,
    /// The number of transactions rolled back by a batch.
    pub(crate) rollbacks: AtomicUsize,
    /// The names of the executed procedures, in order.
    pub(crate) ran: Mutex<Vec<String>>,
    /// The number of calls that were sent as statements.
    pub(crate) statements: AtomicUsize,
    /// The first result sets of procedures, as column declarations. `None` means that the result set
    /// depends on the execution.
    pub(crate) result_sets: Mutex<HashMap<String, Option<String>>>,
    /// The calls whose first result set was described.
    pub(crate) described: Mutex<Vec<String>>,
    /// A procedure whose first result set is never described.
    pub(crate) never_described: Mutex<Vec<String>>,
    /// The number of open connections.
    pub(crate) connections: AtomicI64,
    /// The request ids of the calls to `ledger.write`, recorded when a call starts.
    pub(crate) ledger: Mutex<Vec<String>>,
    /// The committed rows of the audit table.
    pub(crate) audit: database::Audit,
    /// Whether the server closes the connection instead of committing a transaction.
    pub(crate) loses_commits: AtomicBool,
    /// The numbers of the errors with which the server refuses the next commits.
    pub(crate) refused_commits: Mutex<Vec<u32>>,
    victims: Mutex<HashMap<String, i64>>,
    /// Closes all open connections.
    hang_up: Mutex<Cancel>,
    ids: AtomicI64,
}

impl FakeState {
    fn parameter(&self, procedure: &str, name: &str) -> Declared {
        let parameters = self.schema.procedure(procedure).expect("the procedure exists");
        let found = parameters.iter().find(|one| one.name == name).expect("the parameter exists");
        let page = self.code_page.load(Ordering::Acquire);
        let collation = found.declared.collation.or(Some(Collation::for_page(page)));
        Declared { collation, ..found.declared.clone() }
    }

    /// Drops a table type and creates it again with other columns.
    pub(crate) fn recreate_type(&self, table_type: &str, columns: &str) {
        let one = (format!("fjord_test.{table_type}"), schema::declarations(columns));
        self.recreated.lock().expect("not poisoned").push(one);
    }

    /// Returns the current columns of a table type.
    fn columns(&self, table_type: &str) -> Vec<Declaration> {
        let recreated = self.recreated.lock().expect("not poisoned");
        let mut all = recreated.iter().rev().chain(&self.schema.table_types);
        let found = all.find(|(one, _)| one == table_type);
        found.unwrap_or_else(|| panic!("no table type {table_type}")).1.clone()
    }

    /// Returns the id of the table type that currently has this name.
    fn type_id(&self, table_type: &str) -> Option<i64> {
        let recreated = self.recreated.lock().expect("not poisoned");
        let place =
            |all: &[(String, Vec<Declaration>)]| all.iter().rposition(|(one, _)| one == table_type);
        let place = match place(&recreated) {
            Some(place) => place + self.schema.table_types.len(),
            None => place(&self.schema.table_types)?,
        };
        Some(1000 + i64::try_from(place).expect("the index fits i64"))
    }

    /// Returns the name and the object id of a table type.
    fn table_type(&self, type_id: i64) -> Option<(&str, i64)> {
        let mut names = self.schema.table_types.iter().map(|(name, _)| name.as_str());
        let name = names.find(|name| self.type_id(name) == Some(type_id))?;
        Some((name, type_id + 100_000))
    }

    /// Converts arguments to the types of a procedure's parameters.
    fn stored(&self, procedure: &str, given: Vec<RpcParameter>) -> Vec<RpcParameter> {
        let parameters = self.schema.procedure(procedure).expect("the procedure exists");
        let one = |given: RpcParameter| {
            // A replaced procedure has other parameter names.
            if !parameters.iter().any(|one| one.name == given.name) {
                return given;
            }
            let value = self.parameter(procedure, &given.name).store(given.value);
            RpcParameter { value, ..given }
        };
        given.into_iter().map(one).collect()
    }

    /// Returns the number of executions of a procedure.
    pub(crate) fn runs(&self, procedure: &str) -> usize {
        self.ran.lock().expect("not poisoned").iter().filter(|one| *one == procedure).count()
    }

    /// Returns the number of successful logins.
    pub(crate) fn logins(&self) -> usize {
        self.logins.lock().expect("not poisoned").len()
    }

    /// Closes all open connections.
    pub(crate) fn close_connections(&self) {
        std::mem::take(&mut *self.hang_up.lock().expect("not poisoned")).cancel();
    }
}

impl FakeSqlServer {
    /// Starts a server on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_on(0).await
    }

    /// Starts a server on this port.
    pub(crate) async fn start_on(port: u16) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let certs = Certs::new(directory.path());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let address = listener.local_addr().expect("the listener has an address");
        let mut strict_tls = certs.server_tls(&[&rustls::version::TLS13]);
        strict_tls.alpn_protocols = vec![stream::TDS_8.to_vec()];
        let state = Arc::new(FakeState {
            schema: all_objects(),
            // SQL Server uses TLS 1.2 if TLS is negotiated within TDS.
            tls: Arc::new(certs.server_tls(&[&rustls::version::TLS12])),
            strict_tls: Arc::new(strict_tls),
            is_strict: AtomicBool::new(false),
            encryption: Mutex::new(EncryptionLevel::On),
            password: Mutex::new(PASSWORD.to_owned()),
            refused_tokens: Mutex::default(),
            login_error: AtomicU32::new(0),
            refuses_readers: AtomicBool::new(false),
            redirect: Mutex::default(),
            lacks_parameters_view: AtomicBool::new(false),
            parameters_view_error: AtomicU32::new(0),
            fallback_reads: AtomicUsize::new(0),
            is_babelfish: AtomicBool::new(false),
            lacks_session_context: AtomicBool::new(false),
            denies_session_context: AtomicBool::new(false),
            foreign_key: Mutex::default(),
            context_messages: AtomicUsize::new(0),
            code_page: AtomicI64::new(1252),
            recreated: Mutex::default(),
            recreate_later: Mutex::default(),
            probe_error: AtomicU32::new(0),
            refuses_untyped_null: AtomicBool::new(false),
            is_changed: AtomicBool::new(false),
            changed_error: AtomicU32::new(8145),
            refuses_connections: AtomicBool::new(false),
            goes_away_on_drop: AtomicBool::new(false),
            closes_after_login: AtomicUsize::new(0),
            login_ms: AtomicU64::new(0),
            signatures_ms: AtomicU64::new(0),
            signature_reads: AtomicUsize::new(0),
            batch_ms: AtomicU64::new(0),
            slow_batches: AtomicUsize::new(0),
            column_reads: AtomicUsize::new(0),
            locked: Mutex::default(),
            dropped: Mutex::default(),
            connects: AtomicUsize::new(0),
            logins: Mutex::default(),
            attempts: AtomicUsize::new(0),
            attentions: AtomicUsize::new(0),
            rollbacks: AtomicUsize::new(0),
            ran: Mutex::default(),
            statements: AtomicUsize::new(0),
            result_sets: Mutex::default(),
            never_described: Mutex::default(),
            described: Mutex::default(),
            connections: AtomicI64::new(0),
            ledger: Mutex::default(),
            audit: database::Audit::default(),
            loses_commits: AtomicBool::new(false),
            refused_commits: Mutex::default(),
            victims: Mutex::default(),
            hang_up: Mutex::default(),
            ids: AtomicI64::new(50),
        });
        let stop = Cancel::new();
        let accepting = Tasks::new().spawn(accept(listener, Arc::clone(&state), stop.clone()));
        Self { address, ca: certs.ca.clone(), state, stop, accepting, _directory: directory }
    }

    /// Stops the server as if its process had died: it closes and refuses connections.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        (&mut self.accepting).await.expect("no panic");
    }

    /// Starts the server again on the same port, with the same state.
    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free again");
        self.stop = Cancel::new();
        let accepting = accept(listener, Arc::clone(&self.state), self.stop.clone());
        self.accepting = Tasks::new().spawn(accepting);
    }
}

impl Drop for FakeSqlServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Reads the objects of all scripts.
fn all_objects() -> Schema {
    let mut schema = Schema::read(schema::SQL);
    for more in [procedures::ONLY_HERE, northwind::SQL] {
        schema.extend(Schema::read(more));
    }
    schema
}

async fn accept(listener: TcpListener, state: Arc<FakeState>, stop: Cancel) {
    let tasks = Tasks::new();
    loop {
        let tcp = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted.expect("a connection").0,
        };
        state.connects.fetch_add(1, Ordering::AcqRel);
        if !state.refuses_connections.load(Ordering::Acquire) {
            let _session = tasks.spawn(serve(tcp, Arc::clone(&state), stop.clone()));
        }
    }
}

async fn serve(tcp: TcpStream, state: Arc<FakeState>, stop: Cancel) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let hang_up = state.hang_up.lock().expect("not poisoned").clone();
    state.connections.fetch_add(1, Ordering::AcqRel);
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = hang_up.cancelled() => Ok(()),
        result = session::serve(tcp, &state) => result,
    };
    state.connections.fetch_sub(1, Ordering::AcqRel);
    result
}
