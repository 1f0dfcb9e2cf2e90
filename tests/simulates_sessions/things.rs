//! What travels, and what is about to happen.

use fjord::envelope::{Control, Reply};
use fjord::roles::worker::intake::slots::OfferId;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// To some member of the group, chosen when it arrives.
    Group {
        request: usize,
        attempt: u32,
    },
    /// To an offered slot.
    Direct {
        worker: usize,
        life: u32,
        offer: OfferId,
        request: usize,
        attempt: u32,
    },
    Control {
        worker: usize,
        life: u32,
        job: u64,
        control: Control,
    },
    Decline {
        worker: usize,
        life: u32,
        offer: OfferId,
    },
    CancelEverywhere {
        request: usize,
        attempt: u32,
    },
    Reply {
        request: usize,
        attempt: u32,
        reply: Reply,
    },
}

#[derive(Debug)]
pub(super) enum Due {
    Deliver(Packet),
    WakeSession(usize),
    AskAgain(usize),
    /// The client has read so many parts of its answer.
    Takes {
        client: usize,
        part: u32,
    },
    OfWorker {
        worker: usize,
        life: u32,
        due: WorkerDue,
    },
    Crash(usize),
    Drain(usize),
    ClientLeaves(usize),
    Begin(usize),
}

/// What is about to happen to a worker, or to a job of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorkerDue {
    Wakes,
    ClaimTimesOut(u64),
    /// The procedure makes the next part of its answer.
    Part(u64),
    JobEnds(u64),
    Progress(u64),
}
