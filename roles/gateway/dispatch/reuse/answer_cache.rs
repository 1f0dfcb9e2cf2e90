//! Stores answers for a short time, with a limit on their total size.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::envelope::Final;
use crate::outcome::Outcome;
use crate::roles::gateway::dispatch::session::SessionEnd;
use crate::telemetry::{Gauge, counter, gauge, names};

use super::key::AnswerKey;

/// An estimate of the memory that an answer needs in addition to its content and its key.
const OVERHEAD_BYTES: usize = 512;
/// An answer larger than `1 / SHARE_DIVISOR` of the cache is not stored, because it would evict many others.
const SHARE_DIVISOR: usize = 4;

/// Answers that have not expired, and possibly some that have.
pub(super) struct AnswerCache {
    state: Mutex<State>,
    gauge: Gauge,
}

#[derive(Default)]
struct State {
    bytes_max: usize,
    bytes: usize,
    answers: HashMap<AnswerKey, StoredAnswer>,
    /// The keys in the order in which their answers expire. The number distinguishes answers that expire at
    /// the same time.
    by_expiry: BTreeMap<(Instant, u64), AnswerKey>,
    stored: u64,
}

struct StoredAnswer {
    answer: Final,
    /// The time at which the answer's call began.
    called_at: Instant,
    stored_at: Instant,
    expiry: (Instant, u64),
    bytes: usize,
}

impl AnswerCache {
    /// Creates an empty cache of at most `bytes_max` bytes. With 0, nothing is stored.
    pub(super) fn new(bytes_max: usize) -> Self {
        let gauge = gauge(&names::GATEWAY_CACHED_BYTES, &[]);
        gauge.set(0.0);
        Self { state: Mutex::new(State { bytes_max, ..State::default() }), gauge }
    }

    /// Changes the limit and removes all answers.
    pub(super) fn reset(&self, bytes_max: usize) {
        *self.lock() = State { bytes_max, ..State::default() };
        self.gauge.set(0.0);
    }

    /// Returns a stored answer that has not expired, with its age.
    pub(super) fn get(&self, key: &AnswerKey, now: Instant) -> Option<(Final, Duration)> {
        let state = self.lock();
        let stored = state.answers.get(key).filter(|stored| now < stored.expiry.0)?;
        Some((stored.answer.clone(), now.saturating_duration_since(stored.stored_at)))
    }

    /// Stores a successful answer for `ttl`. If the cache is full, evicts the answers that will expire
    /// soonest. Does not replace the answer from a call that began later, because the new answer may
    /// be based on older data.
    pub(super) fn put(
        &self,
        key: AnswerKey,
        end: &SessionEnd,
        ttl: Duration,
        (called_at, now): (Instant, Instant),
    ) {
        let SessionEnd::Answer(answer) = end else { return };
        let is_complete =
            answer.status == 200 && answer.outcome == Outcome::Ok && answer.parts == 0;
        // The worker may report success with an answer that cannot be sent. The client then gets a
        // problem document, so the answer is not stored.
        let is_complete = is_complete && key.is_valid_answer(answer);
        let mut state = self.lock();
        if !is_complete || state.bytes_max == 0 {
            return;
        }
        let header_bytes = answer.content_type.len() + answer.header_bytes();
        let bytes = answer.body.len() + header_bytes + key.bytes() + OVERHEAD_BYTES;
        if bytes > state.bytes_max / SHARE_DIVISOR {
            return count_evicted("too_large");
        }
        if state.answers.get(&key).is_some_and(|stored| called_at < stored.called_at) {
            return;
        }
        state.remove(&key);
        state.remove_expired(now);
        while state.bytes + bytes > state.bytes_max && state.remove_next() {
            count_evicted("full");
        }
        // The body is copied, because it may be a small part of a large buffer whose bytes are
        // charged to one client.
        let body = Bytes::copy_from_slice(&answer.body);
        let answer = Final { body, phases: None, control: None, ..answer.clone() };
        state.stored += 1;
        let expiry = (now + ttl, state.stored);
        state.by_expiry.insert(expiry, key.clone());
        state
            .answers
            .insert(key, StoredAnswer { answer, called_at, stored_at: now, expiry, bytes });
        state.bytes += bytes;
        self.record(&state);
    }

    #[expect(clippy::cast_precision_loss, reason = "byte counts up to 2^53 are exact")]
    fn record(&self, state: &State) {
        self.gauge.set(state.bytes as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &AnswerKey) {
        if let Some(removed) = self.answers.remove(key) {
            self.bytes -= removed.bytes;
            self.by_expiry.remove(&removed.expiry);
        }
    }

    /// Removes the answer that expires next. Returns `false` if the cache is empty.
    fn remove_next(&mut self) -> bool {
        let Some((_, key)) = self.by_expiry.pop_first() else { return false };
        self.remove(&key);
        true
    }

    fn remove_expired(&mut self, now: Instant) {
        while self.by_expiry.first_key_value().is_some_and(|((expires, _), _)| *expires <= now) {
            self.remove_next();
        }
    }
}

fn count_evicted(reason: &str) {
    counter(&names::GATEWAY_CACHE_EVICTIONS, &[(names::REASON, reason.to_owned())]).increment(1);
}

impl fmt::Debug for AnswerCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCache").field("bytes", &self.lock().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::{endpoints, key};
    use super::*;
    use crate::problem::ProblemKind;

    const TTL: Duration = Duration::from_secs(5);

    fn answer(status: u16, bytes: usize) -> SessionEnd {
        SessionEnd::Answer(Final::whole(
            status,
            "text/plain",
            vec![b'x'; bytes].into(),
            Outcome::Ok,
        ))
    }

    #[test]
    fn an_answer_is_returned_until_it_expires() {
        let (cache, now) = (AnswerCache::new(1 << 20), Instant::now());
        let [own, _] = endpoints();
        let one = || key(&own, "{}", None, None);
        cache.put(one(), &answer(200, 10), TTL, (now, now));
        let (stored, age) = cache.get(&one(), now + Duration::from_millis(4999)).unwrap();
        assert_eq!((stored.body.len(), age.as_secs()), (10, 4));
        assert!(cache.get(&one(), now + TTL).is_none());
        assert!(cache.get(&key(&own, "{\"a\":1}", None, None), now).is_none());
        // A newer answer replaces it.
        cache.put(one(), &answer(200, 20), TTL, (now + TTL, now + TTL));
        assert_eq!(cache.get(&one(), now + TTL).unwrap().0.body.len(), 20);
        assert_eq!(cache.lock().answers.len(), 1);
        cache.reset(1 << 20);
        assert!(cache.get(&one(), now + TTL).is_none());
    }

    #[test]
    fn an_answer_of_an_earlier_call_does_not_replace_that_of_a_later_one() {
        let (cache, now) = (AnswerCache::new(1 << 20), Instant::now());
        let [own, _] = endpoints();
        let put = |bytes, called_at, received_at| {
            let times = (now + Duration::from_millis(called_at), now + received_at);
            cache.put(key(&own, "{}", None, None), &answer(200, bytes), TTL, times);
            cache.get(&key(&own, "{}", None, None), now + received_at).map(|it| it.0.body.len())
        };
        let millis = Duration::from_millis;
        assert_eq!(put(10, 5, millis(10)), Some(10));
        assert_eq!(put(20, 0, millis(20)), Some(10), "its call began earlier and took longer");
        assert_eq!(put(30, 6, millis(30)), Some(30));
        assert_eq!(put(40, 7, TTL + millis(40)), Some(40), "the stored one has expired");
    }

    #[test]
    fn only_successful_answers_are_stored() {
        let (cache, now) = (AnswerCache::new(1 << 20), Instant::now());
        let [own, _] = endpoints();
        let failed = Final::whole(200, "", Bytes::new(), Outcome::Other);
        let SessionEnd::Answer(mut invalid) = answer(200, 10) else { panic!("an answer") };
        invalid.content_type = "text/plain\n".into();
        for end in [
            answer(404, 10),
            answer(500, 10),
            answer(201, 10),
            SessionEnd::Problem(ProblemKind::Busy),
            SessionEnd::ClientGone,
            SessionEnd::Answer(failed),
            SessionEnd::Answer(invalid),
        ] {
            cache.put(key(&own, "{}", None, None), &end, TTL, (now, now));
            assert!(cache.lock().answers.is_empty(), "{end:?}");
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let (cache, now) = (AnswerCache::new(100_000), Instant::now());
        let [own, _] = endpoints();
        let payloads = ["1", "2", "3", "4", "5", "6"];
        for (index, payload) in (0..).zip(payloads) {
            let later = now + Duration::from_millis(index);
            cache.put(key(&own, payload, None, None), &answer(200, 20_000), TTL, (later, later));
            assert!(cache.lock().bytes <= 100_000);
        }
        let kept = |payload| cache.get(&key(&own, payload, None, None), now).is_some();
        assert_eq!(payloads.map(kept), [false, false, true, true, true, true]);
        cache.put(key(&own, "7", None, None), &answer(200, 30_000), TTL, (now, now));
        assert!(!kept("7"), "it would take more than a quarter of the cache");
        // Expired answers make room without evicting others.
        let later = (now, now + TTL * 2);
        cache.put(key(&own, "8", None, None), &answer(200, 20_000), TTL, later);
        let state = cache.lock();
        assert_eq!((state.answers.len(), state.by_expiry.len()), (1, 1));
        drop(state);
        let nothing = AnswerCache::new(0);
        nothing.put(key(&own, "1", None, None), &answer(200, 1), TTL, (now, now));
        assert!(nothing.lock().answers.is_empty());
    }
}
