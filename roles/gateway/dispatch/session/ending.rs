//! How a session ends.

use crate::envelope::Final;
use crate::outcome::Word;
use crate::problem::ProblemKind;

/// The one answer of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A worker's answer, whole.
    Final(Final),
    /// Our own.
    Problem(ProblemKind),
    /// A worker's answer that had begun and ends before its end; why.
    Cut(Word),
    /// Nobody is there to take it.
    ClientGone,
}
