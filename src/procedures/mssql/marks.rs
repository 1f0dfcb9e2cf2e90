//! What the owner of a connection knows and says about the stream inside the driver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use super::answer::{Ended, Reported};
use super::question::Question;
use super::socket::Tcp;

/// Where a connection stands: what was asked, what was answered, and whether a cancel is under way.
#[derive(Debug)]
pub(super) struct Marks {
    tcp: Arc<Tcp>,
    state: Mutex<State>,
    questions: Mutex<Vec<Arc<Question>>>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the stream")]
struct State {
    /// The next request resets the session first.
    resets: bool,
    call: CallMessage,
    /// What the kernel had taken when the call's own message began, and when the connection was handed out.
    call_start: u64,
    lease_start: u64,
    /// A request has begun, and its end has not been taken.
    is_partial: bool,
    /// A whole request has been taken, and no whole answer to it has come.
    is_owed: bool,
    /// The server has reported a commit since the call started.
    has_committed: bool,
    /// What it has reported of transactions since then.
    reported: Reported,
    attention: Attention,
}

/// How far the message of a call has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CallMessage {
    /// No call is about to be sent.
    #[default]
    None,
    /// The next remote procedure call is the call.
    Expected,
    /// It has begun.
    Begun,
}

/// Nothing of the call has left this process. Only `Marks` makes it.
#[derive(Debug)]
pub(super) struct NothingSent(());

/// Something of the call has left this process. Only `Marks` makes it.
#[derive(Debug)]
pub(super) struct SomethingSent(());

/// How far a cancel has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Attention {
    /// There is none, or it was acknowledged.
    #[default]
    None,
    /// It is to be sent.
    Wanted,
    /// It is sent. Its acknowledgement is to come: exactly one.
    Sent,
    /// The server acknowledged what nobody had asked for: what comes next cannot be told.
    Doubtful,
}

impl Marks {
    /// Marks for a stream over this connection.
    pub(super) fn new(tcp: Arc<Tcp>) -> Self {
        Self { tcp, state: Mutex::default(), questions: Mutex::default() }
    }

    /// The next request resets the session first.
    pub(super) fn reset_next(&self) {
        self.state().resets = true;
    }

    /// The connection is handed out.
    pub(super) fn lease_starts(&self) {
        let written = self.tcp.written();
        self.questions().clear();
        let mut state = self.state();
        (state.lease_start, state.call) = (written, CallMessage::None);
    }

    /// The call starts: the next remote procedure call is it, in both of its forms. A batch that the driver sends
    /// before, to ask for the columns of a table, is no part of it; some of them are rewritten.
    pub(super) fn call_starts(&self, questions: Vec<Arc<Question>>) {
        *self.questions() = questions;
        let mut state = self.state();
        (state.call, state.has_committed) = (CallMessage::Expected, false);
        state.reported = Reported::Nothing;
    }

    /// What is sent in the place of a batch, where it is not sent as it is.
    pub(super) fn replacement(&self, packet: &[u8]) -> Option<BytesMut> {
        self.questions().iter().find_map(|question| question.replace(packet))
    }

    /// Whether the server has reported a commit since the call started: then a roll-back undoes a part at most.
    pub(super) fn has_committed(&self) -> bool {
        self.state().has_committed
    }

    /// What the server has reported of transactions since the call started.
    pub(super) fn reported(&self) -> Reported {
        self.state().reported
    }

    /// A remote procedure call begins. Nothing of it is written yet, and all that came before it is: it was answered.
    pub(super) fn procedure_call_begins(&self) {
        let written = self.tcp.written();
        let mut state = self.state();
        if state.call == CallMessage::Expected {
            (state.call, state.call_start) = (CallMessage::Begun, written);
        }
    }

    /// Whether a byte of the call has left.
    pub(super) fn sent(&self) -> Result<SomethingSent, NothingSent> {
        let state = *self.state();
        let has_left = state.call == CallMessage::Begun && self.tcp.written() > state.call_start;
        if has_left { Ok(SomethingSent(())) } else { Err(NothingSent(())) }
    }

    /// Whether nothing was asked since the connection was handed out.
    pub(super) fn is_unused(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.is_owed && self.tcp.written() == state.lease_start
    }

    /// Whether the next byte that is written would go on with a request, or with a call, that was given up.
    pub(super) fn is_cut_off(&self) -> bool {
        let state = *self.state();
        let is_held = state.call == CallMessage::Begun && self.tcp.written() <= state.call_start;
        state.is_partial || is_held
    }

    /// Asks the server to stop, unless its answer is whole already. It is sent when the driver next reads; the driver's
    /// next request leaves only after the acknowledgement has come.
    pub(super) fn stop_request(&self) {
        let mut state = self.state();
        if state.is_owed && state.attention == Attention::None {
            state.attention = Attention::Wanted;
        }
    }

    /// Whether every request was answered whole and every cancel acknowledged once: nothing is left to come.
    pub(super) fn is_settled(&self) -> bool {
        let state = *self.state();
        !state.is_partial && !state.is_owed && state.attention == Attention::None
    }

    /// Whether an idle connection is still usable.
    pub(super) fn is_quiet(&self) -> bool {
        self.tcp.is_quiet()
    }

    /// Whether this request is to reset the session. Once.
    pub(super) fn takes_reset(&self) -> bool {
        std::mem::take(&mut self.state().resets)
    }

    /// A request begins. Nothing of it is written yet.
    pub(super) fn request_begins(&self) {
        self.state().is_partial = true;
    }

    /// Before a byte of its end is written: from here on the server may come to see all of a request.
    pub(super) fn request_is_whole(&self) {
        let mut state = self.state();
        (state.is_partial, state.is_owed) = (false, true);
    }

    /// Whether a cancel is to be sent now. Once.
    pub(super) fn takes_attention(&self) -> bool {
        let mut state = self.state();
        let is_wanted = state.attention == Attention::Wanted;
        if is_wanted {
            state.attention = Attention::Sent;
        }
        is_wanted
    }

    /// Whether a cancel is under way.
    pub(super) fn is_cancelling(&self) -> bool {
        matches!(self.state().attention, Attention::Wanted | Attention::Sent)
    }

    /// The answer that is owed has come.
    pub(super) fn answered(&self, ended: Ended) {
        let mut state = self.state();
        state.is_owed = false;
        state.has_committed |= ended.commits;
        state.reported = state.reported.and(ended.reported);
        drop(state);
        if ended.acknowledges {
            self.acknowledged();
        }
        // Else it was whole before the server saw the cancel: that is acknowledged in a message of its own.
    }

    /// A cancel was acknowledged.
    pub(super) fn acknowledged(&self) {
        let mut state = self.state();
        state.attention = match state.attention {
            Attention::Sent => Attention::None,
            Attention::None | Attention::Wanted | Attention::Doubtful => Attention::Doubtful,
        };
    }

    fn questions(&self) -> MutexGuard<'_, Vec<Arc<Question>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
