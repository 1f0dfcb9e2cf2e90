//! Verifies the procedures of many queues with few connections and few queries.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::metadata::{PROCEDURES_PER_QUERY, unsupported_session_context};
use super::{Mssql, finish_query, unavailable};
use crate::catalogue::ProcedureName;
use crate::procedures::{BackendError, ExpectedProcedure, VerifyCallback};
use crate::telemetry::chain;

/// The maximum number of connections that verification uses at a time. Pings use one more.
const CONNECTIONS_MAX: usize = 3;
/// The time limit for one round. Procedures without a result fail, and are verified again later.
const VERIFY_TIMEOUT: Duration = Duration::from_mins(1);
/// The number of parts into which a query that timed out is split. One of its procedures can be
/// locked by an ALTER in an open transaction. The other procedures must not wait for it.
const SPLIT: usize = 8;

/// A failed query for the signatures of several procedures.
struct FailedRead {
    procedures: Vec<ProcedureName>,
    error: BackendError,
    is_late: bool,
}

impl Mssql {
    /// Reads all signatures, and compares each with the catalogue.
    pub(super) async fn verify_all(
        &self,
        expected: &[ExpectedProcedure],
        report: &mut VerifyCallback<'_>,
    ) {
        let deadline = Instant::now() + VERIFY_TIMEOUT;
        let mut indices: BTreeMap<&ProcedureName, Vec<usize>> = BTreeMap::new();
        for (index, one) in expected.iter().enumerate() {
            indices.entry(&one.procedure).or_default().push(index);
        }
        let expected_of = |procedure: &ProcedureName| {
            let indices = indices.get(procedure).into_iter().flatten();
            indices.filter_map(|index| Some((*index, expected.get(*index)?)))
        };
        let all: Vec<ProcedureName> =
            indices.keys().map(|procedure| (*procedure).clone()).collect();
        let mut waiting: VecDeque<Vec<ProcedureName>> =
            all.chunks(PROCEDURES_PER_QUERY).map(<[_]>::to_vec).collect();
        let sets_values = !self.config.session_context.is_empty()
            || expected.iter().any(|one| !one.session_keys.is_empty());
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < CONNECTIONS_MAX
                && let Some(procedures) = waiting.pop_front()
            {
                reads.push(self.read_signatures(procedures, sets_values, deadline));
            }
            match reads.next().await {
                None => return,
                Some(Ok(procedures)) => {
                    for (index, one) in procedures.iter().flat_map(expected_of) {
                        report(index, self.compare(one));
                    }
                }
                Some(Err(FailedRead { procedures, is_late: true, .. }))
                    if procedures.len() > 1 && Instant::now() < deadline =>
                {
                    let size = procedures.len().div_ceil(SPLIT);
                    waiting.extend(procedures.chunks(size).map(<[_]>::to_vec));
                }
                Some(Err(FailedRead { procedures, error, .. })) => {
                    let cause = error.source.map(|source| chain(&*source));
                    for (index, _) in procedures.iter().flat_map(expected_of) {
                        let (kind, cause) = (error.kind.clone(), cause.clone());
                        report(index, Err(BackendError { kind, source: cause.map(Into::into) }));
                    }
                }
            }
        }
    }

    /// Reads the signatures of a batch of procedures over one connection. If calls set values in the
    /// session context, finds out whether the login may do that.
    async fn read_signatures(
        &self,
        procedures: Vec<ProcedureName>,
        sets_values: bool,
        deadline: Instant,
    ) -> Result<Vec<ProcedureName>, FailedRead> {
        // The read waits its turn behind the calls from queues that are already served. It waits
        // until the deadline, because a new attempt would start at the end of the wait queue.
        let mut lease = match self.pools.lease_any(deadline).await {
            Ok(lease) => lease,
            Err(error) => return Err(FailedRead { procedures, error, is_late: false }),
        };
        let Some(connection) = lease.connection() else {
            return Err(FailedRead { procedures, error: unavailable(), is_late: false });
        };
        // `connect_timeout` is also the limit for one query.
        let limit = deadline.min(Instant::now() + self.config.connect_timeout);
        let client = &mut connection.client;
        let read = async {
            if sets_values && self.server.detect_once(client).await?.session_context.is_present() {
                self.session_permission.probe(client).await?;
            }
            self.signatures.read_all(client, &procedures).await
        };
        let answer = timeout_at(limit, read).await;
        let is_late = answer.is_err();
        match finish_query(lease, answer) {
            Ok(_) => Ok(procedures),
            Err(error) => Err(FailedRead { procedures, error, is_late }),
        }
    }

    /// Compares the catalogue with the signature that was just read.
    fn compare(&self, expected: &ExpectedProcedure) -> Result<(), BackendError> {
        let difference = match self.signatures.known(&expected.procedure) {
            Some(signature) => signature.difference(expected),
            None => Some(self.missing_text(&expected.procedure)),
        };
        let differences = difference.into_iter().chain(self.session_difference(expected));
        let text = differences.collect::<Vec<_>>().join("; ");
        if text.is_empty() {
            return Ok(());
        }
        Err(BackendError::mismatch(expected.procedure.as_str(), text))
    }

    /// Describes the reason why the values in the session context cannot be set.
    fn session_difference(&self, expected: &ExpectedProcedure) -> Option<String> {
        let own: Vec<&str> = expected.session_keys.iter().map(|key| &**key).collect();
        let kind = self.server.known()?.session_context;
        if !kind.is_present() {
            return (!own.is_empty()).then(|| unsupported_session_context(&own));
        }
        let facts = self.config.session_context.iter().map(|key| key.as_str());
        let keys: Vec<&str> = facts.chain(own).collect();
        if keys.is_empty() || !self.session_permission.is_denied() {
            return None;
        }
        let (keys, login) = (keys.join(", "), self.login());
        Some(format!(
            "the configuration sets {keys} in the session context, but the login {login} has no \
             permission to execute sp_set_session_context: grant it, or set session_context = [] \
             and no parameter with sessionContext"
        ))
    }
}
