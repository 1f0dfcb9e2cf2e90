//! Watches a job on its own thread: feeds its rows to the answer and stops it in time.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior};

use crate::lifecycle::Cancel;
use crate::procedures::{
    BackendError, BackendErrorKind, CallError, Cell, RowSink, SentError, SentErrorKind, SinkError,
};

use super::Sessions;
use super::run::Event;
use super::session::Session;

/// Batches on their way from a call's thread to its answer.
pub(super) const EVENTS_MAX: usize = 4;
/// How often a job that should stop is interrupted: `SQLite` forgets an interrupt between statements.
const INTERRUPT_EVERY: Duration = Duration::from_millis(5);
/// How long a job may take to stop. Past it the thread keeps its connection for as long as it runs.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Who may stop a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch<'a> {
    pub(super) deadline: Instant,
    pub(super) cancel: &'a Cancel,
    pub(super) closing: &'a Cancel,
}

/// Rows from the job's thread, and where they go.
pub(super) struct Feed<'a> {
    pub(super) events: Receiver<Event>,
    pub(super) rows: &'a mut dyn RowSink,
}

type Ended<T> = (Object<Sessions>, Result<T, CallError>);

/// Why a job is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    TimedOut,
    Cancelled,
    /// The answer takes no more rows.
    Sink(SinkError),
}

impl Stop {
    /// The error of a call that was stopped before its first statement.
    fn before(self) -> BackendErrorKind {
        match self {
            Self::TimedOut => BackendErrorKind::TimedOut,
            Self::Cancelled | Self::Sink(_) => BackendErrorKind::Cancelled,
        }
    }

    /// The error of a call that was stopped while it ran.
    fn during(self) -> SentErrorKind {
        match self {
            Self::TimedOut => SentErrorKind::TimedOut,
            Self::Cancelled => SentErrorKind::Cancelled,
            Self::Sink(error) => SentErrorKind::Sink(error),
        }
    }
}

impl Watch<'_> {
    /// Runs a job on a blocking thread until it ends or is stopped.
    ///
    /// Dropped, the job runs on and its result is lost.
    pub(super) async fn run<T: Send + 'static>(
        self,
        mut lent: Object<Sessions>,
        feed: Option<Feed<'_>>,
        job: impl FnOnce(&mut Session) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        lent.signal.reset();
        let (signal, interrupt) = (Arc::clone(&lent.signal), Arc::clone(&lent.interrupt));
        let mut ended = tokio::task::spawn_blocking(move || {
            let result = job(&mut lent);
            (lent, result)
        });
        let mut feed = feed;
        let mut stopped: Option<(Stop, Instant)> = None;
        let mut tick = tokio::time::interval(INTERRUPT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reason = tokio::select! {
                // The sign first: rows that keep coming must not hide it.
                biased;
                stop = self.sign(), if stopped.is_none() => stop,
                step = self.step(&mut feed, &mut ended) => match step {
                    Step::Ended(ended) => return conclude(*ended, stopped),
                    Step::Fed => continue,
                    Step::Refused(error) => Stop::Sink(error),
                },
                _ = tick.tick(), if stopped.is_some() => {
                    interrupt.interrupt();
                    match stopped {
                        Some((stop, since)) if since.elapsed() > STOP_MAX => {
                            return Err(stop.during().into());
                        }
                        _ => continue,
                    }
                }
            };
            // Without a receiver the job's next batch fails, also when it waits to hand it over.
            if matches!(reason, Stop::Sink(_)) {
                feed = None;
            }
            stopped = stopped.or(Some((reason, Instant::now())));
            signal.stop();
            interrupt.interrupt();
        }
    }

    /// Waits for a sign to stop.
    async fn sign(&self) -> Stop {
        tokio::select! {
            () = self.cancel.cancelled() => Stop::Cancelled,
            () = self.closing.cancelled() => Stop::Cancelled,
            () = tokio::time::sleep_until(self.deadline) => Stop::TimedOut,
        }
    }

    /// The next batch into the answer, or the job's end. Safe to drop while it waits.
    async fn step<T>(
        &self,
        feed: &mut Option<Feed<'_>>,
        ended: &mut JoinHandle<Ended<T>>,
    ) -> Step<T> {
        let Some(open) = feed else { return Step::Ended(Box::new(ended.await)) };
        // A drain that was dropped halfway is begun again here, before the next row.
        if open.rows.is_full() {
            return match open.rows.drain().await {
                Ok(()) => Step::Fed,
                Err(error) => Step::Refused(error),
            };
        }
        let Some(event) = open.events.recv().await else {
            *feed = None;
            return Step::Fed;
        };
        match pass_on(event, open.rows) {
            Ok(()) => Step::Fed,
            Err(error) => Step::Refused(error),
        }
    }
}

enum Step<T> {
    Fed,
    Refused(SinkError),
    Ended(Box<Result<Ended<T>, JoinError>>),
}

fn pass_on(event: Event, rows: &mut dyn RowSink) -> Result<(), SinkError> {
    match event {
        Event::Set(columns) => rows.begin_set(&columns),
        Event::Rows { cells, width } => {
            let mut row: Vec<Cell<'_>> = Vec::with_capacity(width);
            for chunk in cells.chunks(width.max(1)) {
                row.clear();
                row.extend(chunk.iter().map(|cell| cell.as_cell()));
                rows.row(&row)?;
            }
            Ok(())
        }
    }
}

/// What a job came to. One that finished although it was asked to stop has finished: it is committed.
fn conclude<T>(
    ended: Result<Ended<T>, JoinError>,
    stopped: Option<(Stop, Instant)>,
) -> Result<T, CallError> {
    let (lent, result) = ended.map_err(|error| SentError::caused_by(SentErrorKind::Lost, error))?;
    drop(lent);
    match (result, stopped.map(|(stop, _)| stop)) {
        (Ok(_), Some(Stop::Sink(error))) => Err(SentErrorKind::Sink(error).into()),
        (Ok(value), _) => Ok(value),
        (Err(error), None) => Err(error),
        // Stopped while it waited for the write lock: nothing ran.
        (Err(CallError::NotSent(error)), Some(Stop::TimedOut))
            if error.kind == BackendErrorKind::Unavailable =>
        {
            Err(BackendErrorKind::PoolTimedOut.into())
        }
        (Err(CallError::NotSent(error)), Some(stop)) => {
            Err(BackendError { kind: stop.before(), ..error }.into())
        }
        (Err(CallError::Sent(error)), Some(stop)) => {
            Err(SentError { kind: stop.during(), ..error }.into())
        }
    }
}
