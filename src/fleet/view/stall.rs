//! Describes the evidence that a queue's requests do not make progress.

use super::activity::QueueView;
use super::diagnosis::QueueDiagnosis;
use super::format::seconds;

/// The possible causes if calls take longer than almost all answered calls.
const HANGING: &str =
    "Its procedures wait in the database, for example for a lock, or its workers hang";
/// The possible causes if calls may not have had enough time. Requests that waited for a slot have little of their session time
/// left.
const HANGING_OR_OVERLOADED: &str = "Either its procedures wait in the database or its workers hang, or calls need more time than \
     is left when they start: then more slots or a longer session help";

/// The possible causes if calls may not have had enough time, and a slot was always free for further requests.
const HANGING_OR_SLOW: &str = "Its calls may only be slow: measure again with a longer --interval. Otherwise, its procedures wait in the \
     database or its workers hang";

/// The evidence that the calls of a queue do not end in time.
pub(crate) struct HangingEvidence {
    pub(crate) text: String,
    /// Whether the calls certainly got more time than usual.
    pub(super) is_certain: bool,
    /// The possible causes.
    pub(super) causes: &'static str,
}

impl QueueView {
    /// Returns the evidence that workers do not accept the requests of the queue, if there is any.
    pub(crate) fn unaccepted_evidence(&self) -> Option<String> {
        let QueueDiagnosis { unaccepted, timed_out_unaccepted, .. } = self.diagnosis;
        if self.diagnosis.has_old_unaccepted() {
            let age = seconds(Some(self.diagnosis.unaccepted_seconds));
            return Some(if unaccepted == 1 {
                format!("no worker has accepted a request that was sent {age} ago")
            } else {
                format!(
                    "no worker has accepted {unaccepted} requests, the oldest of which was sent {age} ago"
                )
            });
        }
        self.diagnosis.runs_out_unaccepted().then(|| {
            format!("{timed_out_unaccepted} requests ran out of time since the earlier report, and no worker had accepted them")
        })
    }

    /// Returns the evidence that the calls of the queue do not end in time: a call is too old or, if the queue is saturated, all
    /// calls had to be stopped.
    pub(crate) fn hanging_evidence(&self) -> Option<HangingEvidence> {
        let QueueDiagnosis { accepted, accepted_seconds, stopped, .. } = self.diagnosis;
        let (taken, what) = if self.diagnosis.has_old_call() {
            let requests = counted(accepted, "request");
            let oldest = if accepted == 1 { "" } else { "the oldest " };
            let age = seconds(Some(accepted_seconds));
            (accepted_seconds, format!("have accepted {requests}, {oldest}{age} ago"))
        } else if self.is_saturated() && self.diagnosis.stops_all_calls() {
            let mean = self.diagnosis.call_seconds_mean();
            let (calls, taken) = (counted(stopped, "call"), seconds(Some(mean)));
            (mean, format!("completed no call and stopped {calls}, after {taken} on average"))
        } else {
            return None;
        };
        let usual = match self.diagnosis.answered_p99_seconds {
            usual if usual > 0.0 => {
                format!(" (99 % of answered calls took up to {})", seconds(Some(usual)))
            }
            _ => String::new(),
        };
        let is_certain = self.diagnosis.is_unusual(taken);
        let (claim, causes) = match (is_certain, self.is_saturated()) {
            (true, _) => ("its calls do not end", HANGING),
            (false, true) => ("its requests are not answered", HANGING_OR_OVERLOADED),
            (false, false) => ("its requests are not answered", HANGING_OR_SLOW),
        };
        let text = format!(
            "{claim}. Workers {what}{usual}, and no answer has been reported since the earlier report"
        );
        Some(HangingEvidence { text, is_certain, causes })
    }

    /// Returns a clause with the number of workers that have replied.
    pub(super) fn replied_workers(&self) -> String {
        match self.workers {
            _ if self.diagnosis.may_lack_workers => {
                "not all workers report whether they serve the queue".to_owned()
            }
            0 => "none of its workers has replied to this query".to_owned(),
            1 => "1 of its workers has replied to this query".to_owned(),
            workers => format!("{workers} of its workers have replied to this query"),
        }
    }
}

/// Returns a number with its noun.
fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
