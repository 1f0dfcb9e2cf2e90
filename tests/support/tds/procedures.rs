//! The procedures of the fake server: those of `mssql.sql`, and others that simulate faults.

use std::fmt::Write as _;
use std::time::Duration;

use super::FakeState;
use super::articles;
use super::database;
use super::northwind;
use super::reply::TdsReply;
use super::request::RpcParameter;
use super::values::{Declared, Sql};

mod faults;
mod limits;
mod sessions;
mod tables;

use faults::{errors, fault};
pub(crate) use sessions::FakeSession;
use sessions::{audited, session_state};
use tables::sums;

/// Procedures that only the fake server has. `numbered` stands for every `numbered_N`.
pub(crate) const ONLY_HERE: &str = "\
CREATE TYPE fjord_test.page_list AS TABLE (utf varchar(5) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL, oem varchar(5) COLLATE SQL_Latin1_General_CP437_CI_AS NULL, prc varchar(5) COLLATE Chinese_PRC_CI_AS NULL, [a]]b] char(4) COLLATE Japanese_CI_AS NULL)
CREATE PROCEDURE fjord_test.pages @pages fjord_test.page_list READONLY AS
CREATE PROCEDURE fjord_test.oem AS
CREATE PROCEDURE fjord_test.utf8 AS
CREATE PROCEDURE fjord_test.utf8_japanese AS
CREATE PROCEDURE fjord_test.narrow @v varchar(5) AS
CREATE PROCEDURE fjord_test.narrow_out @v varchar(5) OUTPUT AS
CREATE PROCEDURE fjord_test.drops AS
CREATE PROCEDURE fjord_test.cuts @at int AS
CREATE PROCEDURE fjord_test.stalls AS
CREATE PROCEDURE fjord_test.answers_late @together bit AS
CREATE PROCEDURE fjord_test.acknowledges @after int, @times int AS
CREATE PROCEDURE fjord_test.streams AS
CREATE PROCEDURE fjord_test.begins @ms int AS
CREATE PROCEDURE fjord_test.raises @number int, @class int AS
CREATE PROCEDURE fjord_test.babbles AS
CREATE PROCEDURE fjord_test.changed @old int AS
CREATE PROCEDURE fjord_test.replaced @number int, @procedure nvarchar(50) AS
CREATE PROCEDURE fjord_test.runs @script nvarchar(200) AS
CREATE PROCEDURE fjord_test.shape AS
CREATE PROCEDURE fjord_test.places @at geography, @under hierarchyid AS
CREATE PROCEDURE fjord_test.numbered @ms int, @total int OUTPUT AS
CREATE TYPE fjord_test.[my list] AS TABLE (n int NULL)
CREATE PROCEDURE fjord_test.echo_json @v json, @out json OUTPUT AS
CREATE PROCEDURE fjord_test.echo_vector @v vector(3), @out vector(3) OUTPUT AS
CREATE PROCEDURE fjord_test.echo_datetimeoffset_7 @v datetimeoffset(7), @out datetimeoffset(7) OUTPUT AS
CREATE TYPE fjord_test.line_list AS TABLE (line int IDENTITY(1, 1), [text] varchar(20) NULL, price decimal(9, 2) NULL, doubled AS (price * 2))
CREATE PROCEDURE fjord_test.two_lines @a fjord_test.line_list READONLY, @b fjord_test.line_list READONLY, @n int AS
CREATE PROCEDURE fjord_test.lines @rows fjord_test.line_list READONLY AS
CREATE TYPE fjord_test.document_list AS TABLE (x xml NULL, j json NULL)
CREATE TYPE fjord_test.vector_list AS TABLE (v vector(2) NULL)
CREATE PROCEDURE fjord_test.vectors @rows fjord_test.vector_list READONLY AS
CREATE PROCEDURE fjord_test.documents @rows fjord_test.document_list READONLY AS
CREATE PROCEDURE fjord_test.thing_get @id int AS
CREATE PROCEDURE fjord_test.thing_list AS
CREATE PROCEDURE fjord_test.thing_add @name nvarchar(50) AS
CREATE PROCEDURE fjord_test.[a]]b[c] @a#b@c int AS
CREATE PROCEDURE fjord_test.quoted_type @rows fjord_test.[my list] READONLY AS
CREATE VIEW fjord_test.a_view AS
CREATE FUNCTION fjord_test.a_function AS
CREATE SYNONYM fjord_test.[other name] FOR [fjord_test].[Sales by Year]
CREATE SYNONYM fjord_test.table_synonym FOR fjord_test.things
CREATE SYNONYM fjord_test.elsewhere FOR [other].[dbo].[returns]
CREATE SYNONYM fjord_test.nowhere_synonym FOR fjord_test.not_there
CREATE PROCEDURE ledger.write @ms int, @request_id nvarchar(100) AS";

/// The number of characters in each row of FOR JSON text.
const JSON_ROW_CHARS: usize = 2033;

/// The result of a call.
#[derive(Debug)]
pub(crate) enum FakeResult {
    /// A RETURN status and OUTPUT values.
    Returned(i32, Vec<(String, Sql)>),
    /// An error: its number, class and message.
    Raised(u32, u8, String),
    /// An error in a named procedure: its number, its message, the procedure, and the tokens that follow
    /// it.
    RaisedIn(u32, String, String, Vec<u8>),
    /// The connection is closed without an answer.
    Dropped,
    /// The connection is closed after this number of bytes of the answer. If the number is `usize::MAX`,
    /// invalid tokens are sent instead.
    Cut(usize),
    /// The answer is sent after this time, unless the call is cancelled.
    Slow(Duration),
    /// The call never ends, and ignores a request to cancel it.
    Stalled,
    /// When the call is cancelled, the answer and the acknowledgement are sent, in one write if the
    /// value is true and in two writes otherwise.
    AnswersLate(bool),
    /// A request to cancel the call is acknowledged after this time, and this number of times.
    Acknowledges(Duration, usize),
    /// Only a part of a row is sent. A request to cancel the call ends it.
    Streams,
}

const DONE: FakeResult = FakeResult::Returned(0, Vec::new());

struct GivenArguments<'a>(&'a [RpcParameter]);

impl GivenArguments<'_> {
    fn get(&self, name: &str) -> Option<&Sql> {
        self.0.iter().find(|one| one.name == name).map(|one| &one.value)
    }

    fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(Sql::Int(number)) => *number,
            other => panic!("{name} is {other:?}"),
        }
    }

    fn text(&self, name: &str) -> String {
        match self.get(name) {
            Some(Sql::Text(text)) => text.clone(),
            other => panic!("{name} is {other:?}"),
        }
    }
}

/// The procedures that only return rows.
const SETS: [&str; 6] = ["sets", "wide", "many", "json", "first_articles", "first_ids"];

/// The procedures that fail, or send messages.
const ERRORS: [&str; 8] = [
    "throws",
    "rows_then_error",
    "doubles",
    "doubles_then_throws",
    "prints",
    "divides",
    "inserts_null",
    "inserts_long",
];

/// Executes a procedure and adds its result sets to the reply.
pub(crate) fn run(
    state: &FakeState,
    session: &mut FakeSession,
    name: &str,
    given: &[RpcParameter],
    reply: &mut TdsReply,
) -> FakeResult {
    if let Some(name) = name.strip_prefix("northwind.") {
        return northwind::run(name, given, reply);
    }
    let arguments = GivenArguments(given);
    let bare = name.strip_prefix("fjord_test.").unwrap_or(name);
    if bare.starts_with("echo_") {
        let declared = state.parameter(name, "@v");
        return echo(&declared, arguments.get("@v").cloned().unwrap_or(Sql::Null), reply);
    }
    if bare.starts_with("numbered_") {
        return FakeResult::Returned(0, vec![("@total".into(), Sql::Int(1))]);
    }
    if let Some(outcome) = fault(state, bare, &arguments) {
        return outcome;
    }
    match bare {
        "narrow_out" => FakeResult::Returned(0, vec![("@v".into(), text(&arguments.text("@v")))]),
        "Sales by Year" | "a.b" | "a]b[c" | "größe_lesen" | "it's; -- out" => {
            odd_names(bare, &arguments, reply)
        }
        "sums" => sums(&arguments, reply),
        "two_lines" => DONE,
        _ if tables::NAMES.contains(&bare) => tables::run(state, bare, &arguments, reply),
        _ if limits::NAMES.contains(&bare) => limits::run(bare, &arguments, reply),
        _ if SETS.contains(&bare) => sets(bare, &arguments, reply),
        _ if ERRORS.contains(&bare) => errors(bare, &arguments, reply),
        "begins" => {
            session.transaction.count += 1;
            FakeResult::Slow(Duration::from_millis(arguments.int("@ms").unsigned_abs()))
        }
        "application" | "who" | "claims_to_be" | "remembers" | "recalls" | "leaves_open"
        | "transactions" | "process" => session_state(bare, &arguments, session, reply),
        "defaults" => {
            let a = arguments.get("@a").cloned().unwrap_or(Sql::Int(7));
            let b = arguments.get("@b").cloned().unwrap_or_else(|| text("seven"));
            reply.columns(&[("a", "int"), ("b", "nvarchar(20)")]);
            reply.row(&[("int", a), ("nvarchar(20)", b)]);
            DONE
        }
        "returns" => returns(&arguments),
        "nothing" => DONE,
        "thing_get" | "thing_list" => things(bare, state, session, reply),
        "runs" | "keeps" | "kept_count" | "inserts_then_throws" | "replaced" => {
            audited(state, session, (bare, &arguments), reply)
        }
        "ledger.write" => {
            let id = arguments.text("@request_id");
            reply.single("request_id", "nvarchar(100)", text(&id));
            state.ledger.lock().expect("not poisoned").push(id);
            FakeResult::Slow(Duration::from_millis(arguments.int("@ms").unsigned_abs()))
        }
        "outputs" => FakeResult::Returned(
            -3,
            vec![
                ("@given".into(), Sql::Int(arguments.int("@given") + 1)),
                ("@text".into(), Sql::Text("ab".repeat(5000))),
                ("@amount".into(), Sql::Decimal(12_345_678_901_234_567_890, 4)),
                ("@untouched".into(), Sql::Null),
            ],
        ),
        "slow" => {
            reply.single("done", "int", Sql::Int(1));
            FakeResult::Slow(Duration::from_millis(arguments.int("@ms").unsigned_abs()))
        }
        "same" | "shape" | "takes_variant" | "variant" | "narrow" | "oem" | "utf8"
        | "utf8_japanese" => odd_types(bare, &arguments, reply),
        other => panic!("no procedure {other}"),
    }
}

/// Executes the procedures whose names need quoting.
fn odd_names(name: &str, arguments: &GivenArguments<'_>, reply: &mut TdsReply) -> FakeResult {
    match name {
        "Sales by Year" => {
            reply.single("größe", "int", Sql::Int(arguments.int("@größe")));
        }
        "a.b" => {
            reply.single("v", "int", Sql::Int(arguments.int("@1") + arguments.int("@a$b")));
        }
        "a]b[c" => {
            reply.single("v", "int", Sql::Int(arguments.int("@a#b@c")));
        }
        "größe_lesen" => {
            reply.single("v", "nvarchar(1)", text("ß"));
        }
        _ => return FakeResult::Returned(0, vec![("@text".into(), text("out"))]),
    }
    DONE
}

/// Inserts a row into the audit table and returns the things. Returns an error if there is no such
/// thing.
fn things(
    name: &str,
    state: &FakeState,
    session: &mut FakeSession,
    reply: &mut TdsReply,
) -> FakeResult {
    if name == "thing_get" {
        return FakeResult::Raised(50404, 16, "no such thing".into());
    }
    reply.columns(&[("id", "int"), ("name", "nvarchar(50)")]);
    reply.row(&[("int", Sql::Int(1)), ("nvarchar(50)", text("one"))]);
    database::run(state, &mut session.transaction, "INSERT listed", reply)
}

fn returns(arguments: &GivenArguments<'_>) -> FakeResult {
    if arguments.get("@status").is_none() {
        return FakeResult::Raised(201, 16, "'returns' expects parameter '@status'".into());
    }
    let status = i32::try_from(arguments.int("@status")).expect("the status fits i32");
    FakeResult::Returned(status, Vec::new())
}

/// Returns values of types that few drivers support completely.
fn odd_types(name: &str, arguments: &GivenArguments<'_>, reply: &mut TdsReply) -> FakeResult {
    match name {
        "shape" => {
            // A CLR type such as geometry: its names, followed by its bytes in chunks (MS-TDS
            // 2.2.5.5.2).
            reply.0.extend_from_slice(&[0x81, 1, 0, 0, 0, 0, 0, 1, 0, 0xf0, 0xff, 0xff, 0]);
            reply.0.extend_from_slice(&[1, b's', 0, 1, b'g', 0, 0, 0, 1, b'v', 0]);
            reply.0.extend_from_slice(&[0xd1, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
            reply.0.extend_from_slice(&[0, 0, 0, 0]);
        }
        "same" => {
            let [one, other] = ["@a", "@b"].map(|name| collated(&arguments.text(name)));
            reply.single("v", "int", Sql::Int((one == other).into()));
        }
        "oem" => {
            reply.single("v", "varchar(5) COLLATE SQL_Latin1_General_CP437_CI_AS", text("Ω"));
        }
        "utf8" => utf8_sets(reply),
        "utf8_japanese" => {
            let kind = "varchar(20) COLLATE Japanese_XJIS_140_CI_AS_UTF8";
            reply.columns(&[("v", kind)]);
            reply.row(&[(kind, text("ascii"))]).row(&[(kind, text("é"))]);
        }
        "narrow" => {
            reply.single("v", "nvarchar(5)", arguments.get("@v").cloned().unwrap_or(Sql::Null));
        }
        "takes_variant" => {
            let said = match arguments.get("@v") {
                Some(Sql::Int(number)) => number.to_string(),
                Some(Sql::Text(text)) => text.clone(),
                other => panic!("@v is {other:?}"),
            };
            reply.single("v", "nvarchar(50)", text(&said));
        }
        _ => {
            // A sql_variant with an int: length, base type without properties, value (MS-TDS 2.2.5.5.4).
            reply.0.extend_from_slice(&[
                0x81, 1, 0, 0, 0, 0, 0, 1, 0, 0x62, 0x49, 0x1f, 0, 0, 1, b'v', 0,
            ]);
            reply.0.extend_from_slice(&[0xd1, 6, 0, 0, 0, 0x38, 0, 7, 0, 0, 0]);
        }
    }
    DONE
}

/// Returns text in the form in which the default collation compares it: in lower case and without
/// trailing blanks.
fn collated(text: &str) -> String {
    text.trim_end_matches(' ').to_lowercase()
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

/// Writes three result sets. Only the second one has a column in UTF-8.
fn utf8_sets(reply: &mut TdsReply) {
    let plain = ("varchar(20)", text("Ã©"));
    let utf8 = "varchar(20) COLLATE Latin1_General_100_CI_AS_SC_UTF8";
    reply.single("v", plain.0, plain.1.clone());
    reply.columns(&[("id", "int"), ("plain", plain.0), ("utf8", utf8), ("wide", "nvarchar(20)")]);
    for (id, value) in (1..).zip([text("é€日本😀"), Sql::Null, text("ascii")]) {
        reply.row(&[
            ("int", Sql::Int(id)),
            plain.clone(),
            (utf8, value),
            ("nvarchar(20)", text("Ã")),
        ]);
    }
    reply.single("v", plain.0, plain.1);
}

fn echo(declared: &Declared, value: Sql, reply: &mut TdsReply) -> FakeResult {
    reply.0.extend_from_slice(&[0x81, 1, 0, 0, 0, 0, 0, 1, 0]);
    declared.write_type(&mut reply.0);
    reply.0.extend_from_slice(&[1, b'v', 0, 0xd1]);
    declared.write(&value, &mut reply.0);
    FakeResult::Returned(0, vec![("@out".to_owned(), value)])
}

fn sets(name: &str, arguments: &GivenArguments<'_>, reply: &mut TdsReply) -> FakeResult {
    match name {
        "sets" => {
            reply.columns(&[("a", "int"), ("a", "int")]);
            reply.row(&[("int", Sql::Int(1)), ("int", Sql::Int(2))]);
            reply.columns(&[("id", "int"), ("name", "nvarchar(100)")]);
            reply.single("", "int", Sql::Int(3));
        }
        "wide" => {
            let names: Vec<String> = (1..=20).map(|n| format!("c{n}")).collect();
            let kind = |n: i64| if n % 2 == 1 { "int" } else { "decimal(9, 2)" };
            let columns = (1..).zip(&names).map(|(n, name)| (name.as_str(), kind(n)));
            reply.columns(&columns.collect::<Vec<_>>());
            let cells = (1..=20).map(|n| match kind(n) {
                "int" => ("int", Sql::Int(n)),
                decimal => (decimal, Sql::Decimal(i128::from(n) * 100, 2)),
            });
            reply.row(&cells.collect::<Vec<_>>());
        }
        "first_articles" => return articles::rows(arguments.int("@count"), reply),
        "first_ids" => return articles::ids(arguments.int("@count"), reply),
        "many" => {
            reply.columns(&[("n", "int")]);
            for n in 0..arguments.int("@count") {
                reply.row(&[("int", Sql::Int(n))]);
            }
        }
        "json" => {
            let mut whole = String::from("[");
            for n in 0..arguments.int("@count") {
                let comma = if n == 0 { "" } else { "," };
                write!(whole, "{comma}{{\"n\":{n},\"name\":\"a \\\"quoted\\\" name\"}}")
                    .expect("writing to a String cannot fail");
            }
            whole.push(']');
            reply.columns(&[("JSON_F52E2B61-18A1-11d1-B105-00805F49916B", "nvarchar(max)")]);
            for part in whole.as_bytes().chunks(JSON_ROW_CHARS) {
                let part = std::str::from_utf8(part).expect("the part is ASCII");
                reply.row(&[("nvarchar(max)", text(part))]);
            }
        }
        other => panic!("no procedure {other}"),
    }
    DONE
}
