//! Calls a procedure with an EXEC statement if a remote procedure call cannot pass its arguments.
//!
//! In a remote procedure call, the driver sends most NULLs without a type, and declares an OUTPUT
//! parameter only as wide as its input value. As a result, an `nvarchar(max)` would be truncated,
//! and a `decimal` would overflow. A statement declares variables of the procedure's own types
//! instead. Its text contains only the procedure's name, and the names of parameters and types that
//! were read from the database and checked. Every value is a parameter.

use std::fmt::{self, Write as _};

use tiberius::{ColumnData, Command, Query};

use super::bind::{BoundParameter, BoundValue, TableRow};
use crate::catalogue::ProcedureName;
use crate::catalogue::names::{is_parameter_name, quoted};
use crate::procedures::BackendError;
use crate::procedures::mssql::metadata::{Signature, TableColumn};
use crate::procedures::mssql::types::{self, SqlType};

/// The column with the RETURN status. Its name identifies the result set that the statement adds.
pub(super) const RETURN_COLUMN: &str = "fjord return";

/// The only column of the result set by which the statement reports that a table type was
/// recreated. The statement then ends without calling the procedure.
pub(super) const RECREATED_COLUMN: &str = "fjord recreated";

/// The maximum number of rows in an INSERT with VALUES.
const ROWS_PER_INSERT: usize = 1000;

/// A statement that calls a procedure.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// The statement with the values of its parameters.
    pub(super) request: StatementRequest<'a>,
    /// The OUTPUT parameters, in the order of their columns after the RETURN status.
    pub(super) outputs: Vec<String>,
}

/// The form in which a statement is sent.
#[derive(Debug)]
pub(super) enum StatementRequest<'a> {
    /// A query whose parameters have the types that the driver derives from the values.
    Query(Query<'a>),
    /// A call to `sp_executesql` by name. Only in this form can a parameter be a table.
    Command(Command<'a>),
}

/// The parts of a statement.
#[derive(Debug)]
struct Parts<'a> {
    declared: String,
    arguments: String,
    results: String,
    /// The checks that the types of the tables to be filled have not been recreated.
    checks: String,
    /// The statements that fill variables before the call, each followed by a check of its error.
    inserts: String,
    inserted_tables: usize,
    values: Vec<(&'a SqlType, ColumnData<'a>)>,
    tables: Vec<(&'a str, Vec<TableRow<'a>>)>,
    /// The declarations of the tables as parameters.
    table_declarations: String,
    outputs: Vec<String>,
}

/// Builds the statement for a call.
pub(super) fn statement<'a>(
    (procedure, signature): (&ProcedureName, &Signature),
    bound: Vec<BoundParameter<'a>>,
) -> Result<Statement<'a>, BackendError> {
    let mut parts = Parts {
        declared: String::from("DECLARE @fjord_return int"),
        arguments: String::new(),
        results: format!("SELECT @fjord_return AS [{RETURN_COLUMN}]"),
        checks: String::new(),
        inserts: String::new(),
        inserted_tables: 0,
        values: Vec::new(),
        tables: Vec::new(),
        table_declarations: String::new(),
        outputs: Vec::new(),
    };
    for BoundParameter { parameter, data } in bound {
        let name = &parameter.name;
        if !name.strip_prefix('@').is_some_and(is_parameter_name) {
            let difference = format!("the parameter name {name} cannot be part of a statement");
            return Err(BackendError::mismatch(procedure.as_str(), difference));
        }
        match data {
            BoundValue::Scalar(sql, value) if parameter.is_output => {
                parts.add_output((name, parameter.bare_name()), sql, value);
            }
            BoundValue::Scalar(sql, value) => {
                let passed = parts.add_value(sql, value);
                parts.add_argument(format_args!("{name} = {passed}"));
            }
            BoundValue::InsertedTable { quoted, is_current, columns, rows } => {
                parts.add_check(is_current);
                let variable = parts.add_inserted_table(quoted, columns, rows);
                parts.add_argument(format_args!("{name} = {variable}"));
            }
            BoundValue::Table { quoted, driver_name, rows } => {
                let number = parts.tables.len();
                parts.tables.push((driver_name, rows));
                parts.add_argument(format_args!("{name} = @T{number}"));
                let declaration = format_args!(", @T{number} {quoted} READONLY");
                append(&mut parts.table_declarations, declaration);
            }
        }
    }
    Ok(parts.statement(&signature.quoted))
}

impl<'a> Parts<'a> {
    /// Adds a value as a parameter of the statement. Returns the expression for it.
    fn add_value(&mut self, sql: &'a SqlType, value: ColumnData<'a>) -> String {
        if value == types::null(sql) {
            return "NULL".to_owned();
        }
        self.values.push((sql, types::as_parameter(value)));
        format!("@P{}", self.values.len())
    }

    fn add_argument(&mut self, argument: fmt::Arguments<'_>) {
        let separator = if self.arguments.is_empty() { "" } else { "," };
        append(&mut self.arguments, format_args!("{separator} {argument}"));
    }

    fn add_output(&mut self, (name, bare): (&str, &str), sql: &'a SqlType, value: ColumnData<'a>) {
        let passed = self.add_value(sql, value);
        let variable = format!("@fjord_{}", self.outputs.len());
        self.outputs.push(bare.to_owned());
        let variable_type = sql.variable_type();
        if *sql == SqlType::Json {
            // SQL Server may refuse a text that fjord accepts, for example because it has too many items. Otherwise, it
            // would continue with the call.
            append(&mut self.declared, format_args!(", {variable} {variable_type}"));
            let set =
                format_args!("; SET {variable} = CAST({passed} AS {sql}); IF @@ERROR <> 0 RETURN");
            append(&mut self.inserts, set);
        } else {
            append(&mut self.declared, format_args!(", {variable} {variable_type} = {passed}"));
        }
        // The driver can read neither text in every code page nor `json`.
        match sql.as_nvarchar() {
            Some(wide) => append(&mut self.results, format_args!(", CAST({variable} AS {wide})")),
            None => append(&mut self.results, format_args!(", {variable}")),
        }
        self.add_argument(format_args!("{name} = {variable} OUTPUT"));
    }

    /// Adds a check that ends the batch, before anything else is executed, if the type of a table
    /// was recreated.
    fn add_check(&mut self, is_current: &str) {
        let check = format_args!(
            "IF NOT {is_current} BEGIN SELECT 1 AS [{RECREATED_COLUMN}]; RETURN END; "
        );
        append(&mut self.checks, check);
    }

    /// Declares a variable for a table and inserts the table's rows. Returns the variable.
    fn add_inserted_table(
        &mut self,
        quoted_type: &str,
        columns: &'a [TableColumn],
        rows: Vec<TableRow<'a>>,
    ) -> String {
        let variable = format!("@fjord_table_{}", self.inserted_tables);
        self.inserted_tables += 1;
        append(&mut self.inserts, format_args!("; DECLARE {variable} AS {quoted_type}"));
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let (names, rows_len) = (names.join(", "), rows.len());
        for (index, TableRow(cells)) in rows.into_iter().enumerate() {
            if index % ROWS_PER_INSERT == 0 {
                self.end_insert(index);
                let insert = format_args!("; INSERT INTO {variable} ({names}) VALUES ");
                append(&mut self.inserts, insert);
            } else {
                self.inserts.push_str(", ");
            }
            let mut separator = "(";
            for (TableColumn { sql, .. }, cell) in columns.iter().zip(cells) {
                // The rows of an INSERT are converted to a common type before they are stored.
                let passed = self.add_value(sql, cell);
                let wide = sql.as_nvarchar();
                let wide = wide.as_ref().unwrap_or(sql);
                append(&mut self.inserts, format_args!("{separator}CAST({passed} AS {wide})"));
                separator = ", ";
            }
            self.inserts.push(')');
        }
        self.end_insert(rows_len);
        variable
    }

    /// Adds a check that ends the batch if the preceding INSERT has failed. Otherwise, SQL Server
    /// would continue with the call.
    fn end_insert(&mut self, rows_before: usize) {
        if rows_before > 0 {
            self.inserts.push_str("; IF @@ERROR <> 0 RETURN");
        }
    }

    fn statement(self, procedure: &str) -> Statement<'a> {
        let Self { declared, checks, inserts, arguments, results, values, tables, outputs, .. } =
            self;
        let text = format!(
            "{checks}{declared}{inserts}; EXEC @fjord_return = {procedure}{arguments}; {results};"
        );
        if tables.is_empty() {
            let mut query = Query::new(text);
            for (_, value) in values {
                query.bind(value);
            }
            return Statement { request: StatementRequest::Query(query), outputs };
        }
        let mut declarations = self.table_declarations;
        for (index, (sql, _)) in values.iter().enumerate() {
            let declaration = format_args!(", @P{} {}", index + 1, sql.parameter_type());
            append(&mut declarations, declaration);
        }
        let declarations = declarations.strip_prefix(", ").unwrap_or_default().to_owned();
        let mut command = Command::new("sp_executesql");
        command.bind_param("@stmt", text);
        command.bind_param("@params", declarations);
        for (index, (driver_name, rows)) in tables.into_iter().enumerate() {
            command.bind_table_with_dbtype(format!("@T{index}"), driver_name, rows);
        }
        for (index, (_, value)) in values.into_iter().enumerate() {
            command.bind_param(format!("@P{}", index + 1), value);
        }
        Statement { request: StatementRequest::Command(command), outputs }
    }
}

fn append(into: &mut String, text: fmt::Arguments<'_>) {
    let written = into.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}
