//! The procedures that raise errors and simulate faults.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::FakeState;
use super::super::reply::TdsReply;
use super::super::values::Sql;
use super::{DONE, FakeResult, GivenArguments};

pub(super) fn errors(
    name: &str,
    arguments: &GivenArguments<'_>,
    reply: &mut TdsReply,
) -> FakeResult {
    match name {
        "throws" => {
            let number = u32::try_from(arguments.int("@number")).expect("the number fits u32");
            let number = if matches!(number, 50404 | 50001) { number } else { 50000 };
            FakeResult::Raised(number, 16, arguments.text("@message"))
        }
        "rows_then_error" => {
            reply.single("a", "int", Sql::Int(1));
            FakeResult::Raised(50500, 16, "after rows".into())
        }
        "doubles_then_throws" => {
            // The failed statement sends its error, and the procedure continues.
            reply.error(2627, 14, "Violation of PRIMARY KEY constraint", name);
            reply.info("The statement has been terminated.", name);
            FakeResult::Raised(50422, 16, "already there".into())
        }
        "inserts_null" => FakeResult::Raised(515, 16, "Cannot insert the value NULL".into()),
        "inserts_long" => {
            FakeResult::Raised(2628, 16, "String or binary data would be truncated".into())
        }
        "prints" => {
            reply.info("before", name).single("v", "int", Sql::Int(1)).info("after", name);
            DONE
        }
        "doubles" => FakeResult::Raised(2627, 14, "Violation of PRIMARY KEY constraint".into()),
        _ if arguments.int("@by") == 0 => {
            FakeResult::Raised(8134, 16, "Divide by zero error encountered.".into())
        }
        _ => {
            reply.single("v", "int", Sql::Int(1 / arguments.int("@by")));
            DONE
        }
    }
}

pub(super) fn fault(
    state: &FakeState,
    name: &str,
    arguments: &GivenArguments<'_>,
) -> Option<FakeResult> {
    Some(match name {
        "drops" => {
            let leaves = state.goes_away_on_drop.load(Ordering::Acquire);
            state.refuses_connections.fetch_or(leaves, Ordering::AcqRel);
            FakeResult::Dropped
        }
        "cuts" => {
            FakeResult::Cut(usize::try_from(arguments.int("@at")).expect("the length fits usize"))
        }
        "stalls" => FakeResult::Stalled,
        "answers_late" => {
            FakeResult::AnswersLate(matches!(arguments.get("@together"), Some(Sql::Int(1))))
        }
        "acknowledges" => {
            let after = Duration::from_millis(arguments.int("@after").unsigned_abs());
            FakeResult::Acknowledges(
                after,
                usize::try_from(arguments.int("@times")).expect("the count fits usize"),
            )
        }
        "streams" => FakeResult::Streams,
        "raises" => {
            let number = u32::try_from(arguments.int("@number")).expect("the number fits u32");
            let class = u8::try_from(arguments.int("@class")).expect("the class fits u8");
            FakeResult::Raised(number, class, "secret of the database".into())
        }
        "babbles" => FakeResult::Cut(usize::MAX),
        "changed" => {
            let name = if state.is_changed.load(Ordering::Acquire) { "@new" } else { "@old" };
            match arguments.get(name) {
                Some(_) => DONE,
                None => FakeResult::Raised(
                    state.changed_error.load(Ordering::Acquire),
                    16,
                    "@old is not a parameter for procedure changed.".into(),
                ),
            }
        }
        _ => return None,
    })
}
