//! Runs a connection to its end, whoever ends it.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use rand::RngExt;

use crate::config::gateway::HttpLimits;
use crate::lifecycle::Cancel;

use super::activity::{Activity, Overdue};
use super::refused;

/// Shortest and longest life of a connection, so that a rebalanced fleet gets its share of clients. Chosen at random between
/// the two: clients that connected together, after an outage, do not connect again together.
const AGE_RANGE: RangeInclusive<Duration> = Duration::from_mins(48)..=Duration::from_mins(72);
/// How long a connection that has asked nothing yet may still ask once it should end.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long a client that takes its last answers slowly may do so once its connection should end.
const LAST_ANSWERS_MAX: Duration = Duration::from_hours(1);

/// Requests that may still come once a connection should end, as a multiple of the streams that it may have: that many may be
/// on their way. Who asks on does not mean to end, and hyper would let it.
const LATE_STREAMS: u32 = 2;

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, or by us in good order.
    Ended,
    /// In the middle of a head that did not come.
    Late,
}

/// Runs a connection to its end: its own, or ours once it is overdue, old or the process stops.
pub(super) async fn drive<C>(
    mut connection: Pin<&mut C>,
    activity: &Activity,
    overdue: impl Future<Output = Overdue>,
    limits: &HttpLimits,
    stop: &Cancel,
) -> End
where
    C: GracefulConnection<Error = hyper::Error>,
{
    tokio::select! {
        result = &mut connection => return ended(result),
        () = stop.cancelled() => {}
        () = tokio::time::sleep(age_max()) => {}
        () = activity.requests_ended() => {}
        what = overdue => if what == Overdue::Head {
            refused("header_timeout");
            return End::Late;
        }
    }
    if !activity.has_served() {
        // Its first request may be on its way already: hyper would close without having read it.
        tokio::select! {
            result = &mut connection => return ended(result),
            () = activity.first(FIRST_REQUEST_GRACE) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    activity.end_requests();
    // hyper waits for a peer that never speaks, and for one that never reads: we do not.
    let grace = if activity.has_served() { limits.body_timeout } else { FIRST_REQUEST_GRACE };
    tokio::select! {
        result = &mut connection => ended(result),
        () = activity.unresponsive(grace) => unresponsive(),
        () = tokio::time::sleep(LAST_ANSWERS_MAX) => unresponsive(),
        () = activity.late_requests(LATE_STREAMS * limits.streams_max) => unresponsive(),
    }
}

/// The peer does not end what is over.
fn unresponsive() -> End {
    refused("unresponsive");
    End::Ended
}

/// How long a connection lives at most.
fn age_max() -> Duration {
    rand::rng().random_range(AGE_RANGE)
}

/// Counts what ended a connection early.
fn ended(result: Result<(), hyper::Error>) -> End {
    let Err(error) = result else { return End::Ended };
    tracing::debug!(%error, "a connection ended early");
    if error.is_timeout() {
        refused("header_timeout");
        return End::Late;
    }
    if error.is_parse() {
        refused("malformed");
    }
    End::Ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_moment_do_not_end_together() {
        let mut ages: Vec<Duration> = (0..100).map(|_| age_max()).collect();
        ages.sort();
        assert!(ages.iter().all(|age| AGE_RANGE.contains(age)), "{ages:?}");
        let most_at_once =
            ages.windows(20).any(|some| some[19] < some[0] + Duration::from_secs(10));
        assert!(!most_at_once, "20 of 100 connections end within 10 s: {ages:?}");
    }
}
