//! Coalesces HTTP/2 responses that are ready at the same time, so that they share a TLS record and
//! a system call.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::yield_now;

use super::super::activity::ConnectionActivity;

/// While at least two requests of a connection are running, polls the connection only after all
/// other ready tasks have run. Each response wakes the connection's task, and tokio runs a woken
/// task directly after the task that woke it, so each response would otherwise be written
/// separately. With a single request, such as a large download or upload, there is nothing to
/// coalesce. This function is cancel safe if the future is.
///
/// The task is polled when its thread has no other task to run, or has run as many tasks as tokio runs between two checks for
/// I/O (61).
pub(in super::super) async fn coalesce_writes<F: Future>(
    activity: &ConnectionActivity,
    mut connection: Pin<&mut F>,
) -> F::Output {
    let mut pending_yield: Option<Arc<YieldedTask>> = None;
    std::future::poll_fn(|context| {
        match &pending_yield {
            // Another response woke the task. The yield is still pending, and both responses will be written together.
            Some(yielded) if yielded.is_pending(context) => return Poll::Pending,
            Some(_) => pending_yield = None,
            None if activity.runs_several() => {
                let yielded = Arc::new(YieldedTask {
                    is_over: AtomicBool::new(false),
                    connection: context.waker().clone(),
                });
                let waker = Waker::from(Arc::clone(&yielded));
                // `yield_now` also runs after the tasks that new I/O events make ready.
                if pin!(yield_now()).poll(&mut Context::from_waker(&waker)).is_pending() {
                    pending_yield = Some(yielded);
                    return Poll::Pending;
                }
            }
            None => {}
        }
        connection.as_mut().poll(context)
    })
    .await
}

/// A yield of the connection's task.
struct YieldedTask {
    is_over: AtomicBool,
    connection: Waker,
}

impl YieldedTask {
    /// Returns whether the yield is pending and will wake the task of `context`.
    fn is_pending(&self, context: &Context<'_>) -> bool {
        !self.is_over.load(Ordering::Acquire) && self.connection.will_wake(context.waker())
    }
}

impl Wake for YieldedTask {
    fn wake(self: Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        self.connection.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_connection_yields_once_regardless_of_what_wakes_it() {
        let activity = Arc::new(ConnectionActivity::new());
        let runs = Cell::new(0);
        let connection = pin!(std::future::poll_fn(|_| {
            runs.set(runs.get() + 1);
            Poll::<()>::Pending
        }));
        let mut coalesced = pin!(coalesce_writes(&activity, connection));
        let mut runs_after_a_wake = async || {
            assert!(poll!(&mut coalesced).is_pending());
            runs.get()
        };
        let _first = activity.begin_request(true);
        assert_eq!(runs_after_a_wake().await, 1, "with one request it does not yield");
        let second = activity.begin_request(true);
        assert_eq!(runs_after_a_wake().await, 1, "it yields");
        assert_eq!(runs_after_a_wake().await, 1, "another response does not end the yield");
        yield_now().await;
        assert_eq!(runs_after_a_wake().await, 2, "the yield is over");
        assert_eq!(runs_after_a_wake().await, 2, "it yields again");
        drop(second);
        yield_now().await;
        assert_eq!(runs_after_a_wake().await, 3);
        assert_eq!(runs_after_a_wake().await, 4, "with one request again, it does not yield");
    }

    #[tokio::test]
    async fn a_connection_that_moves_to_another_task_does_not_wait_for_the_old_one() {
        let activity = Arc::new(ConnectionActivity::new());
        let _requests = [activity.begin_request(true), activity.begin_request(true)];
        let connection = pin!(std::future::ready(()));
        let mut coalesced = pin!(coalesce_writes(&activity, connection));
        assert!(poll!(&mut coalesced).is_pending());
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(coalesced.as_mut().poll(&mut elsewhere).is_ready());
    }
}
