//! Lets the answers of one moment leave together: over HTTP/2 they share a connection, and then a TLS record and a
//! system call as well.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::yield_now;

use super::activity::Activity;

/// Runs a connection behind everybody who is ready, while several requests run on it: each answer wakes it, and our
/// runtime runs it directly after whoever woke it, so that it would find one answer to write. A connection whose
/// requests come one at a time does not step back. As safe to drop as the future is.
pub(super) async fn together<F: Future>(
    activity: &Activity,
    mut connection: Pin<&mut F>,
) -> F::Output {
    let mut stepped_back: Option<Arc<Turn>> = None;
    std::future::poll_fn(|context| {
        match &stepped_back {
            // Woken by one more answer: the turn comes, and then both leave.
            Some(turn) if !turn.has_come.load(Ordering::Acquire) => return Poll::Pending,
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

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.connection.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// How often a connection runs while so many answers wake it at one moment, and so many requests run on it.
    async fn runs(answers: usize, requests: usize) -> usize {
        let activity = Arc::new(Activity::new());
        let running: Vec<_> = (0..requests).map(|_| activity.begin()).collect();
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let (runs, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let connection = {
            let (waker, runs, answered) =
                (Rc::clone(&waker), Rc::clone(&runs), Rc::clone(&answered));
            async move {
                let connection = pin!(std::future::poll_fn(move |context| {
                    *waker.borrow_mut() = Some(context.waker().clone());
                    runs.set(runs.get() + 1);
                    if answered.get() == answers { Poll::Ready(()) } else { Poll::Pending }
                }));
                together(&activity, connection).await;
                drop(running);
            }
        };
        let connection = spawn_local(connection);
        while waker.borrow().is_none() {
            yield_now().await;
        }
        let before = runs.get();
        for _ in 0..answers {
            let (waker, answered) = (Rc::clone(&waker), Rc::clone(&answered));
            drop(spawn_local(async move {
                answered.set(answered.get() + 1);
                if let Some(waker) = &*waker.borrow() {
                    waker.wake_by_ref();
                }
            }));
        }
        connection.await.unwrap();
        runs.get() - before
    }

    #[test]
    fn the_answers_of_one_moment_run_a_connection_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (answers, requests) in [(8, 8), (3, 2), (1, 0), (1, 1)] {
            let found = LocalSet::new().block_on(&runtime, runs(answers, requests));
            assert_eq!(found, 1, "{answers} answers while {requests} requests run");
        }
    }
}
