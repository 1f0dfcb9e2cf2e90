//! The procedures `first_articles` and `first_ids`, from which benchmarks read rows.

use std::sync::LazyLock;

use super::procedures::FakeResult;
use super::reply::TdsReply;
use super::values::Sql;

/// The number of rows in the table `articles`.
const ARTICLES: u32 = 5000;
/// The number of days from the first day of `datetime2`, 0001-01-01, to 2026-01-01.
const DAY: u32 = 739_616;

/// Encoded rows, and the position at which each row ends. Encoding the rows in each call would take
/// longer than the rest of the call, which the benchmarks measure.
#[derive(Debug)]
struct EncodedRows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl EncodedRows {
    fn new(write: impl Fn(u32, &mut TdsReply)) -> Self {
        let (mut reply, mut ends) = (TdsReply::default(), Vec::new());
        for id in 1..=ARTICLES {
            write(id, &mut reply);
            ends.push(reply.0.len());
        }
        Self { bytes: reply.0.to_vec(), ends }
    }

    fn copy(&self, count: i64, reply: &mut TdsReply) -> FakeResult {
        let count = usize::try_from(count).unwrap_or_default().min(self.ends.len());
        let end = count.checked_sub(1).map_or(0, |last| self.ends[last]);
        reply.0.extend_from_slice(&self.bytes[..end]);
        FakeResult::Returned(0, Vec::new())
    }
}

static ROWS: LazyLock<EncodedRows> = LazyLock::new(|| {
    EncodedRows::new(|id, reply| {
        // The time of day is in milliseconds, because the scale is 3.
        let time = u64::from(id) * 1000 + 125;
        reply.row(&[
            ("int", Sql::Int(id.into())),
            ("nvarchar(50)", Sql::Text(format!("article {id}"))),
            ("decimal(9, 2)", Sql::Decimal(i128::from(id) * 25, 2)),
            ("datetime2(3)", Sql::DateTime2(time, 3, DAY)),
        ]);
    })
});

static IDS: LazyLock<EncodedRows> = LazyLock::new(|| {
    EncodedRows::new(|id, reply| {
        reply.row(&[("int", Sql::Int(id.into()))]);
    })
});

/// Returns the first rows in the table `articles`.
pub(super) fn rows(count: i64, reply: &mut TdsReply) -> FakeResult {
    reply.columns(&[
        ("id", "int"),
        ("name", "nvarchar(50)"),
        ("price", "decimal(9, 2)"),
        ("added", "datetime2(3)"),
    ]);
    ROWS.copy(count, reply)
}

/// Returns the first ids of the table `articles`.
pub(super) fn ids(count: i64, reply: &mut TdsReply) -> FakeResult {
    reply.columns(&[("id", "int")]);
    IDS.copy(count, reply)
}
