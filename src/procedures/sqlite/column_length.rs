//! Refuses text that is longer than its column, as SQL Server does. `SQLite` ignores lengths.
//!
//! Temporary triggers check the columns. Because the triggers are not stored in the file, other
//! programs can use it.

use std::collections::BTreeMap;
use std::panic::UnwindSafe;

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

/// Selects the columns of all tables that can have triggers.
const COLUMNS: &str = "SELECT t.name, c.name, c.type FROM sqlite_schema AS t, \
     pragma_table_info(t.name) AS c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
     AND t.sql NOT LIKE 'CREATE VIRTUAL%'";

/// The columns of a table that have a length.
type CheckedColumns = Vec<(String, usize)>;

/// Checks the columns with a declared length, such as `NVARCHAR(100)`, whenever a row is written.
/// Calls `refuse` when text is too long, before the statement fails.
pub(super) fn check(
    connection: &Connection,
    refuse: impl Fn() + Send + UnwindSafe + 'static,
) -> rusqlite::Result<()> {
    connection.create_scalar_function(
        "fjord_check_length",
        2,
        FunctionFlags::SQLITE_UTF8,
        move |context| check_length(&refuse, context),
    )?;
    let mut tables: BTreeMap<String, CheckedColumns> = BTreeMap::new();
    let mut columns = connection.prepare(COLUMNS)?;
    let mut rows = columns.query([])?;
    while let Some(row) = rows.next()? {
        let declared: String = row.get(2)?;
        if let Some(length) = text_length(&declared) {
            tables.entry(row.get(0)?).or_default().push((row.get(1)?, length));
        }
    }
    for (index, (table, columns)) in tables.iter().enumerate() {
        connection.execute_batch(&triggers(index, table, columns))?;
    }
    Ok(())
}

/// Returns the statements that create the triggers of a table.
fn triggers(index: usize, table: &str, columns: &CheckedColumns) -> String {
    let list = |one: &dyn Fn(&(String, usize)) -> String| -> String {
        columns.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let names = list(&|(name, _)| quoted(name));
    let checks =
        list(&|(name, length)| format!("fjord_check_length(NEW.{}, {length})", quoted(name)));
    let table = quoted(table);
    format!(
        "CREATE TEMP TRIGGER fjord_insert_{index} BEFORE INSERT ON main.{table} \
           BEGIN SELECT {checks}; END; \
         CREATE TEMP TRIGGER fjord_update_{index} BEFORE UPDATE OF {names} ON main.{table} \
           BEGIN SELECT {checks}; END;"
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the length of a declared text type in UTF-16 code units.
fn text_length(declared: &str) -> Option<usize> {
    let (kind, arguments) = declared.split_once('(')?;
    let kind = kind.trim().to_ascii_lowercase();
    let is_text = matches!(kind.as_str(), "char" | "varchar" | "nchar" | "nvarchar");
    let (length, _) = arguments.split_once(')')?;
    length.trim().parse().ok().filter(|_| is_text)
}

/// Fails if text is too long. As on SQL Server, blanks at its end do not count.
fn check_length(refuse: &dyn Fn(), context: &Context<'_>) -> rusqlite::Result<bool> {
    let length: i64 = context.get(1)?;
    let ValueRef::Text(bytes) = context.get_raw(0) else { return Ok(true) };
    let text = String::from_utf8_lossy(bytes);
    let units = text.trim_end_matches(' ').encode_utf16().count();
    if i64::try_from(units).is_ok_and(|units| units <= length) {
        return Ok(true);
    }
    refuse();
    Err(rusqlite::Error::UserFunctionError("text would be truncated".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_with_a_length_is_checked() {
        for (declared, length) in [
            ("NVARCHAR(100)", Some(100)),
            ("varchar ( 5 )", Some(5)),
            ("CHAR(2)", Some(2)),
            ("VARCHAR(max)", None),
            ("VARCHAR", None),
            ("TEXT(5)", None),
            ("DECIMAL(9, 2)", None),
        ] {
            assert_eq!(text_length(declared), length, "{declared}");
        }
    }
}
