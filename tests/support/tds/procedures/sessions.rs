//! The state of a connection, and the procedures that use it.

use std::sync::atomic::Ordering;

use super::super::FakeState;
use super::super::database;
use super::super::database::FakeTransaction;
use super::super::reply::TdsReply;
use super::super::session_context::FakeSessionContext;
use super::super::values::Sql;
use super::{DONE, FakeResult, GivenArguments, text};

/// The state of a connection. A reset clears `context` and `transaction`.
#[derive(Debug, Default)]
pub(crate) struct FakeSession {
    pub(crate) id: i64,
    pub(crate) application: String,
    pub(crate) context: Option<String>,
    /// The values of `sp_set_session_context`, apart from that of the procedure `remembers`.
    pub(crate) values: FakeSessionContext,
    /// A read-only key that a reset does not remove.
    pub(crate) foreign_key: Option<&'static str>,
    pub(crate) transaction: FakeTransaction,
}

/// Executes the procedures that write or count audit rows.
pub(super) fn audited(
    state: &FakeState,
    session: &mut FakeSession,
    (name, arguments): (&str, &GivenArguments<'_>),
    reply: &mut TdsReply,
) -> FakeResult {
    let script = match name {
        "runs" => arguments.text("@script"),
        "keeps" => {
            let times = |name| usize::try_from(arguments.int(name)).expect("the count fits usize");
            let (commits, begins) = ("; COMMIT".repeat(times("@commits")), times("@begins"));
            format!(
                "INSERT {}{commits}{}; ROW 1",
                arguments.text("@word"),
                "; BEGIN".repeat(begins)
            )
        }
        "inserts_then_throws" => {
            state.audit.add(&arguments.text("@word"));
            return FakeResult::Raised(50422, 16, "no".into());
        }
        "kept_count" => format!("ROW {}", state.audit.count(&arguments.text("@word"))),
        _ if state.is_changed.load(Ordering::Acquire) => {
            let (number, procedure) = (arguments.int("@number"), arguments.text("@procedure"));
            format!("INSERT replaced; THROW {number} {procedure}")
        }
        _ => "INSERT first".to_owned(),
    };
    database::run(state, &mut session.transaction, &script, reply)
}

pub(super) fn session_state(
    name: &str,
    arguments: &GivenArguments<'_>,
    session: &mut FakeSession,
    reply: &mut TdsReply,
) -> FakeResult {
    match name {
        "application" => {
            reply.single("name", "nvarchar(128)", text(&session.application));
        }
        "who" => {
            let kind = "nvarchar(4000)";
            reply.single("v", kind, session.values.get(&arguments.text("@key")));
        }
        "claims_to_be" => {
            let name = text(&arguments.text("@name"));
            if let Err(number) = session.values.set("principal", name, false) {
                return FakeResult::Raised(number, 16, "The key is read-only.".into());
            }
        }
        "remembers" => session.context = Some(arguments.text("@v")),
        "recalls" => {
            let held = if session.context.is_some() { "Exclusive" } else { "NoLock" };
            let value = session.context.clone().map_or(Sql::Null, Sql::Text);
            reply.columns(&[("v", "nvarchar(20)"), ("held", "nvarchar(32)")]);
            reply.row(&[("nvarchar(20)", value), ("nvarchar(32)", text(held))]);
        }
        "leaves_open" => {
            session.transaction.count += 1;
            return FakeResult::Raised(50409, 16, "left open".into());
        }
        "transactions" => {
            reply.single("v", "int", Sql::Int(session.transaction.count));
        }
        _ => {
            reply.single("v", "int", Sql::Int(session.id));
        }
    }
    DONE
}
