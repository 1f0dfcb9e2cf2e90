//! Promise: a stored procedure of SQL Server is called with what the caller sent, and what it answers comes back:
//! every type, every outcome, no connection left dirty.
//!
//! One suite, two servers: each test runs against the TDS endpoint of the tests, and against a real server where
//! `FJORD_TEST_MSSQL` names one. `faults` has what no real server does on demand.

use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, ProcedureName, QueueName};
use fjord::future::BoxFuture;
use fjord::lifecycle::Cancel;
use fjord::procedures::{
    Argument, Backend, BackendError, BackendErrorKind, Call, CallError, Cell, Need, Outcome,
    OwnedCell, RowSink, SentErrorKind, SinkError, Transaction, mssql,
};
use tokio::time::Instant;

use crate::support::mssql_server::Server;

mod cancels;
mod code_pages;
mod connections;
mod faults;
mod once;
mod outcomes;
mod pools;
mod remade_types;
mod types;

/// Long enough for every call that is not meant to run out of time.
const LONG: Duration = Duration::from_secs(20);

/// Everything that a call answered.
#[derive(Debug, Default)]
struct Answer {
    sets: Vec<Vec<Vec<OwnedCell>>>,
    columns: Vec<Vec<String>>,
    outcome: Outcome,
    restarts: usize,
    rows_max: Option<usize>,
}

impl RowSink for Answer {
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
        set.push(cells.iter().map(|cell| own(*cell)).collect());
        Ok(())
    }

    fn restart(&mut self) -> bool {
        self.sets.clear();
        self.columns.clear();
        self.restarts += 1;
        true
    }

    fn drain(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Answer {
    /// The only cell of the only row of the only set.
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
        let found = self.outcome.outputs.iter().find(|(one, _)| one == name);
        &found.unwrap_or_else(|| panic!("no output {name} in {:?}", self.outcome)).1
    }
}

fn own(cell: Cell<'_>) -> OwnedCell {
    match cell {
        Cell::Null => OwnedCell::Null,
        Cell::Bool(bit) => OwnedCell::Bool(bit),
        Cell::Int(number) => OwnedCell::Int(number),
        Cell::Float(number) => OwnedCell::Float(number),
        Cell::Number(text) => OwnedCell::Number(text.to_owned()),
        Cell::Text(text) => OwnedCell::Text(text.to_owned()),
        Cell::Binary(bytes) => OwnedCell::Binary(bytes.to_owned()),
    }
}

/// A backend of a server, and a queue that calls.
#[derive(Clone, Debug)]
struct Caller {
    backend: Arc<dyn Backend>,
    queue: QueueName,
    may_repeat: bool,
    transaction: Transaction,
}

impl Caller {
    fn of(server: &Server) -> Self {
        let backend = mssql::connect(&server.config, "default").expect("a backend");
        Self {
            backend,
            queue: QueueName::new("suite").expect("a name"),
            may_repeat: false,
            transaction: Transaction::None,
        }
    }

    fn with_queue(&self, name: &str) -> Self {
        Self { queue: QueueName::new(name).expect("a name"), ..self.clone() }
    }

    async fn call(&self, procedure: &str, arguments: &[Argument]) -> Result<Answer, CallError> {
        self.call_within(LONG, &Cancel::new(), procedure, arguments).await
    }

    /// Whether one need is met.
    async fn verify(&self, need: Need) -> Result<(), BackendError> {
        self.verify_all(&[need]).await.pop().expect("it was looked at").1
    }

    /// Whether needs are met, as it was found: the place of each, and its result.
    async fn verify_all(&self, needs: &[Need]) -> Vec<(usize, Result<(), BackendError>)> {
        let mut all = Vec::new();
        self.backend.verify(needs, &mut |place, found| all.push((place, found))).await;
        all
    }

    async fn call_within(
        &self,
        time: Duration,
        cancel: &Cancel,
        procedure: &str,
        arguments: &[Argument],
    ) -> Result<Answer, CallError> {
        let mut answer = Answer::default();
        answer.outcome = self.call_into(&mut answer, time, cancel, (procedure, arguments)).await?;
        Ok(answer)
    }

    async fn call_into(
        &self,
        answer: &mut Answer,
        time: Duration,
        cancel: &Cancel,
        (procedure, arguments): (&str, &[Argument]),
    ) -> Result<Outcome, CallError> {
        let procedure = name(procedure);
        let deadline = Instant::now() + time;
        let (may_repeat, transaction) = (self.may_repeat, self.transaction);
        let (queue, procedure) = (&self.queue, &procedure);
        let call = Call { queue, procedure, arguments, deadline, may_repeat, transaction };
        self.backend.call(call, answer, cancel).await
    }
}

/// A procedure of the suite.
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

/// The error of a call that was sent.
#[track_caller]
fn kind(result: Result<Answer, CallError>) -> SentErrorKind {
    match result {
        Err(CallError::Sent(error)) => error.kind,
        other => panic!("expected an error of a call that was sent, got {other:?}"),
    }
}

/// The error of a call of which nothing was sent.
#[track_caller]
fn unsent(result: Result<Answer, CallError>) -> BackendErrorKind {
    match result {
        Err(CallError::NotSent(error)) => error.kind,
        other => panic!("expected an error before anything was sent, got {other:?}"),
    }
}
