//! Lets identical concurrent requests share one call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::lifecycle::Tasks;
use crate::roles::gateway::client::CallerKey;
use crate::telemetry::context;

use super::completed_call::CompletedCall;
use super::key::AnswerKey;

/// The maximum number of requests that wait for one call. The next request starts another call. All
/// waiting requests continue at the same time when the call ends, so a higher limit would delay
/// other requests.
const WAITERS_MAX: usize = 1024;

/// The result of a call, for all requests that wait for it. `None` before the call has ended.
type SharedResult = Option<Arc<CompletedCall>>;

/// The running calls whose answers can be shared.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    calls: Mutex<HashMap<AnswerKey, JoinableCall>>,
}

/// A call that further requests can join.
#[derive(Debug)]
struct JoinableCall {
    /// The caller whose turns in the wait queue the call uses.
    leader: CallerKey,
    result: Arc<watch::Sender<SharedResult>>,
}

/// The caller of a request, and a function that returns the number of a caller's requests in the wait queue.
#[derive(Clone, Copy)]
pub(super) struct Requester<'a> {
    pub(super) caller: CallerKey,
    pub(super) waiters_of: &'a (dyn Fn(CallerKey) -> usize + Sync),
}

impl Requester<'_> {
    /// Returns whether the requester's own call would probably not be served earlier than a call of `leader`. A call
    /// uses its leader's turns, so the call of a caller with many waiting requests must wait for all of these
    /// requests.
    fn may_join(&self, leader: CallerKey) -> bool {
        leader == self.caller || (self.waiters_of)(leader) <= (self.waiters_of)(self.caller) + 1
    }
}

/// The role of a request in a shared call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoalescedRole {
    /// The request started the call.
    Leader,
    /// The request is waiting for the call of another request.
    Follower,
}

/// Removes a call from the table when its task ends, even if it panics.
struct SharedCall {
    coalescer: Arc<Coalescer>,
    key: AnswerKey,
    result: Arc<watch::Sender<SharedResult>>,
}

impl Coalescer {
    /// Returns the result of a running call with the same key. If there is no such call that the requester may join,
    /// runs `call` and returns its result. The result is `None` if the call panicked.
    ///
    /// The call runs in its own task. It is dropped, which has the same effect as a client's disconnect, only when
    /// no request is waiting for it any more.
    pub(super) async fn call(
        self: &Arc<Self>,
        (key, requester): (AnswerKey, Requester<'_>),
        call: impl Future<Output = CompletedCall> + Send + 'static,
        tasks: &Tasks,
    ) -> (SharedResult, CoalescedRole) {
        let (mut result, role) = self.join((key, requester), call, tasks);
        let ended = result.wait_for(Option::is_some).await;
        (ended.ok().and_then(|result| result.clone()), role)
    }

    fn join(
        self: &Arc<Self>,
        (key, requester): (AnswerKey, Requester<'_>),
        call: impl Future<Output = CompletedCall> + Send + 'static,
        tasks: &Tasks,
    ) -> (watch::Receiver<SharedResult>, CoalescedRole) {
        let mut calls = self.lock();
        if let Some(JoinableCall { leader, result }) = calls.get(&key)
            && result.receiver_count() < WAITERS_MAX
            && requester.may_join(*leader)
        {
            return (result.subscribe(), CoalescedRole::Follower);
        }
        let (sender, receiver) = watch::channel(None);
        let result = Arc::new(sender);
        // A running call that the requester may not join is replaced here, but continues.
        let leader = requester.caller;
        calls.insert(key.clone(), JoinableCall { leader, result: Arc::clone(&result) });
        drop(calls);
        let running = SharedCall { coalescer: Arc::clone(self), key, result };
        let _detached = tasks.spawn(context::inherit(async move {
            tokio::select! {
                result = call => running.end(result),
                () = running.abandoned() => {}
            }
        }));
        (receiver, CoalescedRole::Leader)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AnswerKey, JoinableCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedCall {
    /// Waits until no request is waiting for the call. After that, no request can join it.
    async fn abandoned(&self) {
        loop {
            self.result.closed().await;
            let mut calls = self.coalescer.lock();
            // A request may have joined in the meantime. Joining requires the lock.
            if self.result.receiver_count() == 0 {
                self.remove(&mut calls);
                return;
            }
        }
    }

    fn end(&self, result: CompletedCall) {
        // The call is removed first: a request that arrives now must see the state after the call.
        self.remove(&mut self.coalescer.lock());
        self.result.send_replace(Some(Arc::new(result)));
    }

    fn remove(&self, calls: &mut HashMap<AnswerKey, JoinableCall>) {
        if calls.get(&self.key).is_some_and(|known| Arc::ptr_eq(&known.result, &self.result)) {
            calls.remove(&self.key);
        }
    }
}

impl Drop for SharedCall {
    fn drop(&mut self) {
        self.remove(&mut self.coalescer.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::super::completed_call::tests::answered;
    use super::super::key::tests::{endpoints, key};
    use super::*;
    use crate::roles::gateway::client::ClientNetwork;
    use crate::roles::gateway::dispatch::session::SessionEnd;

    fn caller(name: &str) -> CallerKey {
        CallerKey::new(Some(name), ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0))
    }

    /// Returns a requester whose function reports that no caller has requests in the wait queue.
    fn requester() -> Requester<'static> {
        Requester { caller: caller("ann"), waiters_of: &|_| 0 }
    }

    fn body(result: &SharedResult) -> Bytes {
        match result.as_deref() {
            Some(CompletedCall { end: SessionEnd::Answer(answer), .. }) => answer.body.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_follower_gets_the_answer_even_if_the_leader_leaves() {
        let (coalescer, tasks) = (Arc::new(Coalescer::default()), Tasks::new());
        let [own, _] = endpoints();
        let (release, calls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let call = |body: &'static str| {
            let (release, calls) = (Arc::clone(&release), Arc::clone(&calls));
            async move {
                calls.fetch_add(1, Ordering::Relaxed);
                release.notified().await;
                answered(body)
            }
        };
        let one = || key(&own, "{}", None, None);
        let (leader, role) = coalescer.join((one(), requester()), call("first"), &tasks);
        assert_eq!(role, CoalescedRole::Leader);
        let (follower, role) = coalescer.join((one(), requester()), call("second"), &tasks);
        assert_eq!(role, CoalescedRole::Follower);
        let (other, role) = coalescer.join(
            (key(&own, "{\"a\":1}", None, None), requester()),
            call("third"),
            &tasks,
        );
        assert_eq!(role, CoalescedRole::Leader, "another key");
        drop((leader, other));
        // Waits until the abandoned call has been removed and the other one has begun.
        while coalescer.lock().len() > 1 || calls.load(Ordering::Relaxed) < 1 {
            yield_now().await;
        }
        release.notify_waiters();
        let mut follower = follower;
        let ended = follower.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(body(&ended), "first");
        assert!(coalescer.lock().is_empty(), "an ended call is removed");
        assert!(tasks.wait(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_call_that_panics_ends_for_every_waiter() {
        let (coalescer, tasks) = (Arc::new(Coalescer::default()), Tasks::new());
        let [own, _] = endpoints();
        let call = async { panic!("a bug") };
        let (result, role) =
            coalescer.call((key(&own, "{}", None, None), requester()), call, &tasks).await;
        assert!(result.is_none() && role == CoalescedRole::Leader);
        assert!(coalescer.lock().is_empty());
    }

    #[tokio::test]
    async fn a_call_that_waits_behind_many_others_of_its_caller_is_not_joined_by_another_caller() {
        let (coalescer, tasks) = (Arc::new(Coalescer::default()), Tasks::new());
        let [_, shared] = endpoints();
        let waiters_of = |whose| if whose == caller("many") { 100 } else { 1 };
        let mut waiters = Vec::new();
        for (name, expected) in [
            ("many", CoalescedRole::Leader),
            ("many", CoalescedRole::Follower),
            ("ann", CoalescedRole::Leader),
            ("bob", CoalescedRole::Follower),
            ("many", CoalescedRole::Follower),
        ] {
            let requester = Requester { caller: caller(name), waiters_of: &waiters_of };
            let call = async {
                std::future::pending::<()>().await;
                answered("late")
            };
            let key = key(&shared, "{}", None, None);
            let (waiter, role) = coalescer.join((key, requester), call, &tasks);
            assert_eq!(role, expected, "{name}");
            waiters.push(waiter);
        }
        drop(waiters);
        assert!(tasks.wait(Duration::from_secs(5)).await, "abandoned calls end");
        assert!(coalescer.lock().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_waiters_is_bounded() {
        let (coalescer, tasks) = (Arc::new(Coalescer::default()), Tasks::new());
        let [own, _] = endpoints();
        let call = || async {
            std::future::pending::<()>().await;
            answered("late")
        };
        let mut waiters = Vec::new();
        let mut leaders = 0;
        for _ in 0..=WAITERS_MAX {
            let key = key(&own, "{}", None, None);
            let (waiter, role) = coalescer.join((key, requester()), call(), &tasks);
            leaders += usize::from(role == CoalescedRole::Leader);
            waiters.push(waiter);
        }
        assert_eq!(leaders, 2);
        drop(waiters);
        assert!(tasks.wait(Duration::from_secs(5)).await, "abandoned calls end");
    }
}
