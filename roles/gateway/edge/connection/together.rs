//! Lets the answers of one moment leave together: over HTTP/2 they share a connection, and then a TLS record and a
//! system call as well.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::yield_now;

use super::activity::Activity;

/// Runs a connection behind everybody who is ready, while at least two more requests run on it: each answer wakes it,
/// and our runtime runs it directly after whoever woke it, so that it would find one answer to write. With fewer, as
/// when one large answer or body moves, it would wait for nobody. As safe to drop as the future is.
///
/// Its turn comes when its thread has nothing else to run, or has run so many tasks that the runtime looks for what has
/// arrived (tokio: 61).
pub(super) async fn together<F: Future>(
    activity: &Activity,
    mut connection: Pin<&mut F>,
) -> F::Output {
    let mut stepped_back: Option<Arc<Turn>> = None;
    std::future::poll_fn(|context| {
        match &stepped_back {
            // Woken by one more answer: the turn comes, and then both leave.
            Some(turn) if turn.is_to_come(context) => return Poll::Pending,
            Some(_) => stepped_back = None,
            None if activity.runs_several() => {
                let turn = Arc::new(Turn {
                    has_come: AtomicBool::new(false),
                    connection: context.waker().clone(),
                });
                let waker = Waker::from(Arc::clone(&turn));
                // Behind those, too, who become ready by what has arrived meanwhile.
                if pin!(yield_now()).poll(&mut Context::from_waker(&waker)).is_pending() {
                    stepped_back = Some(turn);
                    return Poll::Pending;
                }
            }
            None => {}
        }
        connection.as_mut().poll(context)
    })
    .await
}

/// The turn of a connection that has stepped back. It always comes.
struct Turn {
    has_come: AtomicBool,
    connection: Waker,
}

impl Turn {
    /// Whether it has not come yet, and will wake whoever asks.
    fn is_to_come(&self, context: &Context<'_>) -> bool {
        !self.has_come.load(Ordering::Acquire) && self.connection.will_wake(context.waker())
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.connection.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_connection_waits_for_its_turn_whoever_wakes_it() {
        let activity = Arc::new(Activity::new());
        let runs = Cell::new(0);
        let connection = pin!(std::future::poll_fn(|_| {
            runs.set(runs.get() + 1);
            Poll::<()>::Pending
        }));
        let mut together = pin!(together(&activity, connection));
        let mut runs_after_a_wake = async || {
            assert!(poll!(&mut together).is_pending());
            runs.get()
        };
        let _first = activity.begin(true);
        assert_eq!(runs_after_a_wake().await, 1, "alone it does not step back");
        let second = activity.begin(true);
        assert_eq!(runs_after_a_wake().await, 1, "it steps back");
        assert_eq!(runs_after_a_wake().await, 1, "another answer is not its turn");
        yield_now().await;
        assert_eq!(runs_after_a_wake().await, 2, "its turn");
        assert_eq!(runs_after_a_wake().await, 2, "and it steps back again");
        drop(second);
        yield_now().await;
        assert_eq!(runs_after_a_wake().await, 3);
        assert_eq!(runs_after_a_wake().await, 4, "alone again");
    }

    #[tokio::test]
    async fn a_connection_that_moves_to_another_task_does_not_wait_for_the_turn_of_the_old() {
        let activity = Arc::new(Activity::new());
        let _requests = [activity.begin(true), activity.begin(true)];
        let connection = pin!(std::future::ready(()));
        let mut together = pin!(together(&activity, connection));
        assert!(poll!(&mut together).is_pending());
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(together.as_mut().poll(&mut elsewhere).is_ready());
    }
}
