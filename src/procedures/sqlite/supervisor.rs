//! Supervises a job on a blocking thread. Passes its rows to the sink, and stops it at the deadline
//! or when the call is cancelled.

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

use super::ConnectionManager;
use super::connection::SqliteConnection;
use super::execute::RowEvent;

/// The maximum number of batches buffered between a call's thread and its sink.
pub(super) const EVENTS_MAX: usize = 4;
/// The pause between interrupts of a job that must stop. Interrupts are repeated because `SQLite`
/// ignores one that arrives between statements.
const INTERRUPT_EVERY: Duration = Duration::from_millis(5);
/// The maximum wait for a job to stop. After that, its result is abandoned, but its thread keeps
/// the connection until the job ends.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Runs a job until it ends, its deadline passes, or it is cancelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobSupervisor<'a> {
    pub(super) deadline: Instant,
    pub(super) cancel: &'a Cancel,
    pub(super) closing: &'a Cancel,
}

/// The rows of a job, and the sink that receives them.
pub(super) struct RowFeed<'a> {
    pub(super) events: Receiver<RowEvent>,
    pub(super) rows: &'a mut dyn RowSink,
}

type JobOutput<T> = (Object<ConnectionManager>, Result<T, CallError>);

/// The reason why a job is interrupted.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    TimedOut,
    Cancelled,
    /// The sink accepts no more rows.
    Sink(SinkError),
}

impl Interruption {
    /// Returns the error for a call that was interrupted before its first statement.
    fn before_running(self) -> BackendErrorKind {
        match self {
            Self::TimedOut => BackendErrorKind::TimedOut,
            Self::Cancelled | Self::Sink(_) => BackendErrorKind::Cancelled,
        }
    }

    /// Returns the error for a call that was interrupted while it ran.
    fn while_running(self) -> SentErrorKind {
        match self {
            Self::TimedOut => SentErrorKind::TimedOut,
            Self::Cancelled => SentErrorKind::Cancelled,
            Self::Sink(error) => SentErrorKind::Sink(error),
        }
    }
}

impl JobSupervisor<'_> {
    /// Runs a job on a blocking thread until it ends or is stopped.
    ///
    /// If this future is dropped, the job continues and its result is lost.
    pub(super) async fn run<T: Send + 'static>(
        self,
        mut connection: Object<ConnectionManager>,
        feed: Option<RowFeed<'_>>,
        job: impl FnOnce(&mut SqliteConnection) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        connection.control.reset();
        let (control, interrupt) =
            (Arc::clone(&connection.control), Arc::clone(&connection.interrupt));
        let mut handle = tokio::task::spawn_blocking(move || {
            let result = job(&mut connection);
            (connection, result)
        });
        let mut feed = feed;
        let mut stopped: Option<(Interruption, Instant)> = None;
        let mut tick = tokio::time::interval(INTERRUPT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reason = tokio::select! {
                // The interruption is polled first, so that a stream of rows does not delay it.
                biased;
                cause = self.interruption(), if stopped.is_none() => cause,
                event = self.advance(&mut feed, &mut handle) => match event {
                    SupervisorEvent::Ended(ended) => return conclude(*ended, stopped),
                    SupervisorEvent::Fed => continue,
                    SupervisorEvent::Refused(error) => Interruption::Sink(error),
                },
                _ = tick.tick(), if stopped.is_some() => {
                    interrupt.interrupt();
                    match stopped {
                        Some((cause, since)) if since.elapsed() > STOP_MAX => {
                            return Err(cause.while_running().into());
                        }
                        _ => continue,
                    }
                }
            };
            // Dropping the receiver makes the job's next send fail, even if that send is already
            // waiting.
            if matches!(reason, Interruption::Sink(_)) {
                feed = None;
            }
            stopped = stopped.or(Some((reason, Instant::now())));
            control.stop();
            interrupt.interrupt();
        }
    }

    /// Waits until the job must be stopped.
    async fn interruption(&self) -> Interruption {
        tokio::select! {
            () = self.cancel.cancelled() => Interruption::Cancelled,
            () = self.closing.cancelled() => Interruption::Cancelled,
            () = tokio::time::sleep_until(self.deadline) => Interruption::TimedOut,
        }
    }

    /// Passes the next batch to the sink, or waits until the job ends. This method is cancel safe.
    async fn advance<T>(
        &self,
        feed: &mut Option<RowFeed<'_>>,
        handle: &mut JoinHandle<JobOutput<T>>,
    ) -> SupervisorEvent<T> {
        let Some(open) = feed else { return SupervisorEvent::Ended(Box::new(handle.await)) };
        // A drain whose future was dropped is resumed here, before the next row.
        if open.rows.is_full() {
            return match open.rows.drain().await {
                Ok(()) => SupervisorEvent::Fed,
                Err(error) => SupervisorEvent::Refused(error),
            };
        }
        let Some(event) = open.events.recv().await else {
            *feed = None;
            return SupervisorEvent::Fed;
        };
        match pass_on(event, open.rows) {
            Ok(()) => SupervisorEvent::Fed,
            Err(error) => SupervisorEvent::Refused(error),
        }
    }
}

enum SupervisorEvent<T> {
    Fed,
    Refused(SinkError),
    Ended(Box<Result<JobOutput<T>, JoinError>>),
}

fn pass_on(event: RowEvent, rows: &mut dyn RowSink) -> Result<(), SinkError> {
    match event {
        RowEvent::Set(columns) => rows.begin_set(&columns),
        RowEvent::Rows { cells, width } => {
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

/// Returns the result of a job. A job that completed despite a timeout or a cancellation was
/// committed, so it keeps its result. However, if the sink refused rows, the call fails.
fn conclude<T>(
    output: Result<JobOutput<T>, JoinError>,
    stopped: Option<(Interruption, Instant)>,
) -> Result<T, CallError> {
    let (connection, result) =
        output.map_err(|error| SentError::caused_by(SentErrorKind::Lost, error))?;
    drop(connection);
    match (result, stopped.map(|(cause, _)| cause)) {
        (Ok(_), Some(Interruption::Sink(error))) => Err(SentErrorKind::Sink(error).into()),
        (Ok(value), _) => Ok(value),
        (Err(error), None) => Err(error),
        // The job timed out waiting for the write lock, so no statement was executed.
        (Err(CallError::NotSent(error)), Some(Interruption::TimedOut))
            if error.kind == BackendErrorKind::Unavailable =>
        {
            Err(BackendErrorKind::PoolTimedOut.into())
        }
        (Err(CallError::NotSent(error)), Some(cause)) => {
            Err(BackendError { kind: cause.before_running(), ..error }.into())
        }
        (Err(CallError::Sent(error)), Some(cause)) => {
            Err(SentError { kind: cause.while_running(), ..error }.into())
        }
    }
}
