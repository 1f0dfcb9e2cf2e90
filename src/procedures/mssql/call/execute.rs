//! Sends a call on a connection, and streams its answer into the sink.

use futures_util::TryStreamExt;
use tiberius::error::{Error, TokenError};
use tiberius::{Column, Row};

use super::bind::{self, BoundParameter, BoundValue};
use super::statement::{self, RECREATED_COLUMN, RETURN_COLUMN, Statement, StatementRequest};
use crate::catalogue::ProcedureName;
use crate::procedures::mssql::metadata::{Signature, SqlParameterType};
use crate::procedures::mssql::tds::{StreamState, TdsClient};
use crate::procedures::mssql::types::{self, RowDecoder, SqlType};
use crate::procedures::{
    BackendError, ProcedureResult, RowSink, SentError, SentErrorKind, SinkError,
};

/// The error of a call. Its kind determines whether the connection can be kept.
#[derive(Debug)]
pub(super) enum ExecutionError {
    /// The server returned an error, and its answer was read to the end.
    Server(TokenError),
    /// The driver failed, and the connection cannot be used again.
    Driver(Error),
    /// A table type was recreated, so the statement stopped before the call.
    Recreated,
    /// Reading was stopped, and the rest of the answer is still unread.
    Unread(SentError),
}

impl From<Error> for ExecutionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(token) => Self::Server(token),
            error => Self::Driver(error),
        }
    }
}

impl From<SinkError> for ExecutionError {
    fn from(error: SinkError) -> Self {
        Self::Unread(SentErrorKind::from(error).into())
    }
}

impl From<SentError> for ExecutionError {
    fn from(error: SentError) -> Self {
        Self::Unread(error)
    }
}

/// The form in which a call is sent.
#[derive(Debug)]
pub(super) enum RequestForm<'a> {
    /// A remote procedure call.
    Rpc(tiberius::Command<'a>),
    /// A statement that executes the procedure.
    Statement(Statement<'a>),
}

/// Chooses the form of a call. `refuses_untyped_null` is set if the server refuses untyped NULLs.
pub(super) fn form<'a>(
    (procedure, signature): (&ProcedureName, &'a Signature),
    bound: Vec<BoundParameter<'a>>,
    refuses_untyped_null: bool,
) -> Result<RequestForm<'a>, BackendError> {
    let needs_types = bound
        .iter()
        .any(|one| one.needs_statement() || (refuses_untyped_null && one.is_untyped_null()));
    let is_inserted = bound.iter().any(|one| matches!(one.data, BoundValue::InsertedTable { .. }));
    let has_table = bound.iter().any(|one| matches!(one.data, BoundValue::Table { .. }));
    // The servers that refuse untyped NULLs accept a table only in a remote procedure call.
    if is_inserted || (needs_types && !(refuses_untyped_null && has_table)) {
        statement::statement((procedure, signature), bound).map(RequestForm::Statement)
    } else {
        Ok(RequestForm::Rpc(bind::command(signature, bound)))
    }
}

/// The driver's client, and the state of its stream.
pub(super) type CallConnection<'a> = (&'a mut TdsClient, &'a StreamState);

/// Executes a call. If this future is dropped, the connection must be discarded.
pub(super) async fn execute(
    connection: CallConnection<'_>,
    form: RequestForm<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<ProcedureResult, ExecutionError> {
    match form {
        RequestForm::Rpc(command) => execute_rpc(connection, command, signature, rows).await,
        RequestForm::Statement(statement) => {
            // The future is boxed, because few calls are sent as statements.
            Box::pin(execute_statement(connection, statement, signature, rows)).await
        }
    }
}

async fn execute_rpc(
    (client, state): CallConnection<'_>,
    command: tiberius::Command<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<ProcedureResult, ExecutionError> {
    let mut result = ProcedureResult::default();
    let mut decoder = RowDecoder::default();
    // The driver's future is boxed, because it has several kilobytes and each future around it would be larger.
    let mut stream = Box::pin(command.exec(client)).await?;
    while let Some(item) = stream.try_next().await? {
        if let Some(row) = item.as_row() {
            decoder.decode(row, |cells| rows.row(cells).map_err(ExecutionError::from))?;
            if rows.is_full() {
                rows.drain().await?;
            }
        } else if let Some(set) = item.as_metadata() {
            decoder.begin_set(state.take_utf8_columns(set.result_index()));
            rows.begin_set(&column_names(set.columns()))?;
        } else if let Some(status) = item.as_return_status() {
            // The status is signed (MS-TDS 2.2.7.18), but the driver returns it as unsigned.
            result.return_status = status.cast_signed();
        } else if let Some(value) = item.as_return_value() {
            let name = value.name().trim_start_matches('@');
            let cell = types::owned(name, value.data(), scalar_type(signature, name))?;
            result.outputs.push((name.to_owned(), cell));
        }
    }
    Ok(result)
}

async fn execute_statement(
    (client, state): CallConnection<'_>,
    statement: Statement<'_>,
    signature: &Signature,
    rows: &mut dyn RowSink,
) -> Result<ProcedureResult, ExecutionError> {
    let Statement { request, outputs } = statement;
    let mut reader = StatementReader {
        state,
        signature,
        outputs: &outputs,
        result: ProcedureResult::default(),
        decoder: RowDecoder::default(),
        is_added: false,
        is_recreated: false,
    };
    match request {
        StatementRequest::Query(query) => {
            let mut stream = query.query(client).await?;
            while let Some(item) = stream.try_next().await? {
                if let Some(set) = item.as_metadata() {
                    reader.begin_set((set.columns(), set.result_index()), rows)?;
                } else if let Some(row) = item.as_row() {
                    reader.row(row, rows).await?;
                }
            }
        }
        StatementRequest::Command(command) => {
            let mut stream = command.exec(client).await?;
            while let Some(item) = stream.try_next().await? {
                // A RETURN status here is that of `sp_executesql`, and is ignored.
                if let Some(set) = item.as_metadata() {
                    reader.begin_set((set.columns(), set.result_index()), rows)?;
                } else if let Some(row) = item.as_row() {
                    reader.row(row, rows).await?;
                }
            }
        }
    }
    if reader.is_recreated { Err(ExecutionError::Recreated) } else { Ok(reader.result) }
}

/// Reads the answer to a statement.
#[derive(Debug)]
struct StatementReader<'a> {
    state: &'a StreamState,
    signature: &'a Signature,
    outputs: &'a [String],
    result: ProcedureResult,
    decoder: RowDecoder,
    /// Whether the current result set is the one that the statement adds.
    is_added: bool,
    /// Whether a table type was recreated.
    is_recreated: bool,
}

impl StatementReader<'_> {
    fn begin_set(
        &mut self,
        (columns, index): (&[Column], usize),
        rows: &mut dyn RowSink,
    ) -> Result<(), ExecutionError> {
        self.decoder.begin_set(self.state.take_utf8_columns(index));
        if matches!(columns, [only] if only.name() == RECREATED_COLUMN) {
            self.is_recreated = true;
            return Ok(());
        }
        self.is_added = columns.first().is_some_and(|one| one.name() == RETURN_COLUMN)
            && columns.len() == self.outputs.len() + 1;
        if !self.is_added {
            rows.begin_set(&column_names(columns))?;
        }
        Ok(())
    }

    async fn row(&mut self, row: &Row, rows: &mut dyn RowSink) -> Result<(), ExecutionError> {
        if self.is_recreated {
            return Ok(());
        }
        if self.is_added {
            return read_results(row, self.outputs, self.signature, &mut self.result);
        }
        self.decoder.decode(row, |cells| rows.row(cells).map_err(ExecutionError::from))?;
        if rows.is_full() {
            rows.drain().await?;
        }
        Ok(())
    }
}

/// Reads the result set that the statement adds: the RETURN status, then the OUTPUT parameters.
fn read_results(
    row: &Row,
    outputs: &[String],
    signature: &Signature,
    result: &mut ProcedureResult,
) -> Result<(), ExecutionError> {
    let mut values = row.cells().map(|(_, value)| value);
    if let Some(tiberius::ColumnData::I32(Some(status))) = values.next() {
        result.return_status = *status;
    }
    for (name, value) in outputs.iter().zip(values) {
        let cell = types::owned(name, value, scalar_type(signature, name))?;
        result.outputs.push((name.clone(), cell));
    }
    Ok(())
}

fn scalar_type<'a>(signature: &'a Signature, name: &str) -> Option<&'a SqlType> {
    match &signature.parameter(name)?.declared {
        SqlParameterType::Scalar(sql) => Some(sql),
        SqlParameterType::Table { .. } => None,
    }
}

fn column_names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name().to_owned()).collect()
}
