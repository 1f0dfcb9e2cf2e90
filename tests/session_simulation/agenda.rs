//! The packets on the simulated network, and the events on the simulation's agenda.

use fjord::envelope::{Control, Reply};
use fjord::roles::worker::intake::slots::OfferId;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// A request to a random member of the group. The member is chosen when the packet is
    /// delivered.
    Group { request: usize, attempt: u32 },
    /// A request to one member.
    Member { worker: usize, life: u32, request: usize, attempt: u32 },
    /// A request to an offered slot.
    OfferedSlot { worker: usize, life: u32, offer: OfferId, request: usize, attempt: u32 },
    /// A control message to a job.
    Control { worker: usize, life: u32, job: u64, control: Control },
    /// A declined offer.
    Decline { worker: usize, life: u32, offer: OfferId },
    /// A cancel message to all workers. The gateway does not know which of them is running the job.
    BroadcastCancel { request: usize, attempt: u32 },
    /// A message that asks a worker to identify itself.
    QueryMember { worker: usize },
    /// A message by which a worker identifies itself.
    MemberReply { worker: usize, life: u32 },
    /// A reply to an attempt.
    Reply { request: usize, attempt: u32, reply: Reply },
}

#[derive(Debug)]
pub(super) enum WorldEvent {
    Deliver(Packet),
    WakeSession(usize),
    EndPause(usize),
    /// The client has consumed the parts of its answer up to this one.
    Consumes {
        client: usize,
        part: u32,
    },
    OfWorker {
        worker: usize,
        life: u32,
        event: WorkerEvent,
    },
    Crash(usize),
    Drain(usize),
    ClientLeaves(usize),
    Begin(usize),
}

/// An event of a worker, or of one of its jobs.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorkerEvent {
    Wakes,
    ClaimTimesOut(u64),
    /// The procedure produces the next part of its answer.
    Part(u64),
    JobEnds(u64),
    Progress(u64),
}
