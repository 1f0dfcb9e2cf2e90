//! Runs a connection until the client closes it, a timeout expires, it reaches its maximum age, or the process stops.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use rand::RngExt;

use crate::config::gateway::HttpLimits;
use crate::lifecycle::Cancel;

use super::activity::{ConnectionActivity, Overdue};
use super::count_refused;

/// The range of a connection's maximum age. The age is limited so that clients also move to gateways that were added later. It
/// is random so that clients that connected at the same time, such as after an outage, do not reconnect at the same time.
const AGE_RANGE: RangeInclusive<Duration> = Duration::from_mins(48)..=Duration::from_mins(72);
/// The time for which a graceful shutdown waits, before it begins, for the first request of a client that has not sent
/// one yet.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// The maximum time for a client to read its last responses after a graceful shutdown has begun.
const LAST_RESPONSES_MAX: Duration = Duration::from_hours(1);
/// The maximum number of requests, as a multiple of the concurrent streams, that may already be in transit when a
/// graceful shutdown begins. A client that sends this many requests afterwards ignores GOAWAY. hyper itself would not
/// disconnect such a client.
const LATE_REQUESTS_PER_STREAM: u32 = 2;

/// The outcome of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionOutcome {
    /// The client or the server closed the connection.
    Closed,
    /// The head of a request did not arrive in time.
    HeadTimeout,
}

/// Runs a connection until it ends or a request head is overdue. Shuts it down gracefully when it is idle or too old, when
/// `ConnectionActivity::end_requests` is called, or when the process stops.
pub(super) async fn drive<C>(
    mut connection: Pin<&mut C>,
    activity: &ConnectionActivity,
    overdue: impl Future<Output = Overdue>,
    limits: &HttpLimits,
    stop: &Cancel,
) -> ConnectionOutcome
where
    C: GracefulConnection<Error = hyper::Error>,
{
    tokio::select! {
        result = &mut connection => return closed(result),
        () = stop.cancelled() => {}
        () = tokio::time::sleep(age_max()) => {}
        () = activity.requests_ended() => {}
        what = overdue => if what == Overdue::Head {
            count_refused("header_timeout");
            return ConnectionOutcome::HeadTimeout;
        }
    }
    if !activity.has_served() {
        // The first request may be in transit, and hyper would close the connection without reading it.
        tokio::select! {
            result = &mut connection => return closed(result),
            () = activity.first_request(FIRST_REQUEST_GRACE) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    activity.end_requests();
    // hyper would wait indefinitely for a peer that neither sends nor reads.
    let grace = if activity.has_served() { limits.body_timeout } else { FIRST_REQUEST_GRACE };
    tokio::select! {
        result = &mut connection => closed(result),
        () = activity.until_unresponsive(grace) => unresponsive(),
        () = tokio::time::sleep(LAST_RESPONSES_MAX) => unresponsive(),
        () = activity.requests_after_goaway(LATE_REQUESTS_PER_STREAM * limits.streams_max) => unresponsive(),
    }
}

/// Counts a peer that does not close its connection after a graceful shutdown has begun.
fn unresponsive() -> ConnectionOutcome {
    count_refused("unresponsive");
    ConnectionOutcome::Closed
}

fn age_max() -> Duration {
    rand::rng().random_range(AGE_RANGE)
}

/// Counts the error that ended a connection, if any.
fn closed(result: Result<(), hyper::Error>) -> ConnectionOutcome {
    let Err(error) = result else { return ConnectionOutcome::Closed };
    tracing::debug!(%error, "connection closed with an error");
    if error.is_timeout() {
        count_refused("header_timeout");
        return ConnectionOutcome::HeadTimeout;
    }
    if error.is_parse() {
        count_refused("malformed");
    }
    ConnectionOutcome::Closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_opened_together_do_not_end_together() {
        let mut ages: Vec<Duration> = (0..100).map(|_| age_max()).collect();
        ages.sort();
        assert!(ages.iter().all(|age| AGE_RANGE.contains(age)), "{ages:?}");
        let most_at_once =
            ages.windows(20).any(|some| some[19] < some[0] + Duration::from_secs(10));
        assert!(!most_at_once, "20 of 100 connections end within 10 s: {ages:?}");
    }
}
