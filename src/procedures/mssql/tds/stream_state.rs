//! The state of a TDS stream, shared between the stream inside the driver and the owner of the connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use super::batch_rewrite::BatchRewrite;
use super::reply::{ReplyEnd, TransactionReport};
use super::socket::TcpProbe;

/// What was requested on a connection, what was answered, and how far a cancel has progressed.
///
/// The owner of the connection announces calls and requests cancels; `TdsStream` records what it writes and reads.
#[derive(Debug)]
pub(crate) struct StreamState {
    tcp: Arc<TcpProbe>,
    state: Mutex<State>,
    rewrites: Mutex<Vec<Arc<BatchRewrite>>>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about the stream")]
struct State {
    /// The next request resets the connection before it is executed.
    resets: bool,
    call: CallMessage,
    /// Bytes that the kernel had accepted when the call's own message began, and when the connection was leased.
    call_start: u64,
    lease_start: u64,
    /// A request was begun and is not completely buffered yet.
    is_partial: bool,
    /// A complete request was buffered, and its answer has not completely arrived.
    is_owed: bool,
    /// The server has reported a commit since the call started.
    has_committed: bool,
    /// What the server has reported about transactions since the call started.
    report: TransactionReport,
    attention: Attention,
}

/// The progress of a call's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CallMessage {
    /// No call is about to be sent.
    #[default]
    None,
    /// The next remote procedure call is the call.
    Expected,
    /// The message has begun.
    Begun,
}

/// Proves that no byte of the call has left this process. Only `StreamState` creates it.
#[derive(Debug)]
pub(crate) struct NothingSent(());

/// Proves that some of the call has left this process. Only `StreamState` creates it.
#[derive(Debug)]
pub(crate) struct SomethingSent(());

/// The progress of a cancel, which TDS calls attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Attention {
    /// There is none, or it was acknowledged.
    #[default]
    None,
    /// It was requested and not sent yet.
    Wanted,
    /// It was sent, and exactly one acknowledgement is outstanding.
    Sent,
    /// The server acknowledged a cancel that was not sent: what it sends next is uncertain.
    Doubtful,
}

impl StreamState {
    /// Creates the state of a stream over this connection.
    pub(super) fn new(tcp: Arc<TcpProbe>) -> Self {
        Self { tcp, state: Mutex::default(), rewrites: Mutex::default() }
    }

    /// Makes the next request reset the connection before it is executed.
    pub(crate) fn reset_next(&self) {
        self.state().resets = true;
    }

    /// Records that the connection is leased.
    pub(crate) fn start_lease(&self) {
        let written = self.tcp.written();
        self.rewrites().clear();
        let mut state = self.state();
        (state.lease_start, state.call) = (written, CallMessage::None);
    }

    /// Announces a call: the next remote procedure call is the call, also if it is sent as a statement. A batch that the
    /// driver sends before it, to query the columns of a table type, is not part of it; `rewrites` replace such batches.
    pub(crate) fn start_call(&self, rewrites: Vec<Arc<BatchRewrite>>) {
        *self.rewrites() = rewrites;
        let mut state = self.state();
        (state.call, state.has_committed) = (CallMessage::Expected, false);
        state.report = TransactionReport::Nothing;
    }

    /// Returns what is sent in place of a batch, or `None` if it is sent unchanged.
    pub(super) fn replacement(&self, packet: &[u8]) -> Option<BytesMut> {
        self.rewrites().iter().find_map(|rewrite| rewrite.replace(packet))
    }

    /// Whether the server has reported a commit since the call started. Then a roll-back undoes at most a part of the call.
    pub(crate) fn has_committed(&self) -> bool {
        self.state().has_committed
    }

    /// Returns what the server has reported about transactions since the call started.
    pub(crate) fn transaction_report(&self) -> TransactionReport {
        self.state().report
    }

    /// Records the start of a remote procedure call. Nothing of it is written yet, and everything before it was written,
    /// because it was answered.
    pub(super) fn begin_procedure_call(&self) {
        let written = self.tcp.written();
        let mut state = self.state();
        if state.call == CallMessage::Expected {
            (state.call, state.call_start) = (CallMessage::Begun, written);
        }
    }

    /// Returns whether a byte of the call has left this process.
    pub(crate) fn sent(&self) -> Result<SomethingSent, NothingSent> {
        let state = *self.state();
        let has_left = state.call == CallMessage::Begun && self.tcp.written() > state.call_start;
        if has_left { Ok(SomethingSent(())) } else { Err(NothingSent(())) }
    }

    /// Whether nothing was requested since the connection was leased.
    pub(crate) fn is_unused(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.is_owed && self.tcp.written() == state.lease_start
    }

    /// Whether the next byte that is written would continue a request or a call that was abandoned.
    pub(crate) fn is_cut_off(&self) -> bool {
        let state = *self.state();
        let is_buffered =
            state.call == CallMessage::Begun && self.tcp.written() <= state.call_start;
        state.is_partial || is_buffered
    }

    /// Requests a cancel, unless the answer is already complete. It is sent when the driver reads next; the driver's next
    /// request is sent only after the acknowledgement.
    pub(crate) fn request_cancel(&self) {
        let mut state = self.state();
        if state.is_owed && state.attention == Attention::None {
            state.attention = Attention::Wanted;
        }
    }

    /// Whether every request was completely answered and every cancel acknowledged once, so that nothing is left to read.
    pub(crate) fn is_settled(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.is_owed && state.attention == Attention::None
    }

    /// Whether an idle connection is still usable.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tcp.is_quiet()
    }

    /// Returns whether this request resets the connection, and clears the flag.
    pub(super) fn take_reset(&self) -> bool {
        std::mem::take(&mut self.state().resets)
    }

    /// Records the start of a request. Nothing of it is written yet.
    pub(super) fn begin_request(&self) {
        self.state().is_partial = true;
    }

    /// Records that a request is complete. Must be called before its last byte is written: from then on the server may
    /// receive all of it.
    pub(super) fn complete_request(&self) {
        let mut state = self.state();
        (state.is_partial, state.is_owed) = (false, true);
    }

    /// Returns whether a cancel must be sent now, and marks it as sent.
    pub(super) fn take_attention(&self) -> bool {
        let mut state = self.state();
        let is_wanted = state.attention == Attention::Wanted;
        if is_wanted {
            state.attention = Attention::Sent;
        }
        is_wanted
    }

    /// Whether a cancel was requested and not acknowledged yet.
    pub(super) fn is_cancelling(&self) -> bool {
        matches!(self.state().attention, Attention::Wanted | Attention::Sent)
    }

    /// Records the end of an outstanding answer.
    pub(super) fn record_answer(&self, end: ReplyEnd) {
        let mut state = self.state();
        state.is_owed = false;
        state.has_committed |= end.commits;
        state.report = state.report.followed_by(end.report);
        drop(state);
        // Without the acknowledgement, the answer was complete before the server saw the cancel: the acknowledgement
        // follows in a message of its own.
        if end.acknowledges {
            self.record_acknowledgement();
        }
    }

    /// Records that the server acknowledged a cancel.
    pub(super) fn record_acknowledgement(&self) {
        let mut state = self.state();
        state.attention = match state.attention {
            Attention::Sent => Attention::None,
            Attention::None | Attention::Wanted | Attention::Doubtful => Attention::Doubtful,
        };
    }

    fn rewrites(&self) -> MutexGuard<'_, Vec<Arc<BatchRewrite>>> {
        self.rewrites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
