//! Promise: a SQL Server procedure receives exactly the values that the caller sent, and the caller
//! receives exactly its results, for every type. No connection keeps the state of an earlier call.
//!
//! The suite runs on the fake server, and also on a real server if `FJORD_TEST_MSSQL` names one.
//! Tests for faults that a real server cannot produce on demand run only on the fake server.

use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, ProcedureName, QueueName};
use fjord::future::BoxFuture;
use fjord::lifecycle::Cancel;
use fjord::procedures::{
    Argument, Backend, BackendError, BackendErrorKind, Call, CallError, Cell, DatabaseError,
    ExpectedProcedure, OwnedCell, ProcedureResult, RowSink, SentErrorKind, SessionContext,
    SinkError, Transaction, mssql,
};
use tokio::time::Instant;

use crate::support::mssql_server::SqlServer;

mod access_tokens;
mod at_most_once;
mod cancels;
mod claims;
mod code_pages;
mod connections;
mod embedded;
mod errors;
mod faults;
mod inserted_tables;
mod limits;
mod logins;
mod named_instances;
mod names;
mod pools;
mod recreated_types;
mod results;
mod session_context;
mod signatures;
mod strict_encryption;
mod types;
mod utf8_results;

/// The time limit of calls that must not time out.
const LONG: Duration = Duration::from_secs(20);

/// The complete result of a call.
#[derive(Debug, Default)]
struct CallAnswer {
    sets: Vec<Vec<Vec<OwnedCell>>>,
    columns: Vec<Vec<String>>,
    result: ProcedureResult,
    restarts: usize,
    /// The origin and the text of each message that the procedure sent.
    messages: Vec<String>,
    rows_max: Option<usize>,
}

impl RowSink for CallAnswer {
    fn begin_set(&mut self, columns: &[String]) -> Result<(), SinkError> {
        self.columns.push(columns.to_vec());
        self.sets.push(Vec::new());
        Ok(())
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), SinkError> {
        let set = self.sets.last_mut().expect("a set before its rows");
        if self.rows_max.is_some_and(|most| set.len() >= most) {
            return Err(SinkError::TooLarge);
        }
        set.push(cells.iter().map(|cell| owned_cell(*cell)).collect());
        Ok(())
    }

    fn restart(&mut self) -> bool {
        self.sets.clear();
        self.columns.clear();
        self.restarts += 1;
        true
    }

    fn add_message(&mut self, message: &DatabaseError) {
        self.messages.push(format!("{message}: {}", message.message()));
    }

    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl CallAnswer {
    /// Returns the cell if there is only one result set with one row and one column.
    fn cell(&self) -> &OwnedCell {
        match self.sets.as_slice() {
            [rows] => match rows.as_slice() {
                [row] => match row.as_slice() {
                    [cell] => cell,
                    _ => panic!("{row:?}"),
                },
                _ => panic!("{rows:?}"),
            },
            sets => panic!("{sets:?}"),
        }
    }

    fn output(&self, name: &str) -> &OwnedCell {
        let found = self.result.outputs.iter().find(|(one, _)| one == name);
        &found.unwrap_or_else(|| panic!("no output {name} in {:?}", self.result)).1
    }
}

fn owned_cell(cell: Cell<'_>) -> OwnedCell {
    match cell {
        Cell::Null => OwnedCell::Null,
        Cell::Bool(bit) => OwnedCell::Bool(bit),
        Cell::Int(number) => OwnedCell::Int(number),
        Cell::Float(number) => OwnedCell::Float(number),
        Cell::Number(text) => OwnedCell::Number(text.to_owned()),
        Cell::Text(text) => OwnedCell::Text(text.to_owned()),
        Cell::Json(text) => OwnedCell::Json(text.to_owned()),
        Cell::Binary(bytes) => OwnedCell::Binary(bytes.to_owned()),
    }
}

/// Calls procedures through a backend on behalf of a queue.
#[derive(Clone, Debug)]
struct ProcedureCaller {
    backend: Arc<dyn Backend>,
    queue: QueueName,
    may_repeat: bool,
    transaction: Transaction,
    /// The caller's name, and further values for the session context.
    principal: Option<&'static str>,
    session_values: Vec<Argument>,
}

impl ProcedureCaller {
    fn new(server: &SqlServer) -> Self {
        let backend = mssql::connect(&server.config, "default").expect("a backend");
        Self {
            backend,
            queue: QueueName::new("suite").expect("a name"),
            may_repeat: false,
            transaction: Transaction::None,
            principal: None,
            session_values: Vec::new(),
        }
    }

    fn session(&self) -> SessionContext<'_> {
        SessionContext {
            request_id: Some("request-1"),
            trace_id: None,
            endpoint: Some("suite"),
            principal: self.principal,
            values: &self.session_values,
        }
    }

    fn with_queue(&self, name: &str) -> Self {
        Self { queue: QueueName::new(name).expect("a name"), ..self.clone() }
    }

    async fn call(&self, procedure: &str, arguments: &[Argument]) -> Result<CallAnswer, CallError> {
        self.call_within(LONG, &Cancel::new(), procedure, arguments).await
    }

    /// Verifies one procedure.
    async fn verify(&self, expected: ExpectedProcedure) -> Result<(), BackendError> {
        self.verify_all(&[expected]).await.pop().expect("a result").1
    }

    /// Verifies procedures. Returns the index and result of each, in the order of completion.
    async fn verify_all(
        &self,
        expected: &[ExpectedProcedure],
    ) -> Vec<(usize, Result<(), BackendError>)> {
        let mut all = Vec::new();
        self.backend.verify(expected, &mut |index, result| all.push((index, result))).await;
        all
    }

    async fn call_within(
        &self,
        time: Duration,
        cancel: &Cancel,
        procedure: &str,
        arguments: &[Argument],
    ) -> Result<CallAnswer, CallError> {
        let mut answer = CallAnswer::default();
        answer.result = self.call_into(&mut answer, time, cancel, (procedure, arguments)).await?;
        Ok(answer)
    }

    async fn call_into(
        &self,
        answer: &mut CallAnswer,
        time: Duration,
        cancel: &Cancel,
        (procedure, arguments): (&str, &[Argument]),
    ) -> Result<ProcedureResult, CallError> {
        let procedure = name(procedure);
        let deadline = Instant::now() + time;
        let (may_repeat, transaction) = (self.may_repeat, self.transaction);
        let (queue, procedure) = (&self.queue, &procedure);
        let session = self.session();
        let call = Call { queue, procedure, arguments, session, deadline, may_repeat, transaction };
        self.backend.call(call, answer, cancel).await
    }
}

/// Returns the qualified name of one of the suite's procedures.
fn name(procedure: &str) -> ProcedureName {
    ProcedureName::new(&format!("fjord_test.{procedure}")).expect("a name")
}

fn given(name: &str, value: ParameterValue<'static>) -> Argument {
    Argument {
        name: name.into(),
        kind: ParameterType::String,
        value,
        columns: Arc::new([]),
        table_type: None,
    }
}

fn int(name: &str, number: i64) -> Argument {
    given(name, ParameterValue::Integer(number))
}

fn text(name: &str, text: &str) -> Argument {
    given(name, ParameterValue::Text(text.to_owned().into()))
}

/// Returns the error for a call that was sent.
#[track_caller]
fn sent_error(result: Result<CallAnswer, CallError>) -> SentErrorKind {
    match result {
        Err(CallError::Sent(error)) => error.kind,
        other => panic!("expected an error of a call that was sent, got {other:?}"),
    }
}

/// Returns the error for a call that was not sent.
#[track_caller]
fn unsent_error(result: Result<CallAnswer, CallError>) -> BackendErrorKind {
    match result {
        Err(CallError::NotSent(error)) => error.kind,
        other => panic!("expected an error before anything was sent, got {other:?}"),
    }
}
