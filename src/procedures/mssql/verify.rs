//! Whether the procedures of many queues fit the catalogue: few connections, few queries.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::signature::PROCEDURES_PER_QUERY;
use super::{Mssql, mismatch, settle, unavailable};
use crate::catalogue::ProcedureName;
use crate::procedures::{BackendError, Found, Need};
use crate::telemetry::chain;

/// Connections at once: with the one that is asked whether the database is there, four.
const CONNECTIONS_MAX: usize = 3;
/// Longest time for all of them. What is not known by then is asked for again later.
const VERIFY_TIMEOUT: Duration = Duration::from_mins(1);
/// A query that was not answered in time is asked again in so many smaller ones: somebody may have locked one of the
/// procedures (an ALTER in an open transaction), and the others are not to wait for it.
const SPLIT: usize = 8;

/// Procedures whose signatures were asked for together, and why they are not known.
struct Failed {
    procedures: Vec<ProcedureName>,
    error: BackendError,
    is_late: bool,
}

impl Mssql {
    /// Reads every signature and compares it with what is needed.
    pub(super) async fn verify_all(&self, needs: &[Need], found: &mut Found<'_>) {
        let deadline = Instant::now() + VERIFY_TIMEOUT;
        let mut places: BTreeMap<&ProcedureName, Vec<usize>> = BTreeMap::new();
        for (place, need) in needs.iter().enumerate() {
            places.entry(&need.procedure).or_default().push(place);
        }
        let needs_of = |procedure: &ProcedureName| {
            let places = places.get(procedure).into_iter().flatten();
            places.filter_map(|place| Some((*place, needs.get(*place)?)))
        };
        let all: Vec<ProcedureName> = places.keys().map(|procedure| (*procedure).clone()).collect();
        let mut waiting: VecDeque<Vec<ProcedureName>> =
            all.chunks(PROCEDURES_PER_QUERY).map(<[_]>::to_vec).collect();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < CONNECTIONS_MAX
                && let Some(procedures) = waiting.pop_front()
            {
                reading.push(self.read_some(procedures, deadline));
            }
            match reading.next().await {
                None => return,
                Some(Ok(procedures)) => {
                    for (place, need) in procedures.iter().flat_map(needs_of) {
                        found(place, self.fits(need));
                    }
                }
                Some(Err(Failed { procedures, is_late: true, .. }))
                    if procedures.len() > 1 && Instant::now() < deadline =>
                {
                    let size = procedures.len().div_ceil(SPLIT);
                    waiting.extend(procedures.chunks(size).map(<[_]>::to_vec));
                }
                Some(Err(Failed { procedures, error, .. })) => {
                    let cause = error.source.map(|source| chain(&*source));
                    for (place, _) in procedures.iter().flat_map(needs_of) {
                        let (kind, cause) = (error.kind.clone(), cause.clone());
                        found(place, Err(BackendError { kind, source: cause.map(Into::into) }));
                    }
                }
            }
        }
    }

    /// Reads the signatures of some procedures over one connection.
    async fn read_some(
        &self,
        procedures: Vec<ProcedureName>,
        deadline: Instant,
    ) -> Result<Vec<ProcedureName>, Failed> {
        // In the line with the calls of queues that are served already: a turn that was given up would not come again.
        let mut lease = match self.pools.lease_any(deadline).await {
            Ok(lease) => lease,
            Err(error) => return Err(Failed { procedures, error, is_late: false }),
        };
        let Some(session) = lease.session() else {
            return Err(Failed { procedures, error: unavailable(), is_late: false });
        };
        // As long again: whoever has a slow server has said so there.
        let answered = deadline.min(Instant::now() + self.config.connect_timeout);
        let reading = self.signatures.read_all(&mut session.client, &procedures);
        let answer = timeout_at(answered, reading).await;
        let is_late = answer.is_err();
        match settle(lease, answer) {
            Ok(_) => Ok(procedures),
            Err(error) => Err(Failed { procedures, error, is_late }),
        }
    }

    /// Compares a need with the signature that was just read.
    fn fits(&self, need: &Need) -> Result<(), BackendError> {
        let difference = match self.signatures.known(&need.procedure) {
            Some(signature) => signature.difference(need),
            None => Some(self.missing_text()),
        };
        difference.map_or(Ok(()), |text| Err(mismatch(&need.procedure, text)))
    }
}
