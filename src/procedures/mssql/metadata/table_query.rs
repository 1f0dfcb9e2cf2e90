//! Replaces the query that the driver sends to read the columns of a table type.
//!
//! - The replacement fails if the type has been recreated since its columns were read, because the
//!   cells are encoded for those columns. A recreated type has a new object id.
//! - The replacement can present `char` and `varchar` columns to the driver as `nvarchar`, so that
//!   the server converts the text, as for a parameter. The driver would use the code page of the
//!   column's language, which is wrong for 437, 850, 936 and UTF-8.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::catalogue::ProcedureName;
use crate::catalogue::names::quoted;
use crate::procedures::mssql::tds::BatchRewrite;
use crate::procedures::mssql::types::SqlType;

/// The error number that the replacement uses to report a recreated table type. It occurs only
/// before the call is sent, so it cannot be mistaken for an error that the procedure raised.
const TYPE_CHANGED: u32 = 50_000;

/// A column of a table type, as declared in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) sql: SqlType,
    /// Whether each row must have a value: the column is NOT NULL. The worker passes a value for each
    /// column, so the column's default is never used.
    pub(crate) is_required: bool,
}

/// The replacements for the driver's column query of one table type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableQuery {
    /// The replacement that selects the columns unchanged.
    pub(crate) plain: Arc<BatchRewrite>,
    /// The replacement that selects columns whose text is in a code page as `nvarchar`. `None` if the type
    /// has no such column.
    pub(crate) wide: Option<Arc<BatchRewrite>>,
}

/// Returns a table type's name in the form that the driver accepts: `schema.type` without brackets.
/// The driver splits the name at the first dot, and sends both parts unchanged in the call. Returns
/// `None` for a name that the driver refuses.
pub(super) fn driver_name(name: &ProcedureName) -> Option<String> {
    let (schema, table_type) = (name.schema(), name.procedure());
    let is_taken = |c: char| c.is_alphanumeric() || matches!(c, '_' | '@' | '#');
    let is_taken =
        schema.chars().all(is_taken) && table_type.chars().all(|c| is_taken(c) || c == '.');
    is_taken.then(|| format!("{schema}.{table_type}"))
}

/// Returns the SQL condition that holds while a table type still has this object id.
pub(super) fn is_current(name: &ProcedureName, object_id: i64) -> String {
    let text = name.as_str().replace('\'', "''");
    format!(
        "EXISTS (SELECT 1 FROM sys.table_types WHERE user_type_id = TYPE_ID(N'{text}') \
         AND type_table_object_id = {object_id})"
    )
}

impl TableQuery {
    /// Creates the replacements. `driver_name` is the name in the driver's query, without brackets.
    pub(super) fn new(
        (name, driver_name): (&ProcedureName, &str),
        object_id: i64,
        columns: &[TableColumn],
    ) -> Self {
        let mut selected = String::new();
        let mut has_narrow_text = false;
        for TableColumn { name: bare, sql, .. } in columns {
            let separator = if selected.is_empty() { "" } else { ", " };
            let column = quoted(bare);
            let written = if let Some(wide) = sql.as_nvarchar() {
                has_narrow_text = true;
                write!(selected, "{separator}CAST({column} AS {wide})")
            } else {
                write!(selected, "{separator}{column}")
            };
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        let rewrite = |selected: &str| {
            let (is_current, quoted) = (is_current(name, object_id), name.quoted());
            Arc::new(BatchRewrite {
                original: format!("DECLARE @P AS {driver_name};SELECT TOP 0 * FROM @P"),
                replacement: format!(
                    "IF NOT {is_current} THROW {TYPE_CHANGED}, N'the table type was recreated', 1;\
                     DECLARE @P AS {quoted};SELECT TOP 0 {selected} FROM @P"
                ),
            })
        };
        Self { plain: rewrite("*"), wide: has_narrow_text.then(|| rewrite(&selected)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedures::mssql::types::CodePage;

    fn column(name: &str, sql: SqlType) -> TableColumn {
        TableColumn { name: name.to_owned(), sql, is_required: false }
    }

    fn text(name: &'static str, length: Option<usize>, page: i64) -> SqlType {
        SqlType::Text { name, length, code_page: CodePage::new(Some(page)) }
    }

    #[test]
    fn text_in_a_code_page_is_selected_as_nvarchar() {
        let columns = [
            column("id", SqlType::Int),
            column("a]b", text("varchar", Some(5), 65001)),
            column("kana", text("varchar", Some(5), 932)),
            column("wide", text("nvarchar", None, 1200)),
            column("long", text("varchar", Some(8000), 437)),
            column("max", text("varchar", None, 0)),
        ];
        let original = "DECLARE @P AS dbo.t;SELECT TOP 0 * FROM @P";
        let name = ProcedureName::new("dbo.t").unwrap();
        let query = |id, columns: &[_]| TableQuery::new((&name, "dbo.t"), id, columns);
        let check = "IF NOT EXISTS (SELECT 1 FROM sys.table_types WHERE user_type_id = TYPE_ID(N'dbo.t') \
                     AND type_table_object_id = 7) THROW 50000, N'the table type was recreated', 1;";
        let wide = query(7, &columns).wide.unwrap();
        assert_eq!(wide.original, original);
        assert_eq!(
            wide.replacement.strip_prefix(check).unwrap(),
            "DECLARE @P AS [dbo].[t];SELECT TOP 0 [id], CAST([a]]b] AS nvarchar(5)), \
             CAST([kana] AS nvarchar(5)), [wide], CAST([long] AS nvarchar(max)), CAST([max] AS nvarchar(max)) FROM @P"
        );
        for without in [&columns[..1], &columns[3..4]] {
            let query = query(7, without);
            assert_eq!(query.wide, None);
            assert_eq!(query.plain.original, original);
            assert_eq!(
                query.plain.replacement.strip_prefix(check).unwrap(),
                "DECLARE @P AS [dbo].[t];SELECT TOP 0 * FROM @P"
            );
        }
        assert_ne!(query(7, &columns), query(8, &columns));
    }

    #[test]
    fn the_driver_takes_names_without_special_characters() {
        for (schema, table_type, taken) in [
            ("dbo", "order", Some("dbo.order")),
            ("größen", "日本", Some("größen.日本")),
            ("dbo", "a.b", Some("dbo.a.b")),
            ("a.b", "c", None),
            ("dbo", "a b", None),
            ("dbo", "a]b", None),
            ("dbo", "a$b", None),
        ] {
            let name = ProcedureName::from_parts(schema, table_type).unwrap();
            assert_eq!(driver_name(&name).as_deref(), taken, "{name}");
        }
    }

    #[test]
    fn the_name_of_a_type_is_quoted_as_sql_and_as_text() {
        let name = ProcedureName::from_parts("dbo", "it's").unwrap();
        let query = TableQuery::new((&name, "dbo.it's"), 7, &[]);
        assert_eq!(query.plain.original, "DECLARE @P AS dbo.it's;SELECT TOP 0 * FROM @P");
        let replacement = &query.plain.replacement;
        assert!(replacement.contains("TYPE_ID(N'dbo.[it''s]')"), "{replacement}");
        assert!(replacement.contains("DECLARE @P AS [dbo].[it's];"), "{replacement}");
    }
}
