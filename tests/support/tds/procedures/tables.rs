//! The procedures with table-valued parameters.

use super::super::FakeState;
use super::super::reply::TdsReply;
use super::super::values::Sql;
use super::{DONE, FakeResult, GivenArguments};

/// The procedures that return the rows in a table argument.
pub(super) const NAMES: [&str; 10] = [
    "lists",
    "names",
    "codes",
    "pages",
    "longs",
    "order by",
    "documents",
    "lines",
    "requires",
    "vectors",
];

/// Returns the rows in a table argument, with the original columns of its type. Columns are matched by
/// name.
pub(super) fn run(
    state: &FakeState,
    name: &str,
    arguments: &GivenArguments<'_>,
    reply: &mut TdsReply,
) -> FakeResult {
    let (table, columns): (_, &[(&str, &str)]) = match name {
        "names" => ("@names", &[("name", "nvarchar(100)")]),
        "lines" => {
            ("@rows", &[("line", "int"), ("text", "varchar(20)"), ("price", "decimal(9, 2)")])
        }
        "documents" => ("@rows", &[("x", "xml"), ("j", "json")]),
        "requires" => ("@rows", &[("id", "int"), ("note", "nvarchar(20)")]),
        "vectors" => ("@rows", &[("v", "vector(2)")]),
        "order by" => ("@rows", &[("sort order", "int"), ("größe", "nvarchar(20)")]),
        "codes" => {
            ("@codes", &[("code", "varchar(5)"), ("kana", "varchar(5) COLLATE Japanese_CI_AS")])
        }
        "longs" => (
            "@rows",
            &[("wide", "nvarchar(max)"), ("narrow", "varchar(max)"), ("bytes", "varbinary(max)")],
        ),
        "pages" => (
            "@pages",
            &[
                ("utf", "nvarchar(5)"),
                ("oem", "nvarchar(5)"),
                ("prc", "nvarchar(5)"),
                ("a]b", "nvarchar(5)"),
            ],
        ),
        _ => (
            "@things",
            &[
                ("id", "int"),
                ("name", "varchar(100)"),
                ("price", "decimal(9, 2)"),
                ("at", "datetime2(3)"),
            ],
        ),
    };
    reply.columns(columns);
    let kind = state.parameter(&format!("fjord_test.{name}"), table).name;
    let now = state.columns(&kind);
    if let Some(Sql::Table(rows)) = arguments.get(table) {
        for row in rows {
            let cell = |(name, kind): &(&str, &'static str)| {
                let place = now.iter().position(|one| one.name == *name);
                (*kind, place.map_or(Sql::Null, |place| row[place].clone()))
            };
            reply.row(&columns.iter().map(cell).collect::<Vec<_>>());
        }
    }
    DONE
}

/// Returns the number of rows in a table, their sum, and more text than fits into `nvarchar(4000)`.
pub(super) fn sums(arguments: &GivenArguments<'_>, reply: &mut TdsReply) -> FakeResult {
    let Some(Sql::Table(rows)) = arguments.get("@rows") else { panic!("no table") };
    let price = |row: &Vec<Sql>| match row[2] {
        Sql::Decimal(number, 2) => number * 100,
        ref other => panic!("{other:?} is no price"),
    };
    let note = arguments.get("@note").cloned().unwrap_or(Sql::Null);
    reply.columns(&[("n", "int"), ("note", "varchar(10)")]);
    let count = Sql::Int(i64::try_from(rows.len()).expect("few"));
    reply.row(&[("int", count), ("varchar(10)", note)]);
    let total = Sql::Decimal(rows.iter().map(price).sum(), 4);
    let outputs = vec![("@text".into(), Sql::Text("ab".repeat(5000))), ("@total".into(), total)];
    FakeResult::Returned(5, outputs)
}
