//! The state of a TDS stream, shared between the driver's stream and the connection's owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::batch_rewrite::BatchRewrite;
use super::collation::Utf8Column;
use super::joined_calls::PrecedingCalls;
use super::reply::{ReplyEnd, TransactionReport};
use super::socket::TcpProbe;
use super::tokens::ScannedMessage;
use crate::procedures::mssql::server_message::MessageLog;

/// The requests and answers of a connection, and the progress of a cancel request.
///
/// The owner announces calls and asks for cancel requests. `TdsStream` records its writes and
/// reads.
#[derive(Debug)]
pub(crate) struct StreamState {
    tcp: Arc<TcpProbe>,
    state: Mutex<State>,
    rewrites: Mutex<Vec<Arc<BatchRewrite>>>,
    /// The remote procedure calls that precede the call in its message.
    preceding: Mutex<Bytes>,
    /// The errors and messages received since the call's message began.
    messages: Mutex<MessageLog>,
    /// The columns in UTF-8 of result sets that the driver has not returned yet.
    utf8_columns: Mutex<Vec<Utf8Column>>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about the stream")]
struct State {
    /// Whether the next request resets the connection before it is executed.
    resets: bool,
    call: CallMessage,
    /// The number of bytes that the kernel had accepted when the call's message began.
    call_start: u64,
    /// The number of bytes that the kernel had accepted when the connection was leased.
    lease_start: u64,
    /// Whether a request has begun and is not yet completely buffered.
    is_partial: bool,
    /// Whether a complete request was buffered and its answer has not yet completely arrived.
    awaits_answer: bool,
    /// Whether the server has reported a commit since the call started.
    has_committed: bool,
    /// The server's report about transactions since the call started.
    report: TransactionReport,
    /// The number of remote procedure calls that precede the call in its message, or 0 after the
    /// call's answer has ended.
    preceding_calls: usize,
    attention: Attention,
}

/// The progress of a call's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CallMessage {
    /// No call was announced.
    #[default]
    None,
    /// The next remote procedure call is the call.
    Expected,
    /// The message has begun.
    Begun,
}

/// Proof that no byte of the call has left this process. Only `StreamState` creates one.
#[derive(Debug)]
pub(crate) struct NotSentProof(());

/// Proof that at least one byte of the call has left this process. Only `StreamState` creates one.
#[derive(Debug)]
pub(crate) struct SentProof(());

/// The progress of a cancel request, which TDS calls an attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Attention {
    /// There is no cancel request, or it was acknowledged.
    #[default]
    None,
    /// The owner has asked for a cancel request, which has not been sent yet.
    Requested,
    /// The cancel request was sent, and exactly one acknowledgement is outstanding.
    Sent,
    /// The server acknowledged a cancel request that was not sent, so its next message is
    /// unpredictable.
    Unsynchronized,
}

impl StreamState {
    pub(super) fn new(tcp: Arc<TcpProbe>) -> Self {
        Self {
            tcp,
            state: Mutex::default(),
            rewrites: Mutex::default(),
            preceding: Mutex::default(),
            messages: Mutex::default(),
            utf8_columns: Mutex::default(),
        }
    }

    /// Makes the next request reset the connection first.
    pub(crate) fn reset_next(&self) {
        self.state().resets = true;
    }

    /// Records that the connection is leased.
    pub(crate) fn start_lease(&self) {
        let written = self.tcp.written();
        self.rewrites().clear();
        self.preceding().clear();
        let mut state = self.state();
        (state.lease_start, state.call) = (written, CallMessage::None);
    }

    /// Announces a call. The next remote procedure call on the wire is the call, even if the call
    /// is sent as a statement (`sp_executesql`). The driver first sends batches that query the
    /// columns of table types. They are not part of the call, and `rewrites` contains their
    /// replacements. The remote procedure calls in `preceding` are sent before the call, in its
    /// message.
    pub(crate) fn start_call(&self, rewrites: Vec<Arc<BatchRewrite>>, preceding: PrecedingCalls) {
        *self.rewrites() = rewrites;
        *self.preceding() = preceding.bytes;
        self.take_messages();
        self.utf8_columns().clear();
        let mut state = self.state();
        state.preceding_calls = preceding.count;
        (state.call, state.has_committed) = (CallMessage::Expected, false);
        state.report = TransactionReport::Nothing;
    }

    /// Returns the replacement of a batch, or `None` if the batch is sent unchanged.
    pub(super) fn replacement(&self, packet: &[u8]) -> Option<BytesMut> {
        self.rewrites().iter().find_map(|rewrite| rewrite.replace(packet))
    }

    /// Returns whether the server has reported a commit since the call started. If so, a rollback
    /// undoes at most part of the call.
    pub(crate) fn has_committed(&self) -> bool {
        self.state().has_committed
    }

    /// Returns the server's report about transactions since the call started.
    pub(crate) fn transaction_report(&self) -> TransactionReport {
        self.state().report
    }

    /// Records the start of a remote procedure call, before any part of it is written. All earlier
    /// requests were written, because they were answered. Returns the remote procedure calls that
    /// precede this one in its message.
    pub(super) fn begin_procedure_call(&self) -> Bytes {
        let written = self.tcp.written();
        let mut state = self.state();
        if state.call != CallMessage::Expected {
            return Bytes::new();
        }
        (state.call, state.call_start) = (CallMessage::Begun, written);
        drop(state);
        std::mem::take(&mut *self.preceding())
    }

    /// Returns proof that a byte of the call has left this process, or proof that none has.
    pub(crate) fn sent(&self) -> Result<SentProof, NotSentProof> {
        let state = *self.state();
        let has_left = state.call == CallMessage::Begun && self.tcp.written() > state.call_start;
        if has_left { Ok(SentProof(())) } else { Err(NotSentProof(())) }
    }

    /// Returns whether no request has begun since the connection was leased.
    pub(crate) fn is_unused(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.awaits_answer && self.tcp.written() == state.lease_start
    }

    /// Returns whether the next byte written would belong to an abandoned request or call.
    pub(crate) fn is_cut_off(&self) -> bool {
        let state = *self.state();
        let is_buffered =
            state.call == CallMessage::Begun && self.tcp.written() <= state.call_start;
        state.is_partial || is_buffered
    }

    /// Asks for a cancel request, unless the answer is already complete. The cancel request is sent
    /// on the driver's next read. The driver's next request is sent only after the acknowledgement.
    pub(crate) fn request_cancel(&self) {
        let mut state = self.state();
        if state.awaits_answer && state.attention == Attention::None {
            state.attention = Attention::Requested;
        }
    }

    /// Returns whether every request was completely answered and every cancel request was
    /// acknowledged exactly once. If so, nothing is left to read.
    pub(crate) fn is_settled(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.awaits_answer && state.attention == Attention::None
    }

    /// Returns whether an idle connection is still usable.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tcp.is_quiet()
    }

    /// Returns whether this request resets the connection, and clears the flag.
    pub(super) fn take_reset(&self) -> bool {
        std::mem::take(&mut self.state().resets)
    }

    /// Records the start of a request, before any part of it is written.
    pub(super) fn begin_request(&self) {
        self.state().is_partial = true;
    }

    /// Records that a request is complete. Must be called before the last byte is written, because
    /// the server can receive the whole request after that.
    pub(super) fn complete_request(&self) {
        let mut state = self.state();
        (state.is_partial, state.awaits_answer) = (false, true);
    }

    /// Returns whether a cancel request must be sent now, and marks it as sent.
    pub(super) fn take_attention(&self) -> bool {
        let mut state = self.state();
        let is_requested = state.attention == Attention::Requested;
        if is_requested {
            state.attention = Attention::Sent;
        }
        is_requested
    }

    /// Returns whether there is a cancel request that has not been acknowledged yet.
    pub(super) fn is_cancelling(&self) -> bool {
        matches!(self.state().attention, Attention::Requested | Attention::Sent)
    }

    /// Records the end of an outstanding answer.
    pub(super) fn record_answer(&self, end: ReplyEnd) {
        let mut state = self.state();
        state.awaits_answer = false;
        if state.call == CallMessage::Begun {
            // Only the call's own answer contains the results of the preceding calls. A later answer can be
            // that of COMMIT.
            state.preceding_calls = 0;
        }
        state.has_committed |= end.commits;
        state.report = state.report.followed_by(end.report);
        drop(state);
        // An answer without the acknowledgement was complete before the server saw the cancel
        // request. The acknowledgement then follows in a separate message.
        if end.acknowledges {
            self.record_acknowledgement();
        }
    }

    /// Takes the errors and messages received since the call's message began.
    pub(crate) fn take_messages(&self) -> MessageLog {
        std::mem::take(&mut *self.messages())
    }

    /// Records errors and messages. Messages of requests before the call are discarded.
    pub(super) fn record_messages(&self, messages: Vec<ScannedMessage>) {
        let state = *self.state();
        if state.call != CallMessage::Begun {
            return;
        }
        let mut log = self.messages();
        for ScannedMessage { is_error, ended_calls, message } in messages {
            if is_error {
                log.add_error(message, ended_calls < state.preceding_calls);
            } else {
                log.add_message(message);
            }
        }
    }

    /// Records columns in UTF-8. Those of requests before the call are discarded.
    pub(super) fn record_utf8_columns(&self, columns: Vec<Utf8Column>) {
        let state = *self.state();
        // The columns of a cancelled answer are not needed.
        if state.call == CallMessage::Begun && state.attention == Attention::None {
            self.utf8_columns().extend(columns);
        }
    }

    /// Takes the columns in UTF-8 of a result set, and forgets those of the sets before it.
    pub(crate) fn take_utf8_columns(&self, set: usize) -> Vec<Utf8Column> {
        let mut columns = self.utf8_columns();
        if columns.is_empty() {
            return Vec::new();
        }
        let taken = columns.iter().filter(|one| one.set == set).copied().collect();
        columns.retain(|one| one.set > set);
        taken
    }

    /// Records that the server acknowledged a cancel request.
    pub(super) fn record_acknowledgement(&self) {
        let mut state = self.state();
        state.attention = match state.attention {
            Attention::Sent => Attention::None,
            Attention::None | Attention::Requested | Attention::Unsynchronized => {
                Attention::Unsynchronized
            }
        };
    }

    fn preceding(&self) -> MutexGuard<'_, Bytes> {
        self.preceding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rewrites(&self) -> MutexGuard<'_, Vec<Arc<BatchRewrite>>> {
        self.rewrites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self) -> MutexGuard<'_, MessageLog> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn utf8_columns(&self) -> MutexGuard<'_, Vec<Utf8Column>> {
        self.utf8_columns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
