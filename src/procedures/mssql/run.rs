//! One call on one connection: sent, and its answer read token by token into the sink.

use futures_util::TryStreamExt;
use tiberius::error::{Error, TokenError};
use tiberius::{Column, Row};

use super::bind::{self, Bound};
use super::connect::Client;
use super::signature::Kind;
use super::signature::Signature;
use super::statement::{self, RETURN_COLUMN, Statement};
use super::types::{self, Cells, SqlType};
use crate::catalogue::ProcedureName;
use crate::procedures::{BackendError, Outcome, RowSink, SentError, SentErrorKind, SinkError};

/// Why a call has no outcome, by what it means for the connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered with an error; its answer was read to the end.
    Server(TokenError),
    /// The driver failed; the connection is of no more use.
    Driver(Error),
    /// We stopped reading; the rest of the answer is still to come.
    Ours(SentError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(token) => Self::Server(token),
            error => Self::Driver(error),
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Ours(SentErrorKind::from(error).into())
    }
}

impl From<SentError> for Failure {
    fn from(error: SentError) -> Self {
        Self::Ours(error)
    }
}

/// How a call goes out.
#[derive(Debug)]
pub(super) enum Form<'a> {
    /// As a remote procedure call.
    Rpc(tiberius::Command<'a>),
    /// As a statement.
    Statement(Statement<'a>),
}

/// Chooses the form of a call. `refuses_untyped_null` is whether this server was seen to.
pub(super) fn form<'a>(
    procedure: &ProcedureName,
    bound: Vec<Bound<'a>>,
    refuses_untyped_null: bool,
) -> Result<Form<'a>, BackendError> {
    let needs_types = bound
        .iter()
        .any(|one| one.is_narrow_output() || (refuses_untyped_null && one.is_untyped_null()));
    if needs_types && statement::can_pass(&bound) {
        statement::statement(procedure, bound).map(Form::Statement)
    } else {
        Ok(Form::Rpc(bind::command(procedure, bound)))
    }
}

/// Runs a call. Not safe to drop: the connection is of no more use then.
pub(super) async fn run(
    client: &mut Client,
    form: Form<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<Outcome, Failure> {
    match form {
        Form::Rpc(command) => run_command(client, command, signature, rows).await,
        Form::Statement(statement) => run_statement(client, statement, signature, rows).await,
    }
}

async fn run_command(
    client: &mut Client,
    command: tiberius::Command<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut cells = Cells::default();
    let mut stream = command.exec(client).await?;
    while let Some(item) = stream.try_next().await? {
        if let Some(row) = item.as_row() {
            cells.of(row, |cells| rows.row(cells).map_err(Failure::from))?;
            if rows.is_full() {
                rows.drain().await?;
            }
        } else if let Some(set) = item.as_metadata() {
            rows.begin_set(&names(set.columns()))?;
        } else if let Some(status) = item.as_return_status() {
            // The wire's 32 bits are signed (MS-TDS 2.2.7.18); the driver takes them as unsigned.
            outcome.return_status = status.cast_signed();
        } else if let Some(value) = item.as_return_value() {
            let name = value.name().trim_start_matches('@');
            let sql = declared(signature, name);
            let cell = types::owned_as_declared(name, value.data(), sql)?;
            outcome.outputs.push((name.to_owned(), cell));
        }
    }
    Ok(outcome)
}

async fn run_statement(
    client: &mut Client,
    statement: Statement<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut cells = Cells::default();
    let mut is_ours = false;
    let mut stream = statement.query.query(client).await?;
    while let Some(item) = stream.try_next().await? {
        if let Some(set) = item.as_metadata() {
            is_ours = set.columns().first().is_some_and(|one| one.name() == RETURN_COLUMN)
                && set.columns().len() == statement.outputs.len() + 1;
            if !is_ours {
                rows.begin_set(&names(set.columns()))?;
            }
        } else if let Some(row) = item.as_row() {
            if is_ours {
                read_results(row, &statement.outputs, signature, &mut outcome)?;
            } else {
                cells.of(row, |cells| rows.row(cells).map_err(Failure::from))?;
                if rows.is_full() {
                    rows.drain().await?;
                }
            }
        }
    }
    Ok(outcome)
}

/// Reads the statement's last set: the RETURN status, then the OUTPUT parameters.
fn read_results(
    row: &Row,
    outputs: &[String],
    signature: &Signature,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut values = row.cells().map(|(_, value)| value);
    if let Some(tiberius::ColumnData::I32(Some(status))) = values.next() {
        outcome.return_status = *status;
    }
    for (name, value) in outputs.iter().zip(values) {
        let cell = types::owned(name, value, declared(signature, name))?;
        outcome.outputs.push((name.clone(), cell));
    }
    Ok(())
}

fn declared<'a>(signature: &'a Signature, name: &str) -> Option<&'a SqlType> {
    match &signature.parameter(name)?.kind {
        Kind::Scalar(sql) => Some(sql),
        Kind::Table { .. } => None,
    }
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name().to_owned()).collect()
}
