//! A small TDS server on loopback: what SQL Server says over the wire, and what it only says on a bad day.
//!
//! It stands on `tds-protocol` for packets, PRELOGIN, types and DONE tokens. What it answers is right only because the
//! same tests pass on a real server (`FJORD_TEST_MSSQL`).

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

mod collations;
mod database;
mod metadata;
mod procedures;
mod reply;
mod request;
pub(crate) mod schema;
mod session;
mod stream;
mod values;

use collations::Collation;
use request::{Given, Login};
use schema::{Declaration, Schema};
use values::Declared;

/// The password that the endpoint believes.
pub(crate) const PASSWORD: &str = "a secret of the endpoint";

/// A running endpoint; it ends with its value.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whose certificate it shows.
    pub(crate) ca: PathBuf,
    /// What it does and what it has seen.
    pub(crate) state: Arc<State>,
    stop: Cancel,
    accepting: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// What an endpoint does, to be changed while it runs, and what it has seen.
#[derive(Debug)]
pub(crate) struct State {
    schema: Schema,
    tls: Arc<rustls::ServerConfig>,
    /// The level that it answers PRELOGIN with.
    pub(crate) encryption: Mutex<EncryptionLevel>,
    /// Logins fail with this error, unless it is 0.
    pub(crate) login_error: AtomicU32,
    /// Logins that only read are refused: the replica is away.
    pub(crate) refuses_readers: AtomicBool,
    /// Whereto logins are sent.
    pub(crate) redirect: Mutex<Option<SocketAddr>>,
    /// It has no `sys.parameters`, as Babelfish.
    pub(crate) lacks_parameters_view: AtomicBool,
    /// It says that it is Babelfish.
    pub(crate) is_babelfish: AtomicBool,
    /// The code page of the database's collation.
    pub(crate) code_page: AtomicI64,
    /// Table types that were made anew under their names, the last one last.
    remade: Mutex<Vec<(String, Vec<Declaration>)>>,
    /// A table type and its columns: it is made anew when the driver has asked for those that it had.
    pub(crate) remade_late: Mutex<Option<(&'static str, &'static str)>>,
    /// The question what it is fails with this error, unless it is 0.
    pub(crate) facts_error: AtomicU32,
    /// It takes no untyped NULL, as Babelfish.
    pub(crate) refuses_untyped_null: AtomicBool,
    /// The procedure `changed` has been replaced.
    pub(crate) is_changed: AtomicBool,
    /// The error of a call that does not fit the new one.
    pub(crate) changed_error: AtomicU32,
    /// New connections are closed at once.
    pub(crate) is_away: AtomicBool,
    /// With the connection that the procedure `drops` ends the server goes away.
    pub(crate) drops_and_leaves: AtomicBool,
    /// So many logins are accepted, and then the connection is closed.
    pub(crate) closes_after_login: AtomicUsize,
    /// How long a login takes, in milliseconds.
    pub(crate) login_ms: AtomicU64,
    /// How long a question about signatures takes, in milliseconds.
    pub(crate) signatures_ms: AtomicU64,
    /// Questions about signatures so far.
    pub(crate) signature_reads: AtomicUsize,
    /// How long a batch that begins a transaction, rolls one back or asks for columns takes, in milliseconds, and how many have.
    pub(crate) batch_ms: AtomicU64,
    pub(crate) slow_batches: AtomicUsize,
    /// Questions about a table type's columns so far, of the driver's.
    pub(crate) column_reads: AtomicUsize,
    /// Procedures that somebody alters in an open transaction: whoever asks for them waits.
    pub(crate) locked: Mutex<Vec<String>>,
    /// Procedures that were dropped.
    pub(crate) dropped: Mutex<Vec<String>>,
    /// Connections so far, those that were closed at once included.
    pub(crate) connects: AtomicUsize,
    /// Every login so far.
    pub(crate) logins: Mutex<Vec<Login>>,
    /// Attempts to log in, accepted or not.
    pub(crate) attempts: AtomicUsize,
    /// Cancels received.
    pub(crate) attentions: AtomicUsize,
    /// Transactions rolled back by a statement of their own.
    pub(crate) rollbacks: AtomicUsize,
    /// Names of the procedures that ran.
    pub(crate) ran: Mutex<Vec<String>>,
    /// Statements instead of remote procedure calls.
    pub(crate) statements: AtomicUsize,
    /// Open sessions.
    pub(crate) sessions: AtomicI64,
    /// Request ids that `ledger.write` was called with: from its start an execution counts.
    pub(crate) ledger: Mutex<Vec<String>>,
    /// What was committed to the audit table.
    pub(crate) audit: database::Audit,
    /// A commit ends the connection instead.
    pub(crate) loses_commits: AtomicBool,
    victims: Mutex<HashMap<String, i64>>,
    /// Given to end every open connection.
    hang_up: Mutex<Cancel>,
    ids: AtomicI64,
}

impl State {
    fn parameter(&self, procedure: &str, name: &str) -> Declared {
        let parameters = self.schema.procedure(procedure).expect("a procedure");
        let found = parameters.iter().find(|one| one.name == name).expect("a parameter");
        let page = self.code_page.load(Ordering::Acquire);
        let collation = found.declared.collation.or(Some(Collation::for_page(page)));
        Declared { collation, ..found.declared.clone() }
    }

    /// Makes a table type of the suite anew, with other columns.
    pub(crate) fn remake(&self, table_type: &str, columns: &str) {
        let one = (format!("fjord_test.{table_type}"), schema::declarations(columns));
        self.remade.lock().expect("not poisoned").push(one);
    }

    /// The columns of a table type as they are now.
    fn columns(&self, table_type: &str) -> Vec<Declaration> {
        let remade = self.remade.lock().expect("not poisoned");
        let mut all = remade.iter().rev().chain(&self.schema.table_types);
        let found = all.find(|(one, _)| one == table_type);
        found.unwrap_or_else(|| panic!("no table type {table_type}")).1.clone()
    }

    /// The id of the table type that has this name now, if one has.
    fn type_id(&self, table_type: &str) -> Option<i64> {
        let remade = self.remade.lock().expect("not poisoned");
        let place =
            |all: &[(String, Vec<Declaration>)]| all.iter().rposition(|(one, _)| one == table_type);
        let place = match place(&remade) {
            Some(place) => place + self.schema.table_types.len(),
            None => place(&self.schema.table_types)?,
        };
        Some(1000 + i64::try_from(place).expect("few"))
    }

    /// Its name and the id of its object.
    fn table_type(&self, type_id: i64) -> Option<(&str, i64)> {
        let mut names = self.schema.table_types.iter().map(|(name, _)| name.as_str());
        let name = names.find(|name| self.type_id(name) == Some(type_id))?;
        Some((name, type_id + 100_000))
    }

    /// What becomes of arguments in the types of a procedure's parameters.
    fn stored(&self, procedure: &str, given: Vec<Given>) -> Vec<Given> {
        let parameters = self.schema.procedure(procedure).expect("a procedure");
        let one = |given: Given| {
            // One that was replaced takes other names.
            if !parameters.iter().any(|one| one.name == given.name) {
                return given;
            }
            let value = self.parameter(procedure, &given.name).store(given.value);
            Given { value, ..given }
        };
        given.into_iter().map(one).collect()
    }

    /// How often a procedure ran.
    pub(crate) fn runs(&self, procedure: &str) -> usize {
        self.ran.lock().expect("not poisoned").iter().filter(|one| *one == procedure).count()
    }

    /// Logins that succeeded so far.
    pub(crate) fn logins(&self) -> usize {
        self.logins.lock().expect("not poisoned").len()
    }

    /// Ends every open connection.
    pub(crate) fn hang_up(&self) {
        std::mem::take(&mut *self.hang_up.lock().expect("not poisoned")).cancel();
    }
}

impl Endpoint {
    /// Starts an endpoint on any free port.
    pub(crate) async fn start() -> Self {
        Self::start_on(0).await
    }

    /// Starts an endpoint on this port.
    pub(crate) async fn start_on(port: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let certs = Certs::new(directory.path());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut schema = Schema::read(schema::SQL);
        let ours = Schema::read(procedures::ONLY_HERE);
        schema.procedures.extend(ours.procedures);
        schema.table_types.extend(ours.table_types);
        let state = Arc::new(State {
            schema,
            // SQL Server speaks TLS 1.2 where TLS is agreed upon inside of TDS.
            tls: Arc::new(certs.server_tls(&[&rustls::version::TLS12])),
            encryption: Mutex::new(EncryptionLevel::On),
            login_error: AtomicU32::new(0),
            refuses_readers: AtomicBool::new(false),
            redirect: Mutex::default(),
            lacks_parameters_view: AtomicBool::new(false),
            is_babelfish: AtomicBool::new(false),
            code_page: AtomicI64::new(1252),
            remade: Mutex::default(),
            remade_late: Mutex::default(),
            facts_error: AtomicU32::new(0),
            refuses_untyped_null: AtomicBool::new(false),
            is_changed: AtomicBool::new(false),
            changed_error: AtomicU32::new(8145),
            is_away: AtomicBool::new(false),
            drops_and_leaves: AtomicBool::new(false),
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
            sessions: AtomicI64::new(0),
            ledger: Mutex::default(),
            audit: database::Audit::default(),
            loses_commits: AtomicBool::new(false),
            victims: Mutex::default(),
            hang_up: Mutex::default(),
            ids: AtomicI64::new(50),
        });
        let stop = Cancel::new();
        let accepting = Tasks::new().spawn(accept(listener, Arc::clone(&state), stop.clone()));
        Self { address, ca: certs.ca.clone(), state, stop, accepting, _directory: directory }
    }

    /// Ends it, as when the server's process dies: every connection breaks, and its port refuses new ones.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        (&mut self.accepting).await.expect("no panic");
    }

    /// Starts it again on its port, with what it has seen.
    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port");
        self.stop = Cancel::new();
        let accepting = accept(listener, Arc::clone(&self.state), self.stop.clone());
        self.accepting = Tasks::new().spawn(accepting);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: Cancel) {
    let tasks = Tasks::new();
    loop {
        let tcp = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted.expect("a connection").0,
        };
        state.connects.fetch_add(1, Ordering::AcqRel);
        if !state.is_away.load(Ordering::Acquire) {
            let _session = tasks.spawn(serve(tcp, Arc::clone(&state), stop.clone()));
        }
    }
}

async fn serve(tcp: TcpStream, state: Arc<State>, stop: Cancel) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let hang_up = state.hang_up.lock().expect("not poisoned").clone();
    state.sessions.fetch_add(1, Ordering::AcqRel);
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = hang_up.cancelled() => Ok(()),
        result = session::serve(tcp, &state) => result,
    };
    state.sessions.fetch_sub(1, Ordering::AcqRel);
    result
}
